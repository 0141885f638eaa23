//! `csv:` and `tsv:`: rows of delimited text, from one file or several.
//!
//! Types are settled before the first row is given: over the first [`SAMPLE_ROWS`] rows of the source, and for a
//! column that first appears in a later file over that file's. Files are read twice for it, never kept.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use csv::ByteRecord;

use super::error::SourceError;
use super::files::{self, SourceFile};
use super::infer::{ColumnType, Evidence, SAMPLE_ROWS, push_cell};
use super::{Counter, Limits, ReadBatch, SourceReader, Surroundings, bad_row, input};
use crate::data::failure::Failure;
use crate::data::table::{Column, ColumnBuilder, Table};
use crate::spec::model::{Format, Header, TextOptions};

type Names = Arc<[Arc<str>]>;

/// Opens a source of delimited text.
pub(super) fn open(
    source_name: &str,
    format: Format,
    paths: &[String],
    text: &TextOptions,
    around: &Surroundings,
    limits: Limits,
) -> Result<SourceReader, SourceError> {
    let files = files::expand(source_name, paths, around)?;
    let total = files.iter().map(|f| f.size).sum();
    let delimiter = text.delimiter.unwrap_or(if format == Format::Tsv { b'\t' } else { b',' });
    let opener = Opener { source_name: source_name.into(), delimiter, header: text.header.clone() };
    let types = settle_types(&opener, &files, text)?;
    let counter = Counter::default();
    let rows = CsvRows { opener, types, files: files.into_iter(), current: None, next_row: 0, limits, counter };
    Ok(SourceReader { total_bytes: Some(total), ..SourceReader::new(rows) })
}

/// How files of the source are opened.
struct Opener {
    source_name: Arc<str>,
    delimiter: u8,
    header: Header,
}

/// A file behind its header.
struct CsvFile {
    reader: csv::Reader<Box<dyn Read + Send>>,
    shown: String,
    names: Names,
    record: ByteRecord,
    /// `record` holds a row that was read to see how many columns there are.
    peeked: bool,
}

impl Opener {
    fn open(&self, file: &SourceFile, counter: &Counter) -> Result<CsvFile, SourceError> {
        let bytes = input::open_text(&self.source_name, file, counter)?;
        let reader = csv::ReaderBuilder::new()
            .delimiter(self.delimiter)
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(256 << 10)
            .from_reader(bytes);
        let names = Arc::from([]);
        let mut opened = CsvFile { reader, shown: file.shown.clone(), names, record: ByteRecord::new(), peeked: false };
        opened.names = match &self.header {
            Header::Line => self.read_header(&mut opened)?,
            Header::Names(names) => names.iter().map(|n| Arc::from(n.as_str())).collect(),
            Header::None => {
                opened.peeked = opened.next_record(&self.source_name)?;
                (0..opened.record.len()).map(|i| Arc::from(format!("c{i}"))).collect()
            }
        };
        Ok(opened)
    }

    fn read_header(&self, file: &mut CsvFile) -> Result<Names, SourceError> {
        file.next_record(&self.source_name)?;
        let wrong =
            |what| SourceError::Content { source_name: self.source_name.to_string(), path: file.shown.clone(), what };
        let mut names: Vec<Arc<str>> = Vec::with_capacity(file.record.len());
        let mut seen = HashMap::new();
        for (i, name) in file.record.iter().enumerate() {
            let name = std::str::from_utf8(name).map_err(|_| wrong("the header is not valid UTF-8".into()))?;
            if let Some(first) = seen.insert(name, i) {
                let what = format!("two columns are named {name:?}: the {} and the {}", nth(first), nth(i));
                return Err(wrong(what));
            }
            names.push(name.into());
        }
        Ok(names.into())
    }
}

fn nth(index: usize) -> String {
    let n = index + 1;
    let end = match (n % 10, n % 100) {
        (1, x) if x != 11 => "st",
        (2, x) if x != 12 => "nd",
        (3, x) if x != 13 => "rd",
        _ => "th",
    };
    format!("{n}{end}")
}

impl CsvFile {
    /// Reads the next row into `record`; false at the end.
    #[inline]
    fn next_record(&mut self, source_name: &str) -> Result<bool, SourceError> {
        if std::mem::take(&mut self.peeked) {
            return Ok(true);
        }
        self.reader.read_byte_record(&mut self.record).map_err(|cause| SourceError::Io {
            source_name: source_name.into(),
            path: self.shown.clone(),
            cause: cause.into(),
        })
    }

