//! Frames from the worker. Results become columns without a detour: a cell's token goes straight to its column.

use std::collections::BTreeMap;

use super::{PROTOCOL, WireError, kind};
use crate::data::{ColumnBuilder, Failure, FailureKind, TableBuilder, Usage, Value};
use crate::executor::marshal::{self, Damaged, ReadError, Reader, Token, Unkept};
use crate::executor::{Job, Outcomes, Shape};

/// What a worker tells.
#[derive(Debug)]
pub enum FromWorker {
    /// It has started.
    Hello { pid: u32, version: String, executable: String },
    /// Some of a task's items ended.
    Part { seq: u64, outcomes: Outcomes },
    /// A task is over; the items from `begun` on were not begun.
    Done { seq: u64, begun: u32 },
    /// The task's function cannot be run at all.
    Broken { seq: u64, message: String },
}

impl FromWorker {
    /// The task that a frame belongs to, whose job [`decode`] needs; `None` for a hello or a damaged frame.
    pub fn seq(kind: u8, payload: &[u8]) -> Option<u64> {
        let seq = payload.first_chunk::<8>()?;
        (kind != kind::HELLO).then(|| u64::from_le_bytes(*seq))
    }
}

/// Reads a frame. Of the job only the shape counts.
pub fn decode(kind: u8, payload: &[u8], job: &Job) -> Result<FromWorker, WireError> {
    decode_shape(kind, payload, job.shape)
}

/// Reads a frame of a task whose items have this shape (any, where the kind is not a part).
pub fn decode_shape(kind: u8, payload: &[u8], shape: Shape) -> Result<FromWorker, WireError> {
    let mut fields = Fields(payload);
    match kind {
        kind::HELLO => hello(payload),
        kind::PART => Ok(FromWorker::Part { seq: fields.u64()?, outcomes: part(fields, shape)? }),
        kind::DONE => Ok(FromWorker::Done { seq: fields.u64()?, begun: fields.u32()? }),
        kind::BROKEN => {
            let seq = fields.u64()?;
            Ok(FromWorker::Broken { seq, message: any_text(&mut Reader::new(fields.0))? })
        }
        other => Err(WireError::Kind(char::from(other))),
    }
}

/// Rows that a generator yielded, in one frame.
#[derive(Debug)]
pub struct Yielded {
    payload: Vec<u8>,
    /// Where the next row begins.
    at: usize,
    /// Its number in the frame, and that of all.
    next: u32,
    rows: u32,
    /// Rows that cannot be kept, and why.
    bad: BTreeMap<u32, String>,
}

impl Yielded {
    /// Rows of a frame's payload.
    pub fn new(payload: Vec<u8>) -> Result<Yielded, WireError> {
        let mut fields = Fields(&payload);
        let (_seq, rows) = (fields.u64()?, fields.u32()?);
        let mut reader = Reader::new(fields.0);
        let mut bad = BTreeMap::new();
        for _ in 0..list(&mut reader)? {
            expect_tuple(&mut reader, 2)?;
            bad.insert(number(&mut reader)?, any_text(&mut reader)?);
        }
        let at = payload.len() - reader.left();
        Ok(Yielded { payload, at, next: 0, rows, bad })
    }

    /// Whether all rows were taken.
    pub fn is_empty(&self) -> bool {
        self.next >= self.rows
    }

    /// Takes the next row.
    pub fn take(&mut self) -> Result<YieldedRow<'_>, WireError> {
        let (start, bad) = (self.at, self.bad.remove(&self.next));
        self.next += 1;
        if bad.is_none() {
            let mut reader = Reader::new(&self.payload[start..]);
            reader.skip()?;
            self.at = self.payload.len() - reader.left();
        }
        if self.is_empty() && self.at < self.payload.len() {
            return Err(Damaged.into());
        }
        Ok(YieldedRow { bytes: &self.payload[start..self.at], bad })
    }
}

/// A row that was yielded.
#[derive(Debug)]
pub struct YieldedRow<'a> {
    /// A dict in marshal form.
    pub bytes: &'a [u8],
    bad: Option<String>,
}

impl YieldedRow<'_> {
    /// Puts its cells into a table, whose row is then to be ended; or says why it cannot be kept.
    pub fn put(self, table: &mut TableBuilder) -> Result<(), String> {
        if let Some(message) = self.bad {
            return Err(message);
        }
        let mut reader = Reader::new(self.bytes);
        match reader.token() {
            Ok(Token::Dict) => cells(&mut reader, table).map_err(|bad| match bad {
                BadResult::Unkept(message) => message,
                BadResult::Damaged => Damaged.to_string(),
            }),
            _ => Err(Damaged.to_string()),
        }
    }
}

