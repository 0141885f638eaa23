//! One cell of a row, and its canonical encoding.
//!
//! A [`Value`] is what a Python function sees and returns, exactly: integer 1, float 1.0 and `true` are three
//! values, every NaN is one. [`encode`] writes the canonical, self-delimiting form over which rows are hashed and
//! in which mixed columns are stored; [`decode`] reads it back. The tags are part of the stored format.

use std::fmt;

/// What kind of time a [`Value::Time`] holds; its text is Python's `isoformat()` (durations: seconds, with up to
/// six decimals).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TimeKind {
    /// A date with a time of day, with or without an offset.
    DateTime = 0,
    /// A calendar date.
    Date = 1,
    /// A time of day.
    Time = 2,
    /// A span of time, in seconds.
    Duration = 3,
}

/// A cell.
#[derive(Debug, Clone)]
pub enum Value {
    /// No such column in this row; in results the same as null.
    Absent,
    /// Python's `None`.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits, signed.
    Int(i64),
    /// An integer beyond 64 bits, in decimal.
    BigInt(String),
    /// A float, non-finite ones included.
    Float(f64),
    /// Unicode text.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// A date, time or duration.
    Time(TimeKind, String),
    /// A list (or tuple).
    List(Vec<Value>),
    /// A mapping with text keys, in insertion order.
    Map(Vec<(String, Value)>),
    /// A path whose meaning is the file's content: equal paths with other contents are other values. Of a file that
    /// an item made, the bytes that it must have.
    File { path: String, digest: [u8; 32], size: Option<u64> },
    /// A value that never counts: shown, but no part of what a result depends on (a file's size, its age).
    Aside(Box<Value>),
}

impl PartialEq for Value {
    /// Canonical equality: as the encodings, so NaN equals NaN and 1 differs from 1.0.
    fn eq(&self, other: &Self) -> bool {
        self.encoded() == other.encoded()
    }
}

/// A cell's bytes cannot be read: the store or a frame is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged cell")]
pub struct DamagedCell;

pub(crate) mod tag {
    pub const ABSENT: u8 = 0;
    pub const NULL: u8 = 1;
    pub const FALSE: u8 = 2;
    pub const TRUE: u8 = 3;
    pub const INT: u8 = 4;
    pub const BIG_INT: u8 = 5;
    pub const FLOAT: u8 = 6;
    pub const TEXT: u8 = 7;
    pub const BYTES: u8 = 8;
    pub const TIME: u8 = 9;
    pub const LIST: u8 = 10;
    pub const MAP: u8 = 11;
    pub const FILE: u8 = 12;
    pub const ASIDE: u8 = 13;
    /// A file with its size.
    pub const SIZED_FILE: u8 = 14;
}

/// Nesting beyond this is refused, so that no cell can exhaust the stack.
pub const MAX_DEPTH: usize = 200;

pub(crate) fn put_int(out: &mut Vec<u8>, v: i64) {
    out.push(tag::INT);
    out.extend_from_slice(&v.to_le_bytes());
}

pub(crate) fn put_float(out: &mut Vec<u8>, v: f64) {
    out.push(tag::FLOAT);
    let bits = if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
    out.extend_from_slice(&bits.to_le_bytes());
}

pub(crate) fn put_text(out: &mut Vec<u8>, v: &str) {
    out.push(tag::TEXT);
    put_raw(out, v.as_bytes());
}

pub(crate) fn put_bool(out: &mut Vec<u8>, v: bool) {
    out.push(if v { tag::TRUE } else { tag::FALSE });
}

fn put_raw(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends the canonical encoding of `value`.
pub fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Absent => out.push(tag::ABSENT),
        Value::Null => out.push(tag::NULL),
        Value::Bool(v) => put_bool(out, *v),
        Value::Int(v) => put_int(out, *v),
        Value::BigInt(digits) => {
            out.push(tag::BIG_INT);
            put_raw(out, digits.as_bytes());
        }
        Value::Float(v) => put_float(out, *v),
        Value::Text(v) => put_text(out, v),
        Value::Bytes(v) => {
            out.push(tag::BYTES);
            put_raw(out, v);
        }
        Value::Time(kind, text) => {
            out.extend_from_slice(&[tag::TIME, *kind as u8]);
            put_raw(out, text.as_bytes());
        }
        Value::List(items) => {
            out.push(tag::LIST);
            out.extend_from_slice(&(items.len() as u32).to_le_bytes());
            items.iter().for_each(|v| encode(v, out));
        }
        Value::Map(entries) => {
            out.push(tag::MAP);
            out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
            for (name, v) in entries {
                put_raw(out, name.as_bytes());
                encode(v, out);
            }
        }
        Value::File { path, digest, size } => {
            out.push(if size.is_some() { tag::SIZED_FILE } else { tag::FILE });
            put_raw(out, path.as_bytes());
            out.extend_from_slice(digest);
            size.iter().for_each(|size| out.extend_from_slice(&size.to_le_bytes()));
        }
        Value::Aside(v) => {
            out.push(tag::ASIDE);
            encode(v, out);
        }
    }
}