    /// `file:line` of the row in `record`, blank lines before it skipped.
    fn place(&self) -> String {
        let start = self.record.position().map_or(1, |p| p.line());
        let inside = self.record.as_slice().iter().filter(|&&b| b == b'\n').count() as u64;
        let line = (self.reader.position().line().saturating_sub(inside + 1)).max(start);
        format!("{}:{line}", self.shown)
    }
}

/// The types of the columns of all files' first rows.
fn settle_types(
    opener: &Opener,
    files: &[SourceFile],
    text: &TextOptions,
) -> Result<HashMap<Arc<str>, ColumnType>, SourceError> {
    let mut evidence: HashMap<Arc<str>, Evidence> = HashMap::new();
    let mut missing: Vec<&String> = text.schema.keys().collect();
    let mut left = SAMPLE_ROWS;
    for file in files {
        if left == 0 && missing.is_empty() {
            break;
        }
        let mut file = opener.open(file, &Counter::default())?;
        missing.retain(|name| !file.names.iter().any(|n| **n == **name));
        left -= sample(opener, &mut file, left, &mut evidence)?;
    }
    let mut types: HashMap<Arc<str>, ColumnType> =
        evidence.iter().map(|(n, e)| (n.clone(), ColumnType { cell: e.settle(), given: false })).collect();
    if let Some(name) = missing.first().filter(|_| !types.is_empty()) {
        return Err(SourceError::no_column(&opener.source_name, name, types.keys().map(|n| &**n)));
    }
    types.extend(text.schema.iter().map(|(n, t)| (Arc::from(n.as_str()), ColumnType { cell: *t, given: true })));
    Ok(types)
}

/// Observes up to `limit` rows of a file; says how many there were.
fn sample(
    opener: &Opener,
    file: &mut CsvFile,
    limit: usize,
    evidence: &mut HashMap<Arc<str>, Evidence>,
) -> Result<usize, SourceError> {
    let mut columns: Vec<Evidence> = file.names.iter().map(|n| evidence.get(n).cloned().unwrap_or_default()).collect();
    let mut rows = 0;
    while rows < limit && file.next_record(&opener.source_name)? {
        rows += 1;
        if file.record.len() == columns.len() {
            file.record.iter().zip(&mut columns).for_each(|(cell, evidence)| evidence.observe(cell));
        }
    }
    if limit > 0 {
        evidence.extend(file.names.iter().cloned().zip(columns));
    }
    Ok(rows)
}

/// The stream of batches.
struct CsvRows {
    opener: Opener,
    types: HashMap<Arc<str>, ColumnType>,
    files: std::vec::IntoIter<SourceFile>,
    current: Option<CsvFile>,
    next_row: u64,
    limits: Limits,
    counter: Counter,
}

impl CsvRows {
    /// Opens the next file; columns that no file had before get their types from it.
    fn advance(&mut self) -> Result<bool, SourceError> {
        self.current = None;
        let Some(file) = self.files.next() else { return Ok(false) };
        let opened = self.opener.open(&file, &self.counter)?;
        if opened.names.iter().any(|n| !self.types.contains_key(n)) {
            let mut evidence = HashMap::new();
            let mut again = self.opener.open(&file, &Counter::default())?;
            sample(&self.opener, &mut again, SAMPLE_ROWS, &mut evidence)?;
            for (name, evidence) in evidence {
                self.types.entry(name).or_insert(ColumnType { cell: evidence.settle(), given: false });
            }
        }
        self.current = Some(opened);
        Ok(true)
    }

    fn read_batch(&mut self) -> Result<Option<ReadBatch>, SourceError> {
        if self.current.is_none() && !self.advance()? {
            return Ok(None);
        }
        let names = self.current.as_ref().expect("advanced").names.clone();
        let types: Vec<ColumnType> = names.iter().map(|n| self.types[n]).collect();
        let mut rows = Growing::new(names, types);
        while rows.count() < self.limits.rows && rows.bytes < self.limits.bytes {
            let file = self.current.as_mut().expect("a file is open");
            if file.next_record(&self.opener.source_name)? {
                rows.push(self.next_row, file);
                self.next_row += 1;
            } else if !self.advance()? || self.current.as_ref().is_some_and(|f| f.names != rows.names) {
                break;
            }
        }
        Ok(Some(rows.finish(self.counter.take())))
    }
}

