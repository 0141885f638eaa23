//! What the fuzz targets try (`fuzz/`), one function each: given any bytes, none panics.
//!
//! `tests/corpus.rs` calls the same functions with the inputs that fuzzing kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::data::source::{self, SourceError};
use crate::data::{Table, TableBuilder, Value, json, value};
use crate::diagnostic::{Diagnostic, Report, Sources, Span, render};
use crate::executor::marshal::{Reader, Writer};
use crate::executor::wire::{self, FrameBuffer, FromWorker, Yielded, decode_shape};
use crate::executor::{Outcomes, Shape, keeper};
use crate::plan::{Graph, Plan, Surroundings};
use crate::spec::model::{Action, CellType, Format, Header, Reader as Readers, Source, Stage, TextOptions, Workflow};
use crate::spec::{LoadOptions, load};
use crate::store::codec;

/// A workflow file: it becomes a plan, or mistakes that have their places in the text.
///
/// What would look at the disk (Python modules, `deps`) is left out.
pub fn workflow(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = |name: &str| (name == "HOME").then(|| "/home/user".to_string());
    let options =
        LoadOptions { stem: "fuzz", dir: "/work".into(), params: &[], profiles: &[], backend: None, env: &env };
    let sources = Sources::new("fuzz.yaml", text);
    match load(&sources, &options) {
        Ok(workflow) => {
            let places = workflow.sources.iter().map(|s| s.span).chain(workflow.stages.iter().map(|s| s.span));
            places.chain(workflow.outputs.iter().map(|o| o.span)).for_each(|span| assert_within(text, span));
            compile(workflow);
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "no workflow, and no mistake");
            mistakes.iter().for_each(|mistake| explain(&sources, mistake));
            render(&sources, &mistakes, false);
        }
    }
}

fn compile(workflow: Workflow) {
    assert_eq!(Graph::new(&workflow.stages).order().len(), workflow.stages.len());
    let looks_at_disk = |stage: &Stage| {
        let settings = &stage.settings;
        matches!(stage.action, Action::Python(_)) || settings.init.is_some() || !settings.deps.is_empty()
    };
    if !workflow.stages.iter().any(looks_at_disk) {
        let around = Surroundings {
            env: &|_| None,
            cores: 4,
            workers: None,
            run: ("1", "fuzz"),
            backend: None,
            programs: None,
            secrets: &Arc::default(),
            digests: &Arc::default(),
        };
        let _ = Plan::compile(Arc::new(workflow), &around);
    }
}

fn explain(sources: &Sources, mistake: &Diagnostic) {
    let places = mistake.span.into_iter().chain(mistake.related.iter().map(|r| r.span));
    places.for_each(|span| assert_within(sources.text(), span));
    Report::new(sources, mistake);
}

fn assert_within(text: &str, span: Span) {
    assert!(text.get(span.start..span.end).is_some(), "{span:?} in a text of {} bytes", text.len());
}

/// Frames and what they are made of; the first byte says which.
pub fn frames(data: &[u8]) {
    let Some((&what, rest)) = data.split_first() else { return };
    match what % 5 {
        0 => marshal(rest),
        1 => from_worker(rest),
        2 => cut(rest),
        3 => cell(rest),
        _ => {
            if let Some((&kind, payload)) = rest.split_first() {
                keeper::protocol::assert_reads_back(kind, payload);
            }
        }
    }
}

/// What reads as a value is passed over as one, and is the same again once written.
fn marshal(bytes: &[u8]) {
    let (mut reader, mut passing) = (Reader::new(bytes), Reader::new(bytes));
    let passed = passing.skip();
    if let Ok(value) = reader.value() {
        assert_eq!((passed, passing.is_empty()), (Ok(()), reader.is_empty()));
        assert_eq!(Reader::new(&marshalled(&value)).value(), Ok(value));
    }
}

fn marshalled(value: &Value) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.value(value);
    writer.into_bytes()
}

/// Shape, kind, payload: outcomes are in step with each other.
fn from_worker(bytes: &[u8]) {
    let [shape, kind, payload @ ..] = bytes else { return };
    if *kind == wire::kind::YIELD {
        return yielded(payload);
    }
    let shape = [Shape::One, Shape::Many, Shape::Keep][usize::from(shape % 3)];
    let Ok(FromWorker::Part { outcomes, .. }) = decode_shape(*kind, payload, shape) else { return };
    let Outcomes { done, counts, added, failed, usage } = outcomes;
    assert_eq!(usage.len(), done.len() + failed.len());
    assert_eq!(counts.as_ref().map_or(done.len(), Vec::len), done.len());
    let given = match (shape, &counts) {
        (Shape::Many, Some(counts)) => counts.iter().map(|&n| n as usize).sum(),
        (Shape::Keep, _) => 0,
        _ => done.len(),
    };
    assert_eq!(added.rows(), given);
    look_at(&added);
}

/// Each row of a generator is put into the table, or told to be bad.
fn yielded(payload: &[u8]) {
    let Ok(mut rows) = Yielded::new(payload.to_vec()) else { return };
    let mut table = TableBuilder::default();
    while !rows.is_empty() {
        let Ok(row) = rows.take() else { break };
        let _ = row.put(&mut table);
        table.end_row();
    }
    look_at(&table.finish());
}

