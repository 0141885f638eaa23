//! Our values as minijinja's and back, how they are printed, and keys that are safe in file names.

use minijinja::value::{Value as Jinja, ValueKind};
use minijinja::{Error, ErrorKind};

use super::RenderError;
use crate::data::value::{MAX_DEPTH, TimeKind};
use crate::data::{Hash, Value};

/// A value as an expression computes with it: dates, times and file paths are text, a duration is its seconds.
/// Absent is undefined.
pub(super) fn to_jinja(value: &Value) -> Jinja {
    match value {
        Value::Absent => Jinja::UNDEFINED,
        Value::Null => Jinja::from(()),
        Value::Bool(v) => Jinja::from(*v),
        Value::Int(v) => Jinja::from(*v),
        Value::BigInt(digits) => digits.parse::<i128>().map_or_else(|_| too_big(digits), Jinja::from),
        Value::Float(v) => Jinja::from(*v),
        Value::Text(v) => Jinja::from(v.as_str()),
        Value::Bytes(v) => Jinja::from_bytes(v.clone()),
        Value::Time(TimeKind::Duration, text) => {
            text.parse::<f64>().map_or_else(|_| Jinja::from(text.as_str()), Jinja::from)
        }
        Value::Time(_, text) => Jinja::from(text.as_str()),
        Value::List(items) => items.iter().map(to_jinja).collect::<Vec<_>>().into(),
        Value::Map(entries) => Jinja::from_pairs(entries.iter().map(|(k, v)| (k.as_str(), to_jinja(v)))),
        Value::File { path, .. } => Jinja::from(path.as_str()),
        Value::Aside(v) => to_jinja(v),
    }
}

/// A value that is an error as soon as it is used.
fn too_big(digits: &str) -> Jinja {
    let message = format!("{digits} is too large to compute with (more than 128 bits)");
    Jinja::from(Error::new(ErrorKind::InvalidOperation, message))
}

/// The value of an expression.
pub(super) fn from_jinja(value: &Jinja) -> Result<Value, RenderError> {
    at_depth(value, 0)
}

fn at_depth(value: &Jinja, depth: usize) -> Result<Value, RenderError> {
    let fail = |message: &str| Err(RenderError(message.to_string()));
    if depth > MAX_DEPTH {
        return fail("nested too deeply");
    }
    match value.kind() {
        ValueKind::Undefined => fail("the value is not defined"),
        ValueKind::None => Ok(Value::Null),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number if value.is_integer() => {
            Ok(value.as_i64().map_or_else(|| Value::integer(&value.to_string()), Value::Int))
        }
        ValueKind::Number => f64::try_from(value.clone()).map(Value::Float).map_err(|e| describe(&e)),
        ValueKind::String => Ok(Value::Text(value.as_str().unwrap_or_default().to_string())),
        ValueKind::Bytes => Ok(Value::Bytes(value.as_bytes().unwrap_or_default().to_vec())),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|e| describe(&e))?;
            items.map(|v| at_depth(&v, depth + 1)).collect::<Result<_, _>>().map(Value::List)
        }
        ValueKind::Map => {
            let keys = value.try_iter().map_err(|e| describe(&e))?;
            let entry = |key: Jinja| {
                let name =
                    key.as_str().ok_or_else(|| RenderError(format!("the key {key} of a mapping is not text")))?;
                let inner = value.get_item(&key).map_err(|e| describe(&e))?;
                Ok((name.to_string(), at_depth(&inner, depth + 1)?))
            };
            keys.map(entry).collect::<Result<_, _>>().map(Value::Map)
        }
        ValueKind::Invalid => match value.clone().try_iter() {
            Err(error) => Err(describe(&error)),
            Ok(_) => fail("not a value"),
        },
        _ => fail("the result is a function, not a value"),
    }
}

/// minijinja's error in one line.
pub(super) fn describe(error: &Error) -> RenderError {
    RenderError(error.detail().map_or_else(|| error.kind().to_string(), str::to_string))
}

/// A value as printed into text: null is nothing, containers are JSON, bytes must be UTF-8.
pub(super) fn print(value: &Value) -> Result<String, RenderError> {
    match value {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_string()),
            Err(_) => Err(RenderError("bytes that are not UTF-8 cannot be printed".into())),
        },
        other => Ok(other.to_string()),
    }
}

/// Whether a condition holds: everything but null, false, zero and what is empty.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Absent | Value::Null => false,
        Value::Bool(v) => *v,
        Value::Int(v) => *v != 0,
        Value::Float(v) => *v != 0.0,
        Value::Text(v) => !v.is_empty(),
        Value::Bytes(v) => !v.is_empty(),
        Value::List(v) => !v.is_empty(),
        Value::Map(v) => !v.is_empty(),
        Value::Aside(v) => truth(v),
        Value::BigInt(_) | Value::Time(..) | Value::File { .. } => true,
    }
}

/// Bytes that a key may take in a file name, so that there is room for an extension.
const MAX_KEY: usize = 200;

/// A key as a part of a file name: one component, never hidden, never `..`. Different keys give different names;
/// `%` escapes what cannot stand in a name.
pub fn file_safe(key: &str) -> String {
    let mut safe = String::with_capacity(key.len());
    for (at, c) in key.char_indices() {
        if matches!(c, '/' | '\\' | '%') || c.is_control() || (at == 0 && matches!(c, '.' | '-' | '~')) {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|b| safe.push_str(&format!("%{b:02X}")));
        } else {
            safe.push(c);
        }
    }
    if safe.is_empty() {
        return "%".into();
    }
    if safe.len() > MAX_KEY {
        let cut = (0..=MAX_KEY - 34).rev().find(|&i| safe.is_char_boundary(i)).unwrap_or(0);
        safe.truncate(cut);
        safe.push_str(&format!("%-{}", Hash::of(key.as_bytes())));
    }
    safe
}