impl Iterator for CsvRows {
    type Item = Result<ReadBatch, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_batch().transpose()
    }
}

/// A batch that grows row by row.
struct Growing {
    names: Names,
    types: Vec<ColumnType>,
    columns: Vec<ColumnBuilder>,
    /// Rows in `columns`, those of `spoilt` included.
    rows: Vec<u64>,
    /// Rows in `columns` that turned out to be bad.
    spoilt: Vec<usize>,
    bad: Vec<(u64, Failure)>,
    bytes: usize,
}

impl Growing {
    fn new(names: Names, types: Vec<ColumnType>) -> Growing {
        let columns = names.iter().map(|_| ColumnBuilder::default()).collect();
        Growing { names, types, columns, rows: Vec::new(), spoilt: Vec::new(), bad: Vec::new(), bytes: 0 }
    }

    fn count(&self) -> usize {
        self.rows.len() + self.bad.len() - self.spoilt.len()
    }

    #[inline]
    fn push(&mut self, row: u64, file: &CsvFile) {
        self.bytes += file.record.as_slice().len() + 8;
        if file.record.len() != self.columns.len() {
            return self.bad.push((row, bad_row(self.count_message(file))));
        }
        let mut wrong = None;
        for (i, cell) in file.record.iter().enumerate() {
            if let Err(what) = push_cell(&mut self.columns[i], self.types[i], cell) {
                self.columns[i].push_null();
                wrong = wrong.or(Some((i, what)));
            }
        }
        if let Some((i, what)) = wrong {
            self.spoilt.push(self.rows.len());
            let cell = shorten(&String::from_utf8_lossy(&file.record[i]));
            let message = format!("{}: column {:?}: {cell:?} is not {what}", file.place(), &*self.names[i]);
            self.bad.push((row, bad_row(message)));
        }
        self.rows.push(row);
    }

    fn count_message(&self, file: &CsvFile) -> String {
        let (found, expected) = (file.record.len(), self.columns.len());
        let s = if found == 1 { "" } else { "s" };
        format!("{}: {found} field{s} where {expected} are expected", file.place())
    }

    fn finish(self, bytes: u64) -> ReadBatch {
        let all = self.rows.len();
        let columns: Vec<Column> = self.columns.into_iter().map(ColumnBuilder::finish).collect();
        let table = Table::new(self.names, columns, all);
        if self.spoilt.is_empty() {
            return ReadBatch { rows: self.rows, table, bad: self.bad, bytes };
        }
        let mut spoilt = self.spoilt.into_iter().peekable();
        let kept: Vec<u32> = (0..all).filter(|&i| spoilt.next_if_eq(&i).is_none()).map(|i| i as u32).collect();
        let rows = kept.iter().map(|&i| self.rows[i as usize]).collect();
        ReadBatch { rows, table: table.take(&kept), bad: self.bad, bytes }
    }
}

