//! Python's `marshal` format, as far as cells need it: what frames to and from Python workers are made of.
//!
//! Chosen because Python reads and writes it in C and because it is exact: integers of any size, every float, bytes,
//! `None`. [`Writer`] emits what `marshal.loads` of Python 3.4 and later accepts (short ASCII strings and shared
//! keys included); [`Reader`] accepts what `marshal.dumps(…, 2)` gives. Times travel as tuples of (kind, text):
//! cells hold no other tuples. Damaged bytes give an error, never a panic, a deep recursion or a large allocation.

use crate::data::value::{self, MAX_DEPTH, TimeKind, Value, tag};
use crate::data::{Column, Table};

/// The bytes are no marshal data of the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged marshal data")]
pub struct Damaged;

/// Why a value that is well-formed marshal data cannot be kept as a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    /// Surrogates that stand alone: no Unicode text.
    #[error("text with lone surrogates cannot be kept")]
    Surrogates,
    /// A mapping with a key that is not text.
    #[error("only text can be a key of a dict")]
    Key,
    /// Nesting beyond [`MAX_DEPTH`].
    #[error("nested more than {MAX_DEPTH} deep")]
    Depth,
    /// An integer so large that to write it in decimal would take seconds.
    #[error("an integer of more than {MAX_INT_BITS} bits cannot be kept")]
    Integer,
    /// A type that is not a cell's.
    #[error("a value of this type cannot be kept")]
    Type,
}

/// What can go wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The frame is damaged.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// Only this value is at fault.
    #[error(transparent)]
    Unkept(#[from] Unkept),
}

/// Integers beyond this many bits are refused.
pub const MAX_INT_BITS: usize = 1 << 20;

/// Python's own limit of nesting in marshal data.
const MAX_STACK: usize = 2000;

/// The bits of a digit of marshal's large integers.
const DIGIT_BITS: usize = 15;
const DIGIT_MASK: u32 = (1 << DIGIT_BITS) - 1;

/// Type codes.
pub mod code {
    pub const NULL: u8 = b'0';
    pub const NONE: u8 = b'N';
    pub const FALSE: u8 = b'F';
    pub const TRUE: u8 = b'T';
    pub const ELLIPSIS: u8 = b'.';
    pub const INT: u8 = b'i';
    pub const LONG: u8 = b'l';
    pub const FLOAT: u8 = b'g';
    pub const BYTES: u8 = b's';
    pub const TEXT: u8 = b'u';
    pub const INTERNED: u8 = b't';
    pub const ASCII: u8 = b'a';
    pub const SHORT_ASCII: u8 = b'z';
    pub const SHORT_ASCII_INTERNED: u8 = b'Z';
    pub const TUPLE: u8 = b'(';
    pub const LIST: u8 = b'[';
    pub const DICT: u8 = b'{';
    pub const REF: u8 = b'r';
    /// Added to a type's code: the object can be referred to.
    pub const FLAG_REF: u8 = 0x80;
}

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

fn digits_of(mut v: u64) -> Vec<u16> {
    let mut digits = Vec::with_capacity(5);
    while v > 0 {
        digits.push((v as u32 & DIGIT_MASK) as u16);
        v >>= DIGIT_BITS;
    }
    digits
}