/// Reads one cell that fills `bytes` exactly.
pub fn decode(bytes: &[u8]) -> Result<Value, DamagedCell> {
    let mut rest = bytes;
    let value = take_value(&mut rest, 0)?;
    if rest.is_empty() { Ok(value) } else { Err(DamagedCell) }
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], DamagedCell> {
    let (head, tail) = rest.split_at_checked(n).ok_or(DamagedCell)?;
    *rest = tail;
    Ok(head)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DamagedCell> {
    take(rest, N)?.try_into().map_err(|_| DamagedCell)
}

fn take_raw<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DamagedCell> {
    let n = u32::from_le_bytes(take_array(rest)?) as usize;
    take(rest, n)
}

fn take_text(rest: &mut &[u8]) -> Result<String, DamagedCell> {
    String::from_utf8(take_raw(rest)?.to_vec()).map_err(|_| DamagedCell)
}

fn take_value(rest: &mut &[u8], depth: usize) -> Result<Value, DamagedCell> {
    if depth > MAX_DEPTH {
        return Err(DamagedCell);
    }
    Ok(match take(rest, 1)?[0] {
        tag::ABSENT => Value::Absent,
        tag::NULL => Value::Null,
        tag::FALSE => Value::Bool(false),
        tag::TRUE => Value::Bool(true),
        tag::INT => Value::Int(i64::from_le_bytes(take_array(rest)?)),
        tag::BIG_INT => Value::BigInt(take_text(rest)?),
        tag::FLOAT => Value::Float(f64::from_le_bytes(take_array(rest)?)),
        tag::TEXT => Value::Text(take_text(rest)?),
        tag::BYTES => Value::Bytes(take_raw(rest)?.to_vec()),
        tag::TIME => {
            let kind = match take(rest, 1)?[0] {
                0 => TimeKind::DateTime,
                1 => TimeKind::Date,
                2 => TimeKind::Time,
                3 => TimeKind::Duration,
                _ => return Err(DamagedCell),
            };
            Value::Time(kind, take_text(rest)?)
        }
        tag::LIST => {
            let n = u32::from_le_bytes(take_array(rest)?);
            let mut items = Vec::new();
            for _ in 0..n {
                items.push(take_value(rest, depth + 1)?);
            }
            Value::List(items)
        }
        tag::MAP => {
            let n = u32::from_le_bytes(take_array(rest)?);
            let mut entries = Vec::new();
            for _ in 0..n {
                entries.push((take_text(rest)?, take_value(rest, depth + 1)?));
            }
            Value::Map(entries)
        }
        tag::FILE => Value::File { path: take_text(rest)?, digest: take_array(rest)?, size: None },
        tag::SIZED_FILE => {
            let (path, digest) = (take_text(rest)?, take_array(rest)?);
            Value::File { path, digest, size: Some(u64::from_le_bytes(take_array(rest)?)) }
        }
        tag::ASIDE => Value::Aside(Box::new(take_value(rest, depth + 1)?)),
        _ => return Err(DamagedCell),
    })
}

impl Value {
    /// The canonical encoding, alone.
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode(self, &mut out);
        out
    }

    /// The value without what only matters to identity: a file's path, the value set aside.
    pub fn plain(self) -> Value {
        match self {
            Value::File { path, .. } => Value::Text(path),
            Value::Aside(v) => v.plain(),
            other => other,
        }
    }

    /// An integer given in decimal digits (with a sign): small ones as [`Value::Int`].
    pub fn integer(digits: &str) -> Value {
        match digits.parse::<i64>() {
            Ok(v) => Value::Int(v),
            Err(_) => Value::BigInt(digits.to_string()),
        }
    }

    /// The name of the value's type, as Python calls it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Absent => "absent",
            Value::Null => "None",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::BigInt(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) | Value::File { .. } => "str",
            Value::Bytes(_) => "bytes",
            Value::Time(TimeKind::DateTime, _) => "datetime",
            Value::Time(TimeKind::Date, _) => "date",
            Value::Time(TimeKind::Time, _) => "time",
            Value::Time(TimeKind::Duration, _) => "timedelta",
            Value::List(_) => "list",
            Value::Map(_) => "dict",
            Value::Aside(v) => v.type_name(),
        }
    }

    /// As JSON for people and machines: bytes as base-16 text, non-finite floats as text, times as text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Value::Absent | Value::Null => Json::Null,
            Value::Bool(v) => Json::Bool(*v),
            Value::Int(v) => Json::from(*v),
            Value::BigInt(digits) => serde_json::from_str(digits).unwrap_or_else(|_| Json::String(digits.clone())),
            Value::Float(v) => {
                serde_json::Number::from_f64(*v).map_or_else(|| Json::String(float_text(*v)), Json::Number)
            }
            Value::Text(v) => Json::String(v.clone()),
            Value::Bytes(v) => Json::String(v.iter().map(|b| format!("{b:02x}")).collect()),
            Value::Time(_, text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Value::to_json).collect()),
            Value::Map(entries) => Json::Object(entries.iter().map(|(k, v)| (k.clone(), v.to_json())).collect()),
            Value::File { path, .. } => Json::String(path.clone()),
            Value::Aside(v) => v.to_json(),
        }
    }

    /// From JSON; numbers keep their exact form (an integer of any size stays one).
    pub fn from_json(json: serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::Null,
            Json::Bool(v) => Value::Bool(v),
            Json::Number(n) => {
                let text = n.to_string();
                if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
                    Value::integer(if text == "-0" { "0" } else { &text })
                } else {
                    Value::Float(text.parse().unwrap_or(f64::NAN))
                }
            }
            Json::String(v) => Value::Text(v),
            Json::Array(items) => Value::List(items.into_iter().map(Value::from_json).collect()),
            Json::Object(entries) => Value::Map(entries.into_iter().map(|(k, v)| (k, Value::from_json(v))).collect()),
        }
    }
}

