//! Frames to the worker.

use super::kind;
use crate::data::source::FileStamp;
use crate::data::{Column, Table, Value};
use crate::executor::marshal::Writer;
use crate::executor::{Job, Shape, SharedForm, SharedObject, TaskInput, Work};
use crate::spec::model::{Call, ChunkFormat};

macro_rules! modules {
    ($($name:literal),*) => {
        [("bpp_flow", include_str!("../../../python/bpp_flow/__init__.py")), $((
            concat!("bpp_flow.", $name),
            include_str!(concat!("../../../python/bpp_flow/", $name, ".py")),
        )),*]
    };
}

/// The worker's modules, each after those that it imports.
const MODULES: [(&str, &str); 11] =
    modules!["capture", "failures", "values", "results", "tables", "memory", "shared", "calls", "yielding", "worker"];

/// Those of keepers on other machines.
const NODE_MODULES: [(&str, &str); 9] =
    modules!["processes", "frames", "tasks", "cache", "guard", "child", "commands", "node"];

/// Those of the process that holds an engine's client.
const BRIDGE_MODULES: [(&str, &str); 3] = modules!["engines", "bridge"];

/// The first frame to every worker: what it is.
pub fn source_frame() -> Vec<u8> {
    frame_of(&MODULES)
}

/// The first frame to a keeper that is started on another machine.
pub fn node_frame() -> Vec<u8> {
    frame_of(&NODE_MODULES)
}

/// The first frame to a bridge.
pub fn bridge_frame() -> Vec<u8> {
    frame_of(&BRIDGE_MODULES)
}

fn frame_of(modules: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = begin(kind::SOURCE, &[]);
    writer.list(modules.len());
    for (name, source) in modules {
        writer.tuple(2);
        writer.text(name);
        writer.text(source);
    }
    end(writer)
}

/// Announces a job under a number.
pub fn job_frame(id: u32, job: &Job) -> Vec<u8> {
    let mut w = begin(kind::JOB, &[&id.to_le_bytes()]);
    w.dict();
    entry(&mut w, "stage", &job.stage);
    entry(&mut w, "shape", shape_name(job.shape));
    if let Work::Python { module, function, call, returns, args } = &job.work {
        entry(&mut w, "module", module);
        entry(&mut w, "function", function);
        let (call, format) = call_names(*call);
        entry(&mut w, "call", call);
        w.text("chunk_format");
        text_or_none(&mut w, format);
        w.text("returns");
        names_or_none(&mut w, returns.as_deref());
        w.text("args");
        arguments(&mut w, args);
    }
    w.text("path");
    let python = job.pool.python.as_ref();
    text_or_none(&mut w, python.map(|p| p.path.to_string_lossy()).as_deref());
    w.text("init");
    match python.and_then(|p| p.init.as_ref()) {
        None => w.none(),
        Some((module, function, args)) => {
            w.tuple(3);
            w.text(module);
            w.text(function);
            arguments(&mut w, args);
        }
    }
    w.text("share");
    let share = python.map_or(&[][..], |p| &p.share);
    w.list(share.len());
    share.iter().for_each(|object| shared(&mut w, object));
    w.end_dict();
    end(w)
}

fn shared(w: &mut Writer, object: &SharedObject) {
    w.tuple(7);
    w.text(&object.name);
    w.text(&object.shown);
    w.text(match object.form {
        SharedForm::File(format) => format.name(),
        SharedForm::Rows => "rows",
    });
    w.text(&object.path.to_string_lossy());
    let FileStamp { size, mtime_ns, inode } = object.stamp;
    // As text: integers of any size.
    [i128::from(size), mtime_ns, i128::from(inode)].iter().for_each(|n| w.text(&n.to_string()));
}

/// A chunk of items.
///
/// # Panics
/// When the input is not rows, or the job not Python: other work has other ways.
pub fn task_frame(seq: u64, job_id: u32, lane: u32, job: &Job, input: &TaskInput) -> Vec<u8> {
    let TaskInput::Rows { table, args, env } = input else { panic!("only rows travel in a task's frame") };
    let Work::Python { call, .. } = &job.work else { panic!("only Python functions run in workers") };
    let mut w = begin_task(kind::TASK, seq, job_id, lane);
    w.tuple(4);
    let mut marks = match call {
        Call::Value => w.cells(value_column(table), table.rows()),
        Call::Row | Call::Kwargs | Call::Chunk(_) => w.rows(table),
    };
    marks.extend(rows_or_none(&mut w, args));
    rows_or_none(&mut w, &as_text(env));
    marks_or_none(&mut w, marks);
    end(w)
}