/// Decimal digits (no sign) as marshal's digits, least significant first.
fn decimal_to_digits(decimal: &str) -> Option<Vec<u16>> {
    if decimal.is_empty() || !decimal.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut limbs: Vec<u32> = Vec::new();
    let head = decimal.len() % 9;
    let (first, rest) = decimal.split_at(head);
    let groups = (0..rest.len()).step_by(9).map(|at| &rest[at..at + 9]);
    for group in std::iter::once(first).filter(|g| !g.is_empty()).chain(groups) {
        let mut carry = group.parse::<u64>().ok()?;
        for limb in &mut limbs {
            carry += u64::from(*limb) * 1_000_000_000;
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    }
    let mut digits = Vec::with_capacity(limbs.len() * 32 / DIGIT_BITS + 1);
    regroup(limbs.iter().map(|&l| (l, 32)), DIGIT_BITS, |digit| digits.push(digit as u16));
    while digits.last() == Some(&0) {
        digits.pop();
    }
    Some(digits)
}

/// Marshal's digits as an integer's decimal text.
fn digits_to_decimal(negative: bool, digits: &[u8]) -> String {
    let mut limbs = Vec::with_capacity(digits.len() * DIGIT_BITS / 64 + 1);
    let digits = digits.as_chunks::<2>().0.iter().map(|d| (u32::from(u16::from_le_bytes(*d)), DIGIT_BITS));
    regroup(digits, 32, |limb| limbs.push(limb));
    let mut groups = Vec::new();
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
    while !limbs.is_empty() {
        let mut rest = 0u64;
        for limb in limbs.iter_mut().rev() {
            let part = (rest << 32) | u64::from(*limb);
            *limb = (part / 1_000_000_000) as u32;
            rest = part % 1_000_000_000;
        }
        groups.push(rest);
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
    }
    let mut text = String::from(if negative { "-" } else { "" });
    let mut groups = groups.iter().rev();
    text += &groups.next().map_or_else(|| "0".to_string(), u64::to_string);
    groups.for_each(|g| text += &format!("{g:09}"));
    text
}

/// Cuts a little-endian stream of (bits, how many) anew into pieces of `width` bits.
fn regroup(pieces: impl Iterator<Item = (u32, usize)>, width: usize, mut put: impl FnMut(u32)) {
    let (mut held, mut bits) = (0u64, 0);
    for (piece, n) in pieces {
        held |= u64::from(piece) << bits;
        bits += n;
        while bits >= width {
            put((held & ((1u64 << width) - 1)) as u32);
            held >>= width;
            bits -= width;
        }
    }
    if held > 0 {
        put(held as u32);
    }
}

/// A scalar or the head of a container, as it stands in the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// End of a dict.
    End,
    None,
    Bool(bool),
    Int(i32),
    /// Sign and digits (two bytes each, checked) of an integer.
    Long(bool, &'a [u8]),
    Float(f64),
    /// UTF-8, but surrogates may stand alone.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    Tuple(usize),
    List(usize),
    Dict,
}

/// Reads marshal data of version 2.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    fn take(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(Damaged)?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Damaged)?;
        self.rest = tail;
        Ok(*head)
    }

    #[inline]
    fn size(&mut self) -> Result<usize, Damaged> {
        let n = i32::from_le_bytes(self.array()?);
        usize::try_from(n).map_err(|_| Damaged)
    }

    /// The size of a container, whose elements take a byte each at least.
    fn count(&mut self) -> Result<usize, Damaged> {
        let n = self.size()?;
        if n <= self.rest.len() { Ok(n) } else { Err(Damaged) }
    }

    /// The next token.
    #[inline]
    pub fn token(&mut self) -> Result<Token<'a>, Damaged> {
        let [code] = self.array()?;
        Ok(match code {
            code::NULL => Token::End,
            code::NONE => Token::None,
            code::FALSE => Token::Bool(false),
            code::TRUE => Token::Bool(true),
            code::INT => Token::Int(i32::from_le_bytes(self.array()?)),
            code::LONG => self.long()?,
            code::FLOAT => Token::Float(f64::from_le_bytes(self.array()?)),
            code::BYTES => {
                let n = self.size()?;
                Token::Bytes(self.take(n)?)
            }
            code::TEXT | code::INTERNED | code::ASCII => {
                let n = self.size()?;
                Token::Text(self.take(n)?)
            }
            code::SHORT_ASCII | code::SHORT_ASCII_INTERNED => {
                let [n] = self.array()?;
                Token::Text(self.take(usize::from(n))?)
            }
            code::TUPLE => Token::Tuple(self.count()?),
            code::LIST => Token::List(self.count()?),
            code::DICT => Token::Dict,
            _ => return Err(Damaged),
        })
    }

    fn long(&mut self) -> Result<Token<'a>, Damaged> {
        let n = i32::from_le_bytes(self.array()?);
        let digits = self.take(n.unsigned_abs() as usize * 2)?;
        let fits = digits.as_chunks::<2>().0.iter().all(|d| u32::from(u16::from_le_bytes(*d)) <= DIGIT_MASK);
        if fits { Ok(Token::Long(n < 0, digits)) } else { Err(Damaged) }
    }

    /// Passes over one value, be it one that cannot be kept.
    pub fn skip(&mut self) -> Result<(), Damaged> {
        // What is open: `None` is a dict, else the number of elements to come.
        let mut open: Vec<Option<usize>> = Vec::new();
        loop {
            match self.token()? {
                Token::Dict | Token::Tuple(1..) | Token::List(1..) if open.len() > MAX_STACK => return Err(Damaged),
                Token::Dict => {
                    open.push(None);
                    continue;
                }
                Token::Tuple(n) | Token::List(n) if n > 0 => {
                    open.push(Some(n));
                    continue;
                }
                Token::End if open.pop() != Some(None) => return Err(Damaged),
                _ => {}
            }
            if count_off(&mut open) {
                return Ok(());
            }
        }
    }

    /// One cell.
    pub fn value(&mut self) -> Result<Value, ReadError> {
        let token = self.token()?;
        self.value_of(token, 0)
    }

    /// The cell that `token` begins, `depth` containers deep. After an [`Unkept`] the reader stands somewhere in it.
    pub fn value_of(&mut self, token: Token<'a>, depth: usize) -> Result<Value, ReadError> {
        if depth > MAX_DEPTH {
            return Err(Unkept::Depth.into());
        }
        Ok(match token {
            Token::End => return Err(Damaged.into()),
            Token::None => Value::Null,
            Token::Bool(v) => Value::Bool(v),
            Token::Int(v) => Value::Int(v.into()),
            Token::Long(negative, digits) => long_value(negative, digits)?,
            Token::Float(v) => Value::Float(v),
            Token::Text(v) => Value::Text(text(v)?.to_string()),
            Token::Bytes(v) => Value::Bytes(v.to_vec()),
            Token::Tuple(2) => self.time()?,
            Token::Tuple(_) => return Err(Unkept::Type.into()),
            Token::List(n) => {
                let mut items = Vec::new();
                for _ in 0..n {
                    let token = self.token()?;
                    items.push(self.value_of(token, depth + 1)?);
                }
                Value::List(items)
            }
            Token::Dict => {
                let mut entries = Vec::new();
                while let Some(name) = self.key()? {
                    let token = self.token()?;
                    entries.push((name.to_string(), self.value_of(token, depth + 1)?));
                }
                Value::Map(entries)
            }
        })
    }

    /// A dict's next key; `None` at its end.
    #[inline]
    pub fn key(&mut self) -> Result<Option<&'a str>, ReadError> {
        match self.token()? {
            Token::End => Ok(None),
            Token::Text(name) => Ok(Some(text(name)?)),
            _ => Err(Unkept::Key.into()),
        }
    }

    fn time(&mut self) -> Result<Value, ReadError> {
        let (kind, written) = (self.token()?, self.token()?);
        let kind = match kind {
            Token::Int(0) => TimeKind::DateTime,
            Token::Int(1) => TimeKind::Date,
            Token::Int(2) => TimeKind::Time,
            Token::Int(3) => TimeKind::Duration,
            _ => return Err(Unkept::Type.into()),
        };
        match written {
            Token::Text(written) => Ok(Value::Time(kind, text(written)?.to_string())),
            _ => Err(Unkept::Type.into()),
        }
    }
}