/// A float as text that reads back as the same float: `1.0`, `1e300`, `nan`, `inf`, `-inf`.
pub fn float_text(v: f64) -> String {
    if v.is_nan() {
        "nan".into()
    } else if v.is_infinite() {
        if v > 0.0 { "inf".into() } else { "-inf".into() }
    } else {
        format!("{v:?}")
    }
}

impl fmt::Display for Value {
    /// As a person reads it in a table or a CSV cell: text bare, null empty, containers as JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Absent | Value::Null => Ok(()),
            Value::Bool(v) => write!(f, "{v}"),
            Value::Int(v) => write!(f, "{v}"),
            Value::BigInt(digits) => f.write_str(digits),
            Value::Float(v) => f.write_str(&float_text(*v)),
            Value::Text(v) => f.write_str(v),
            Value::File { path, .. } => f.write_str(path),
            Value::Time(_, text) => f.write_str(text),
            Value::Aside(v) => v.fmt(f),
            other => match other.to_json() {
                serde_json::Value::String(text) => f.write_str(&text),
                json => write!(f, "{json}"),
            },
        }
    }
}

/// Random values for property tests.
#[cfg(test)]
pub(crate) mod strategy {
    use proptest::prelude::*;

    use super::{TimeKind, Value};

    /// Any value, nested ones included; every one is in canonical form.
    pub fn any_value() -> impl Strategy<Value = Value> {
        let scalar =
            prop_oneof![
                Just(Value::Absent),
                Just(Value::Null),
                any::<bool>().prop_map(Value::Bool),
                any::<i64>().prop_map(Value::Int),
                "-?[1-9][0-9]{20,40}".prop_map(Value::BigInt),
                prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), Just(-0.0)].prop_map(Value::Float),
                ".{0,20}".prop_map(Value::Text),
                prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
                (1u16..9999, 1u8..13, 1u8..29)
                    .prop_map(|(y, m, d)| Value::Time(TimeKind::Date, format!("{y:04}-{m:02}-{d:02}"))),
                ("[a-z/]{1,12}", any::<[u8; 32]>(), any::<Option<u64>>())
                    .prop_map(|(path, digest, size)| Value::File { path, digest, size }),
            ];
        scalar.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::vec(("[a-z]{0,3}", inner.clone()), 0..4).prop_map(Value::Map),
                inner.prop_map(|v| Value::Aside(Box::new(v))),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::strategy::any_value;
    use super::*;

    proptest! {
        #[test]
        fn decodes_what_it_encoded(value in any_value()) {
            prop_assert_eq!(decode(&value.encoded()).expect("whole"), value);
        }

        #[test]
        fn damage_never_panics(value in any_value(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = value.encoded();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(&bytes);
            prop_assert!(decode(&value.encoded()[..at]).is_err());
        }
    }

    #[test]
    fn one_is_three_values() {
        assert_ne!(Value::Int(1), Value::Float(1.0));
        assert_ne!(Value::Int(1), Value::Bool(true));
        assert_eq!(Value::Float(f64::NAN), Value::Float(-f64::NAN));
        assert_ne!(Value::Float(0.0), Value::Float(-0.0));
    }

    #[test]
    fn json_numbers_stay_exact() {
        let read = |text: &str| Value::from_json(serde_json::from_str(text).expect("valid"));
        assert_eq!(read("123456789012345678901234567890"), Value::BigInt("123456789012345678901234567890".into()));
        assert_eq!(read("-9223372036854775808"), Value::Int(i64::MIN));
        assert_eq!(read("1.0"), Value::Float(1.0));
        assert_eq!(read("5e-324"), Value::Float(5e-324));
    }
}