/// A group, of whose arguments `args` is the only row. Its rows follow at once, as [`rows_frame`]s and one
/// [`end_of_rows_frame`], with nothing else to this worker in between.
pub fn group_frame(seq: u64, job_id: u32, lane: u32, args: &Table) -> Vec<u8> {
    let mut w = begin_task(kind::GROUP, seq, job_id, lane);
    let row = if args.rows() == 0 { Vec::new() } else { args.row(0) };
    arguments(&mut w, &row);
    end(w)
}

/// Rows of the group that was announced last.
pub fn rows_frame(table: &Table) -> Vec<u8> {
    let mut w = begin(kind::ROWS, &[]);
    w.tuple(2);
    let marks = w.rows(table);
    marks_or_none(&mut w, marks);
    end(w)
}

/// The group's rows are complete.
pub fn end_of_rows_frame() -> Vec<u8> {
    end(begin(kind::END_OF_ROWS, &[]))
}

/// The rows of a job's function are wanted.
pub fn yield_frame(seq: u64, job_id: u32) -> Vec<u8> {
    end(begin(kind::YIELD, &[&seq.to_le_bytes(), &job_id.to_le_bytes()]))
}

/// No more tasks.
pub fn quit_frame() -> Vec<u8> {
    end(begin(kind::QUIT, &[]))
}

fn begin(kind: u8, fields: &[&[u8]]) -> Writer {
    let mut out = vec![0, 0, 0, 0, kind];
    fields.iter().for_each(|f| out.extend_from_slice(f));
    Writer::new(out)
}

fn begin_task(kind: u8, seq: u64, job_id: u32, lane: u32) -> Writer {
    begin(kind, &[&seq.to_le_bytes(), &job_id.to_le_bytes(), &lane.to_le_bytes()])
}

fn end(writer: Writer) -> Vec<u8> {
    let mut frame = writer.into_bytes();
    let length = (frame.len() - 5) as u32;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

fn entry(w: &mut Writer, name: &str, text: &str) {
    w.text(name);
    w.text(text);
}

fn text_or_none(w: &mut Writer, text: Option<&str>) {
    match text {
        Some(text) => w.text(text),
        None => w.none(),
    }
}

fn names_or_none(w: &mut Writer, names: Option<&[String]>) {
    let Some(names) = names else { return w.none() };
    w.list(names.len());
    names.iter().for_each(|name| w.text(name));
}

fn arguments(w: &mut Writer, args: &[(String, Value)]) {
    w.map(args.iter().map(|(name, value)| (name.as_str(), value)));
}

fn rows_or_none(w: &mut Writer, table: &Table) -> Vec<u32> {
    if table.names().is_empty() {
        w.none();
        return Vec::new();
    }
    w.rows(table)
}

fn marks_or_none(w: &mut Writer, mut marks: Vec<u32>) {
    if marks.is_empty() {
        return w.none();
    }
    marks.sort_unstable();
    marks.dedup();
    w.list(marks.len());
    marks.iter().for_each(|&row| w.int(row.into()));
}

/// Environment variables are text.
fn as_text(env: &Table) -> Table {
    let columns = env.columns().iter().map(|column| {
        Column::from_values((0..column.len()).map(|row| match column.value(row) {
            Value::Absent => Value::Absent,
            value => Value::Text(value.to_string()),
        }))
    });
    Table::new(env.names().clone(), columns.collect(), env.rows())
}

/// What `call: value` passes: the column `value`, or else the only one.
fn value_column(table: &Table) -> Option<&Column> {
    match (table.column("value"), table.columns()) {
        (Some(column), _) | (None, [column]) => Some(column),
        (None, _) => None,
    }
}

fn shape_name(shape: Shape) -> &'static str {
    match shape {
        Shape::One => "one",
        Shape::Many => "many",
        Shape::Keep => "keep",
    }
}

fn call_names(call: Call) -> (&'static str, Option<&'static str>) {
    match call {
        Call::Row => ("row", None),
        Call::Kwargs => ("kwargs", None),
        Call::Value => ("value", None),
        Call::Chunk(ChunkFormat::Pandas) => ("chunk", Some("pandas")),
        Call::Chunk(ChunkFormat::Arrow) => ("chunk", Some("arrow")),
        Call::Chunk(ChunkFormat::Rows) => ("chunk", Some("rows")),
    }
}