/// The head of a long cell.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::data::source::testing::{Folder, all_rows, messages};
    use crate::data::value::Value;
    use crate::spec::model::CellType;

    fn csv(folder: &Folder, paths: &[&str], text: &TextOptions) -> Result<SourceReader, SourceError> {
        let paths: Vec<String> = paths.iter().map(|p| p.to_string()).collect();
        open("cells", Format::Csv, &paths, text, &Surroundings::new(folder.path()), Limits { rows: 3, bytes: 1 << 20 })
    }

    fn read(content: &[u8]) -> Vec<ReadBatch> {
        let folder = Folder::with(&[("cells.csv", content)]);
        csv(&folder, &["cells.csv"], &TextOptions::default()).expect("opens").map(|b| b.expect("reads")).collect()
    }

    fn row(cells: &[(&str, Value)]) -> Vec<(String, Value)> {
        cells.iter().map(|(n, v)| (n.to_string(), v.clone())).collect()
    }

    #[test]
    fn types_and_empty_cells() {
        let batches = read(b"id,f,b,t,none\n1,1.5,true,a,\n,,,,\n3,2,false,007,\n4,nan,true,x,\n");
        let rows = all_rows(&batches);
        let text = |s: &str| Value::Text(s.into());
        assert_eq!(batches.len(), 2, "three rows a batch");
        assert_eq!(
            rows[0],
            row(&[
                ("id", Value::Int(1)),
                ("f", Value::Float(1.5)),
                ("b", Value::Bool(true)),
                ("t", text("a")),
                ("none", text(""))
            ])
        );
        assert_eq!(
            rows[1],
            row(&[("id", Value::Null), ("f", Value::Null), ("b", Value::Null), ("t", text("")), ("none", text(""))])
        );
        assert_eq!(rows[2][1].1, Value::Float(2.0));
        assert!(matches!(batches[0].table.columns()[0], Column::Int(_)));
    }

    #[test]
    fn a_later_cell_that_does_not_fit_fails_its_row() {
        let mut content = "area,name\n".to_string();
        (0..SAMPLE_ROWS).for_each(|i| content += &format!("{i}.5,n\n"));
        content += "abc,n\n7,m\n";
        let batches = read(content.as_bytes());
        assert_eq!(
            messages(&batches),
            [(10_000, "cells.csv:10002: column \"area\": \"abc\" is not a float".to_string())]
        );
        assert_eq!(batches.last().expect("some").rows.last(), Some(&10_001));
        assert_eq!(all_rows(&batches).len(), 10_001);
    }

    #[test]
    fn big_integers_stay_exact_among_small_ones() {
        let rows = all_rows(&read(b"n\n1\n123456789012345678901\n-9223372036854775808\n"));
        assert_eq!(rows[1], row(&[("n", Value::BigInt("123456789012345678901".into()))]));
        assert_eq!(rows[2], row(&[("n", Value::Int(i64::MIN))]));
    }

    #[test]
    fn rows_of_other_lengths_are_bad_and_lines_are_right() {
        let batches = read(b"a,b\n1,\"x\ny\"\n\n2\n3,z,4\n\"5\n\",w\n");
        assert_eq!(
            messages(&batches),
            [
                (1, "cells.csv:5: 1 field where 2 are expected".to_string()),
                (2, "cells.csv:6: 3 fields where 2 are expected".to_string()),
            ]
        );
        assert_eq!(all_rows(&batches)[0][1].1, Value::Text("x\ny".into()));
        assert_eq!(all_rows(&batches)[1][0].1, Value::Text("5\n".into()));
    }

    #[test]
    fn invalid_utf8_is_a_bad_row() {
        let batches = read(b"a,b\n1,x\n2,\xff\xfe\n3,y\n");
        assert_eq!(
            messages(&batches),
            [(1, "cells.csv:3: column \"b\": \"\u{fffd}\u{fffd}\" is not valid UTF-8".to_string())]
        );
        assert_eq!(batches[0].rows, [0, 2]);
    }

    #[test]
    fn nothing_is_no_rows() {
        for content in [&b""[..], b"a,b\n", b"a,b", b"\xef\xbb\xbf"] {
            assert!(read(content).is_empty());
        }
    }

    #[test]
    fn marks_and_line_ends() {
        let rows = all_rows(&read(b"\xef\xbb\xbfa,b\r\n1,x\r\n"));
        assert_eq!(rows, [row(&[("a", Value::Int(1)), ("b", Value::Text("x".into()))])]);
    }

    #[test]
    fn two_columns_of_one_name_are_refused() {
        let folder = Folder::with(&[("cells.csv", b"a,b,a\n1,2,3\n")]);
        let error = csv(&folder, &["cells.csv"], &TextOptions::default()).err().expect("refused");
        let text = error.to_string();
        assert_eq!(text, "source cells: cells.csv: two columns are named \"a\": the 1st and the 3rd");
    }

    #[test]
    fn several_files_unite_their_columns() {
        let folder =
            Folder::with(&[("1.csv", b"a,b\n1,x\n2,y\n"), ("2.csv", b"a,b\n3,z\n4,z\n"), ("3.csv", b"b,c\nw,1.5\n")]);
        let reader = csv(&folder, &["*.csv"], &TextOptions::default()).expect("opens");
        let batches: Vec<_> = reader.map(|b| b.expect("reads")).collect();
        assert_eq!(batches.iter().map(|b| b.rows.clone()).collect::<Vec<_>>(), [vec![0, 1, 2], vec![3], vec![4]]);
        assert_eq!(all_rows(&batches)[4], row(&[("b", Value::Text("w".into())), ("c", Value::Float(1.5))]));
    }

    #[test]
    fn a_column_of_a_later_file_gets_its_type_there() {
        let mut first = "a\n".to_string();
        (0..SAMPLE_ROWS + 1).for_each(|i| first += &format!("{i}\n"));
        let folder = Folder::with(&[("1.csv", first.as_bytes()), ("2.csv", b"a,b\n5,2.5\n")]);
        let reader = csv(&folder, &["1.csv", "2.csv"], &TextOptions::default()).expect("opens");
        let last = reader.map(|b| b.expect("reads")).last().expect("some");
        assert_eq!(last.table.row(0), row(&[("a", Value::Int(5)), ("b", Value::Float(2.5))]));
    }

    #[test]
    fn headers_delimiters_and_schemas() {
        let folder = Folder::with(&[("cells.csv", b"1;007\n2;008\n")]);
        let mut text = TextOptions { header: Header::None, delimiter: Some(b';'), ..TextOptions::default() };
        let read = |text: &TextOptions| {
            all_rows(&csv(&folder, &["cells.csv"], text).expect("opens").map(|b| b.expect("reads")).collect::<Vec<_>>())
        };
        assert_eq!(read(&text)[1], row(&[("c0", Value::Int(2)), ("c1", Value::Text("008".into()))]));
        text.header = Header::Names(vec!["id".into(), "code".into()]);
        text.schema.insert("code".into(), CellType::Int);
        assert_eq!(read(&text)[1], row(&[("id", Value::Int(2)), ("code", Value::Int(8))]));
        text.schema.insert("cod".into(), CellType::Int);
        let error = csv(&folder, &["cells.csv"], &text).err().expect("refused").to_string();
        assert_eq!(error, "source cells: there is no column \"cod\"; did you mean \"code\"?");
    }

    #[test]
    fn compressed_files() {
        let content = b"a\n1\n2\n";
        let gz = |part: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).expect("memory");
            encoder.finish().expect("memory")
        };
        let members = [gz(&content[..3]), gz(&content[3..])].concat();
        let zst = zstd::encode_all(&content[..], 1).expect("memory");
        let folder = Folder::with(&[("a.csv.gz", &members), ("b.csv.zst", &zst), ("c.csv.gz", b"")]);
        let reader = csv(&folder, &["a.csv.gz", "b.csv.zst", "c.csv.gz"], &TextOptions::default()).expect("opens");
        let total = reader.total_bytes();
        let batches: Vec<_> = reader.map(|b| b.expect("reads")).collect();
        let numbers: Vec<_> = all_rows(&batches).into_iter().map(|r| r[0].1.clone()).collect();
        assert_eq!(numbers, [1, 2, 1, 2].map(Value::Int));
        assert_eq!(Some(batches.iter().map(|b| b.bytes).sum::<u64>()), total);
    }

    #[test]
    fn a_missing_file_is_told_with_its_neighbour() {
        let folder = Folder::with(&[("data/cells.csv", b"a\n1\n")]);
        let error = |path| csv(&folder, &[path], &TextOptions::default()).err().expect("missing").to_string();
        assert_eq!(error("data/cell.csv"), "source cells: there is no file data/cell.csv; there is data/cells.csv");
        assert_eq!(error("dat/cells.csv"), "source cells: there is no file dat/cells.csv; there is data");
        assert_eq!(error("data/zzz"), "source cells: there is no file data/zzz");
        assert_eq!(error("data"), "source cells: data: is a folder");
    }

    proptest! {
        #[test]
        fn reads_what_the_csv_crate_wrote(cells in prop::collection::vec(prop::collection::vec("[ -~\n\"é,]{0,6}", 3), 1..20)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["a", "b", "c"]).expect("memory");
            cells.iter().for_each(|row| writer.write_record(row).expect("memory"));
            let folder = Folder::with(&[("cells.csv", &writer.into_inner().expect("memory"))]);
            let schema = ["a", "b", "c"].map(|n| (n.to_string(), CellType::Text)).into();
            let reader = csv(&folder, &["cells.csv"], &TextOptions { schema, ..TextOptions::default() }).expect("opens");
            let rows = all_rows(&reader.map(|b| b.expect("reads")).collect::<Vec<_>>());
            let read: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|(_, v)| v.to_string()).collect()).collect();
            prop_assert_eq!(read, cells);
        }
    }
}