/// Frames are the same wherever the bytes break.
fn cut(bytes: &[u8]) {
    let Some((&size, stream)) = bytes.split_first() else { return };
    let frames_of = |size: usize| {
        let mut buffer = FrameBuffer::default();
        let mut frames = Vec::new();
        for piece in stream.chunks(size) {
            buffer.extend(piece);
            loop {
                match buffer.next_frame() {
                    Ok(Some((kind, payload))) => frames.push((kind, payload.to_vec())),
                    Ok(None) => break,
                    Err(_) => return (frames, None),
                }
            }
        }
        (frames, Some(buffer.is_partial()))
    };
    assert_eq!(frames_of(usize::from(size).max(1)), frames_of(stream.len().max(1)));
}

/// A canonical cell is the same again once encoded, and can be shown and sent.
fn cell(bytes: &[u8]) {
    let Ok(cell) = value::decode(bytes) else { return };
    assert_eq!(value::decode(&cell.encoded()), Ok(cell.clone()));
    let _ = (cell.to_json(), cell.to_string(), json::text(&cell));
    assert_eq!(Reader::new(&marshalled(&cell)).skip(), Ok(()));
}

/// Segments and roster batches. An odd first byte: a blob as it lies in the store; an even one: what is behind its
/// sums, which are then made right.
pub fn segments(data: &[u8]) {
    let Some((&what, rest)) = data.split_first() else { return };
    let blob = if what % 2 == 1 { rest.to_vec() } else { codec::sealed(rest) };
    let _ = codec::decode_who(&blob);
    if let Ok(segment) = codec::decode_segment(&blob) {
        look_at(&segment.added);
        let encoded = segment.encode();
        let again = codec::decode_segment(&encoded.bytes).expect("what was encoded");
        assert_eq!(format!("{again:?}"), format!("{segment:?}"));
        assert_eq!(again.encode().bytes, encoded.bytes);
    }
    if let Ok(batch) = codec::decode_roster(&blob) {
        look_at(&batch.table);
        let encoded = codec::encode_roster(&batch);
        let again = codec::decode_roster(&encoded).expect("what was encoded");
        assert_eq!(format!("{again:?}"), format!("{batch:?}"));
        assert_eq!(codec::encode_roster(&again), encoded);
    }
}

fn look_at(table: &Table) {
    (0..table.rows().min(100)).for_each(|row| drop(table.row(row)));
}

/// A file of rows, its options in the first bytes: however the batches are cut, the same rows, good and bad, and
/// every one of them.
pub fn rows(data: &[u8]) {
    let Some((options, content)) = data.split_first_chunk::<4>() else { return };
    // A file without a name: nothing is left of it, whatever happens.
    let mut file = File::from(memfd_create("rows", MemfdFlags::CLOEXEC).expect("memory"));
    file.write_all(content).expect("memory");
    let source = source_of(*options, format!("/proc/self/fd/{}", file.as_raw_fd()));
    let whole = read(&source, None);
    let size = 1 + usize::from(options[0] / 4);
    assert_eq!(read(&source, Some(size)), whole, "{size} rows a batch");
    let Ok(rows) = whole else { return };
    assert!(rows.keys().copied().eq(0..rows.len() as u64), "rows are numbered from 0: {:?}", rows.keys());
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let lines = content.split_inclusive(|&b| b == b'\n');
    match &source.reader {
        Readers::Lines { .. } => assert_eq!(rows.len(), lines.count()),
        Readers::Files { format: Format::Jsonl, .. } => {
            assert_eq!(rows.len(), lines.filter(|line| !line.trim_ascii().is_empty()).count());
            let cells = rows.values().flatten().flatten().filter(|(_, v)| !matches!(v, Value::Time(..)));
            cells.for_each(|(_, v)| assert_eq!(json::parse(&json::text(v)).as_ref(), Ok(v)));
        }
        _ => {}
    }
}

fn source_of([format, header, kind, delimiter]: [u8; 4], path: String) -> Source {
    let (header, column) = match header % 3 {
        0 => (Header::Line, "a"),
        1 => (Header::None, "c0"),
        _ => (Header::Names(vec!["a".into(), "b".into()]), "a"),
    };
    let types = [CellType::Int, CellType::Float, CellType::Bool, CellType::Text, CellType::Date, CellType::DateTime];
    let schema = types.get(usize::from(kind) % 8).map(|kind| (column.to_string(), *kind)).into_iter().collect();
    // As validation has it.
    let delimiter = Some(delimiter).filter(|b| b.is_ascii() && !matches!(b, 0 | b'"' | b'\n' | b'\r'));
    let text = TextOptions { header, delimiter, schema };
    let files = |format| Readers::Files { format, paths: vec![path.clone()], text };
    let reader = match format % 4 {
        0 => files(Format::Csv),
        1 => files(Format::Tsv),
        2 => files(Format::Jsonl),
        _ => Readers::Lines { path: Some(path) },
    };
    Source { name: "fuzz".into(), reader, key: Vec::new(), span: Span::default() }
}

/// A row's cells by name, or what is wrong with it.
type Row = Result<BTreeMap<String, Value>, String>;

/// The rows of a source by number, or why it cannot be read.
fn read(source: &Source, batch_rows: Option<usize>) -> Result<BTreeMap<u64, Row>, String> {
    let mut rows = BTreeMap::new();
    let told = |error: SourceError| error.to_string();
    for batch in source::open(source, "/".as_ref(), batch_rows, None).map_err(told)? {
        let batch = batch.map_err(told)?;
        assert!(!batch.is_empty() && batch.len() <= batch_rows.unwrap_or(usize::MAX));
        let good = batch.rows.iter().enumerate().map(|(at, row)| (*row, Ok(batch.table.row(at).into_iter().collect())));
        let bad = batch.bad.into_iter().map(|(row, failure)| (row, Err(failure.message)));
        for (number, row) in good.chain(bad) {
            assert!(rows.insert(number, row).is_none(), "row {number} twice");
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod seeds;