/// Fixed-width fields before the marshal data.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u64(&mut self) -> Result<u64, Damaged> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*field))
    }

    fn u32(&mut self) -> Result<u32, Damaged> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*field))
    }
}

fn hello(payload: &[u8]) -> Result<FromWorker, WireError> {
    let Ok(Value::Map(entries)) = Reader::new(payload).value() else { return Err(Damaged.into()) };
    let entries: BTreeMap<String, Value> = entries.into_iter().collect();
    let text = |name: &str| entries.get(name).map(Value::to_string).unwrap_or_default();
    match (entries.get("protocol"), entries.get("pid")) {
        (Some(Value::Int(PROTOCOL)), Some(Value::Int(pid))) => {
            let pid = u32::try_from(*pid).map_err(|_| Damaged)?;
            Ok(FromWorker::Hello { pid, version: text("version"), executable: text("executable") })
        }
        (Some(Value::Int(other)), _) => Err(WireError::Protocol(*other)),
        _ => Err(Damaged.into()),
    }
}

fn part(mut fields: Fields, shape: Shape) -> Result<Outcomes, WireError> {
    let (first, items, mean, peak_kib) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
    let end = first.checked_add(items).ok_or(Damaged)?;
    let mut reader = Reader::new(fields.0);
    expect_tuple(&mut reader, 2)?;
    let slow = slow_items(&mut reader)?;
    let mut failed = failed_items(&mut reader)?;
    let mut results = Results::read(&reader, first..end, shape, &failed, &BTreeMap::new())?;
    if !results.unkept.is_empty() {
        // Rare: once more without what cannot be kept, so that nothing of it is left in the columns.
        let unkept = std::mem::take(&mut results.unkept);
        results = Results::read(&reader, first..end, shape, &failed, &unkept)?;
        failed.extend(unkept);
    }
    let usage = |item: &u32| Usage { micros: slow.get(item).copied().unwrap_or(mean), peak_kib };
    Ok(Outcomes {
        usage: results.done.iter().chain(failed.keys()).map(usage).collect(),
        done: results.done,
        counts: (shape != Shape::One).then_some(results.counts),
        added: results.added.finish(),
        failed: failed.into_iter().collect(),
    })
}

/// Items whose time was measured alone, in microseconds.
fn slow_items(reader: &mut Reader) -> Result<BTreeMap<u32, u32>, Damaged> {
    let mut slow = BTreeMap::new();
    for _ in 0..list(reader)? {
        expect_tuple(reader, 2)?;
        slow.insert(number(reader)?, number(reader)?);
    }
    Ok(slow)
}

fn failed_items(reader: &mut Reader) -> Result<BTreeMap<u32, Failure>, Damaged> {
    let mut failed = BTreeMap::new();
    for _ in 0..list(reader)? {
        expect_tuple(reader, 6)?;
        let item = number(reader)?;
        let kind = any_text(reader)?;
        let kind = FailureKind::ALL.into_iter().find(|k| k.name() == kind).ok_or(Damaged)?;
        let mut failure = Failure::new(kind, any_text(reader)?);
        failure.traceback = any_text(reader)?;
        failure.output = any_text(reader)?;
        failure.place = any_text(reader)?;
        failed.insert(item, failure);
    }
    Ok(failed)
}

fn list(reader: &mut Reader) -> Result<usize, Damaged> {
    match reader.token()? {
        Token::List(n) => Ok(n),
        _ => Err(Damaged),
    }
}

fn expect_tuple(reader: &mut Reader, n: usize) -> Result<(), Damaged> {
    if reader.token()? == Token::Tuple(n) { Ok(()) } else { Err(Damaged) }
}

/// A number of 32 bits; larger ones as the largest.
fn number(reader: &mut Reader) -> Result<u32, Damaged> {
    match reader.token()? {
        Token::Int(v) => u32::try_from(v).map_err(|_| Damaged),
        Token::Long(false, digits) => {
            Ok(marshal::small_long(false, digits).and_then(|v| u32::try_from(v).ok()).unwrap_or(u32::MAX))
        }
        _ => Err(Damaged),
    }
}

