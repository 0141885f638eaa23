//! Writes marshal data.

use super::code;
use super::integer::{decimal_to_digits, digits_of};
use crate::data::value::{self, TimeKind, Value, tag};
use crate::data::{Column, Table};

/// Writes marshal data.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
    /// Objects written so far that can be referred to.
    refs: u32,
    /// Whether a time (or the mark of an absent cell) was written since it was last looked at.
    marked: bool,
}

impl Writer {
    /// A writer that appends to `out`.
    pub fn new(out: Vec<u8>) -> Writer {
        Writer { out, refs: 0, marked: false }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    fn raw(&mut self, code: u8, bytes: &[u8]) {
        self.head(code, bytes.len());
        self.out.extend_from_slice(bytes);
    }

    fn head(&mut self, code: u8, n: usize) {
        let n = (n as u32).to_le_bytes();
        self.out.extend_from_slice(&[code, n[0], n[1], n[2], n[3]]);
    }

    /// Opens a tuple of `n` elements, which follow.
    pub fn tuple(&mut self, n: usize) {
        self.head(code::TUPLE, n);
    }

    /// Opens a list of `n` elements, which follow.
    pub fn list(&mut self, n: usize) {
        self.head(code::LIST, n);
    }

    /// Opens a dict: keys and values follow, then [`Writer::end_dict`].
    pub fn dict(&mut self) {
        self.out.push(code::DICT);
    }

    /// Ends a dict.
    pub fn end_dict(&mut self) {
        self.out.push(code::NULL);
    }

    /// `None`.
    pub fn none(&mut self) {
        self.out.push(code::NONE);
    }

    /// A truth value.
    pub fn bool(&mut self, v: bool) {
        self.out.push(if v { code::TRUE } else { code::FALSE });
    }

    /// An integer.
    #[inline]
    pub fn int(&mut self, v: i64) {
        match i32::try_from(v) {
            Ok(v) => {
                let b = v.to_le_bytes();
                self.out.extend_from_slice(&[code::INT, b[0], b[1], b[2], b[3]]);
            }
            Err(_) => self.long(v < 0, &digits_of(v.unsigned_abs())),
        }
    }

    fn long(&mut self, negative: bool, digits: &[u16]) {
        let n = digits.len() as i32;
        self.head(code::LONG, (if negative { -n } else { n }) as u32 as usize);
        digits.iter().for_each(|d| self.out.extend_from_slice(&d.to_le_bytes()));
    }

    /// An integer in decimal; text that is none becomes `None` (cells are checked when they are made).
    pub fn big_int(&mut self, decimal: &str) {
        let (negative, digits) = match decimal.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, decimal.strip_prefix('+').unwrap_or(decimal)),
        };
        match decimal_to_digits(digits) {
            Some(digits) => self.long(negative && !digits.is_empty(), &digits),
            None => self.none(),
        }
    }

    /// A float.
    #[inline]
    pub fn float(&mut self, v: f64) {
        let b = v.to_le_bytes();
        self.out.extend_from_slice(&[code::FLOAT, b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    }

    /// Raw bytes.
    pub fn bytes(&mut self, v: &[u8]) {
        self.raw(code::BYTES, v);
    }

    /// Text.
    #[inline]
    pub fn text(&mut self, v: &str) {
        if !v.is_ascii() {
            self.raw(code::TEXT, v.as_bytes());
        } else if v.len() < 256 {
            self.out.extend_from_slice(&[code::SHORT_ASCII, v.len() as u8]);
            self.out.extend_from_slice(v.as_bytes());
        } else {
            self.raw(code::ASCII, v.as_bytes());
        }
    }

    /// Text that later keys refer to; gives the reference's bytes.
    fn shared_key(&mut self, name: &str) -> [u8; 5] {
        if name.is_ascii() && name.len() < 256 {
            self.out.extend_from_slice(&[code::SHORT_ASCII_INTERNED | code::FLAG_REF, name.len() as u8]);
            self.out.extend_from_slice(name.as_bytes());
        } else {
            self.raw(code::INTERNED | code::FLAG_REF, name.as_bytes());
        }
        let n = self.refs.to_le_bytes();
        self.refs += 1;
        [code::REF, n[0], n[1], n[2], n[3]]
    }

    /// A cell; absent ones are the caller's to leave out, and are `None` here.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Absent | Value::Null => self.none(),
            Value::Bool(v) => self.bool(*v),
            Value::Int(v) => self.int(*v),
            Value::BigInt(digits) => self.big_int(digits),
            Value::Float(v) => self.float(*v),
            Value::Text(v) => self.text(v),
            Value::Bytes(v) => self.bytes(v),
            Value::Time(kind, text) => self.time(*kind, text),
            Value::List(items) => {
                self.list(items.len());
                items.iter().for_each(|v| self.value(v));
            }
            Value::Map(entries) => self.map(entries.iter().map(|(name, v)| (name.as_str(), v))),
            Value::File { path, .. } => self.text(path),
            Value::Aside(v) => self.value(v),
        }
    }

    /// A dict of named cells.
    pub fn map<'a>(&mut self, entries: impl IntoIterator<Item = (&'a str, &'a Value)>) {
        self.dict();
        for (name, value) in entries {
            self.text(name);
            self.value(value);
        }
        self.end_dict();
    }

    fn time(&mut self, kind: TimeKind, text: &str) {
        self.marked = true;
        self.tuple(2);
        self.int(kind as i64);
        self.text(text);
    }

    /// The cell of a column at `row`; `false` (and nothing written) where it is absent.
    #[inline]
    fn cell(&mut self, column: &Column, row: usize) {
        match column {
            Column::Cells(cells) => self.canonical(cells.value(row)),
            typed if typed.array().is_null(row) => self.none(),
            Column::Int(a) => self.int(a.value(row)),
            Column::Float(a) => self.float(a.value(row)),
            Column::Bool(a) => self.bool(a.value(row)),
            Column::Text(a) => self.text(a.value(row)),
        }
    }

    fn canonical(&mut self, cell: &[u8]) {
        match cell {
            [tag::NULL] => self.none(),
            [tag::INT, rest @ ..] if rest.len() == 8 => self.int(i64::from_le_bytes(le(rest))),
            [tag::FLOAT, rest @ ..] if rest.len() == 8 => self.float(f64::from_le_bytes(le(rest))),
            _ => self.value(&value::decode(cell).unwrap_or(Value::Null)),
        }
    }

    /// The rows of a table as a list of dicts without the absent cells; gives the rows in which there are times.
    pub fn rows(&mut self, table: &Table) -> Vec<u32> {
        let mut keys: Vec<Option<[u8; 5]>> = vec![None; table.names().len()];
        let mut timed = Vec::new();
        self.list(table.rows());
        self.out.reserve(table.rows() * (2 + 14 * keys.len()));
        for row in 0..table.rows() {
            self.dict();
            for ((name, column), key) in table.names().iter().zip(table.columns()).zip(&mut keys) {
                if matches!(column, Column::Cells(_)) && column.tag(row) == tag::ABSENT {
                    continue;
                }
                match key {
                    Some(key) => self.out.extend_from_slice(key),
                    None => *key = Some(self.shared_key(name)),
                }
                self.cell(column, row);
            }
            self.end_dict();
            self.note_mark(row, &mut timed);
        }
        timed
    }

    /// The cells of a column (of `rows` rows) as a list, absent ones as `...`; gives the rows with times and the
    /// rows without a cell.
    pub fn cells(&mut self, column: Option<&Column>, rows: usize) -> Vec<u32> {
        let mut marked = Vec::new();
        self.list(rows);
        for row in 0..rows {
            match column {
                Some(column) if column.tag(row) != tag::ABSENT => self.cell(column, row),
                _ => {
                    self.marked = true;
                    self.out.push(code::ELLIPSIS);
                }
            }
            self.note_mark(row, &mut marked);
        }
        marked
    }

    fn note_mark(&mut self, row: usize, marked: &mut Vec<u32>) {
        if std::mem::take(&mut self.marked) {
            marked.push(row as u32);
        }
    }
}

fn le(bytes: &[u8]) -> [u8; 8] {
    bytes.try_into().expect("eight bytes")
}