/// A value has ended: counts it in what is open around it. Whether nothing stays open.
fn count_off(open: &mut Vec<Option<usize>>) -> bool {
    while let Some(Some(n)) = open.last_mut() {
        *n -= 1;
        if *n > 0 {
            return false;
        }
        open.pop();
    }
    open.is_empty()
}

/// Text, if it is Unicode.
#[inline]
pub fn text(bytes: &[u8]) -> Result<&str, Unkept> {
    std::str::from_utf8(bytes).map_err(|_| Unkept::Surrogates)
}

/// An integer from marshal's digits.
pub fn long_value(negative: bool, digits: &[u8]) -> Result<Value, Unkept> {
    if digits.len() / 2 * DIGIT_BITS > MAX_INT_BITS {
        return Err(Unkept::Integer);
    }
    match small_long(negative, digits) {
        Some(v) => Ok(Value::Int(v)),
        None => Ok(Value::integer(&digits_to_decimal(negative, digits))),
    }
}

/// The integer, if it has few digits and 64 bits.
#[inline]
pub fn small_long(negative: bool, digits: &[u8]) -> Option<i64> {
    if digits.len() > 2 * 5 {
        return None;
    }
    let digits = digits.as_chunks::<2>().0.iter().rev();
    let v = digits.fold(0i128, |v, d| (v << DIGIT_BITS) | i128::from(u16::from_le_bytes(*d)));
    i64::try_from(if negative { -v } else { v }).ok()
}

#[cfg(test)]
mod tests;