fn any_text(reader: &mut Reader) -> Result<String, Damaged> {
    match reader.token()? {
        Token::Text(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        _ => Err(Damaged),
    }
}

/// The results in a part.
#[derive(Default)]
struct Results {
    done: Vec<u32>,
    counts: Vec<u32>,
    added: TableBuilder,
    /// Items whose result cannot be kept.
    unkept: BTreeMap<u32, Failure>,
}

impl Results {
    /// Reads the results of `items`, in order: `failed` ones have none, those of `without` are passed over.
    fn read(
        reader: &Reader,
        items: std::ops::Range<u32>,
        shape: Shape,
        failed: &BTreeMap<u32, Failure>,
        without: &BTreeMap<u32, Failure>,
    ) -> Result<Results, WireError> {
        let mut reader = reader.clone();
        let mut results = Results::default();
        for item in items {
            if failed.contains_key(&item) {
                continue;
            }
            if without.contains_key(&item) {
                reader.skip()?;
                continue;
            }
            let start = reader.clone();
            match results.item(&mut reader, shape) {
                Ok(()) => results.done.push(item),
                Err(BadResult::Damaged) => return Err(Damaged.into()),
                Err(BadResult::Unkept(message)) => {
                    results.unkept.insert(item, Failure::new(FailureKind::Output, message));
                    results.added.end_row();
                    reader = start;
                    reader.skip()?;
                }
            }
        }
        if reader.is_empty() { Ok(results) } else { Err(Damaged.into()) }
    }

    #[inline]
    fn item(&mut self, reader: &mut Reader, shape: Shape) -> Result<(), BadResult> {
        match (shape, reader.token()?) {
            (Shape::One, Token::Dict) => row(reader, &mut self.added)?,
            (Shape::Many, Token::List(n)) => {
                for _ in 0..n {
                    match reader.token()? {
                        Token::Dict => row(reader, &mut self.added)?,
                        _ => return Err(BadResult::Damaged),
                    }
                }
                self.counts.push(n as u32);
            }
            (Shape::Keep, Token::Bool(keep)) => self.counts.push(u32::from(keep)),
            _ => return Err(BadResult::Damaged),
        }
        Ok(())
    }
}

/// Why a result does not become rows.
enum BadResult {
    /// The frame's fault.
    Damaged,
    /// The item's.
    Unkept(String),
}

impl From<Damaged> for BadResult {
    fn from(_: Damaged) -> Self {
        BadResult::Damaged
    }
}

/// A row, after its dict's opening.
#[inline]
fn row(reader: &mut Reader, added: &mut TableBuilder) -> Result<(), BadResult> {
    cells(reader, added)?;
    added.end_row();
    Ok(())
}

/// The cells of a row that is then to be ended.
#[inline]
fn cells(reader: &mut Reader, added: &mut TableBuilder) -> Result<(), BadResult> {
    let rows = added.rows();
    for at in 0.. {
        let name = match reader.key() {
            Ok(Some(name)) => name,
            Ok(None) => break,
            Err(ReadError::Damaged(_)) => return Err(BadResult::Damaged),
            Err(ReadError::Unkept(Unkept::Key)) => {
                return Err(BadResult::Unkept("a column's name must be text".into()));
            }
            Err(ReadError::Unkept(why)) => return Err(BadResult::Unkept(format!("a column's name: {why}"))),
        };
        let column = added.cell(at, name);
        if column.len() != rows {
            return Err(BadResult::Damaged);
        }
        match cell(reader, column) {
            Ok(()) => {}
            Err(ReadError::Damaged(_)) => return Err(BadResult::Damaged),
            Err(ReadError::Unkept(why)) => return Err(BadResult::Unkept(format!("column \"{name}\": {why}"))),
        }
    }
    Ok(())
}

#[inline]
fn cell(reader: &mut Reader, column: &mut ColumnBuilder) -> Result<(), ReadError> {
    match reader.token()? {
        Token::Int(v) => column.push_int(v.into()),
        Token::Float(v) => column.push_float(v),
        Token::Text(v) => column.push_text(marshal::text(v)?),
        Token::None => column.push_null(),
        Token::Bool(v) => column.push_bool(v),
        Token::Long(negative, digits) => match marshal::small_long(negative, digits) {
            Some(v) => column.push_int(v),
            None => column.push(&marshal::long_value(negative, digits)?),
        },
        other => column.push(&reader.value_of(other, 0)?),
    }
    Ok(())
}
