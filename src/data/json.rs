//! JSON text as values, exactly: integers of any size, floats to the last bit, keys in their order.
//!
//! Beside the standard, the tokens that Python writes are read: `NaN`, `Infinity`, `-Infinity`. Where a key stands
//! twice, the last value wins. Half a surrogate pair is a mistake, and so is a number too large for a float.

use std::borrow::Cow;
use std::collections::HashMap;

use super::value::{MAX_DEPTH, Value};

/// Text that is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at column {}", at + 1)]
pub struct JsonError {
    /// What is wrong.
    pub what: &'static str,
    /// The byte at which it is.
    pub at: usize,
}

/// Reads one value that fills `text`, whitespace aside.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    let mut parser = Parser { text, at: 0 };
    parser.skip_space();
    let value = parser.value(0)?;
    parser.end()?;
    Ok(value)
}

/// Reads one object that fills `text`, whitespace aside; each key once, where it first stood.
pub fn parse_object(text: &str) -> Result<Vec<(Cow<'_, str>, Value)>, JsonError> {
    let mut parser = Parser { text, at: 0 };
    parser.skip_space();
    if parser.peek() != Some(b'{') {
        return Err(parser.wrong("an object is expected"));
    }
    let entries = parser.object(0)?;
    parser.end()?;
    Ok(entries)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn wrong(&self, what: &'static str) -> JsonError {
        JsonError { what, at: self.at }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.wrong("something follows the end")) }
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(token.as_bytes());
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        if depth >= MAX_DEPTH {
            return Err(self.wrong("nested too deeply"));
        }
        let value = match self.peek() {
            Some(b'"') => Value::Text(self.string()?.into_owned()),
            Some(b'0'..=b'9' | b'-') => return self.number(),
            Some(b'{') => {
                let entries = self.object(depth)?;
                Value::Map(entries.into_iter().map(|(k, v)| (k.into_owned(), v)).collect())
            }
            Some(b'[') => Value::List(self.array(depth)?),
            _ if self.eat("null") => Value::Null,
            _ if self.eat("true") => Value::Bool(true),
            _ if self.eat("false") => Value::Bool(false),
            _ if self.eat("NaN") => Value::Float(f64::NAN),
            _ if self.eat("Infinity") => Value::Float(f64::INFINITY),
            Some(_) => return Err(self.wrong("a value is expected")),
            None => return Err(self.wrong("the text ends too early")),
        };
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Value>, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.eat("]") {
            return Ok(items);
        }
        loop {
            self.skip_space();
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.eat("]") {
                return Ok(items);
            }
            if !self.eat(",") {
                return Err(self.wrong("a comma or ] is expected"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Vec<(Cow<'a, str>, Value)>, JsonError> {
        self.at += 1;
        let mut entries = Entries::default();
        self.skip_space();
        if self.eat("}") {
            return Ok(entries.list);
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.wrong("a key in double quotes is expected"));
            }
            let key = self.string()?;
            self.skip_space();
            if !self.eat(":") {
                return Err(self.wrong("a colon is expected"));
            }
            self.skip_space();
            let value = self.value(depth + 1)?;
            entries.put(key, value);
            self.skip_space();
            if self.eat("}") {
                return Ok(entries.list);
            }
            if !self.eat(",") {
                return Err(self.wrong("a comma or } is expected"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        if self.eat("-Infinity") {
            return Ok(Value::Float(f64::NEG_INFINITY));
        }
        self.eat("-");
        match self.digits() {
            0 => return Err(self.wrong("a digit is expected")),
            n if n > 1 && self.text.as_bytes()[self.at - n] == b'0' => {
                return Err(JsonError { what: "a number with a leading zero", at: start });
            }
            _ => {}
        }
        let mut is_float = false;
        if self.eat(".") {
            is_float = true;
            if self.digits() == 0 {
                return Err(self.wrong("a digit is expected"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            is_float = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.wrong("a digit is expected"));
            }
        }
        let text = &self.text[start..self.at];
        if !is_float {
            return Ok(Value::integer(text));
        }
        match text.parse::<f64>() {
            Ok(v) if v.is_finite() => Ok(Value::Float(v)),
            _ => Err(JsonError { what: "a number too large for a float", at: start }),
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    /// A string, from its opening quote on; borrowed where it has no escapes.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let mut built: Option<String> = None;
        loop {
            let start = self.at;
            let rest = &self.text.as_bytes()[start..];
            let plain = rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20);
            self.at += plain.ok_or(JsonError { what: "a string without its end", at: start })?;
            let piece = &self.text[start..self.at];
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match built {
                        None => Cow::Borrowed(piece),
                        Some(text) => Cow::Owned(text + piece),
                    });
                }
                Some(b'\\') => {
                    let text = built.get_or_insert_default();
                    text.push_str(piece);
                    text.push(self.escape()?);
                }
                _ => return Err(self.wrong("a control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.at += 1;
        let c = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => c as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode(start);
            }
            _ => return Err(JsonError { what: "an unknown escape", at: start }),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode(&mut self, start: usize) -> Result<char, JsonError> {
        let half = JsonError { what: "half a surrogate pair", at: start };
        let first = self.hex()?;
        let code = match first {
            0xd800..0xdc00 => {
                if !self.eat("\\u") {
                    return Err(half);
                }
                match self.hex()? {
                    second @ 0xdc00..0xe000 => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                    _ => return Err(half),
                }
            }
            code => code,
        };
        char::from_u32(code).ok_or(half)
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
        let code = code.ok_or_else(|| self.wrong("four hexadecimal digits are expected"))?;
        self.at += 4;
        Ok(code)
    }
}

/// Appends a value as JSON. Non-finite floats are the tokens that Python writes; bytes are base-16 text, times text.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Absent | Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
        Value::Float(v) if v.is_nan() => out.extend_from_slice(b"NaN"),
        Value::Float(v) if v.is_infinite() => out.extend_from_slice(if *v > 0.0 { b"Infinity" } else { b"-Infinity" }),
        Value::Int(_) | Value::BigInt(_) | Value::Float(_) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Text(text) | Value::Time(_, text) | Value::File { path: text, .. } => write_text(text, out),
        Value::Bytes(_) => write_text(&value.to_string(), out),
        Value::Aside(inner) => write(inner, out),
        Value::List(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                out.extend_from_slice(if i > 0 { b"," } else { b"" });
                write(item, out);
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            out.push(b'{');
            for (i, (key, item)) in entries.iter().enumerate() {
                out.extend_from_slice(if i > 0 { b"," } else { b"" });
                write_text(key, out);
                out.push(b':');
                write(item, out);
            }
            out.push(b'}');
        }
    }
}

/// Appends a JSON string.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut start = 0;
    for (at, b) in text.bytes().enumerate().filter(|(_, b)| *b < 0x20 || matches!(b, b'"' | b'\\' | 0x7f)) {
        out.extend_from_slice(&text.as_bytes()[start..at]);
        start = at + 1;
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&text.as_bytes()[start..]);
    out.push(b'"');
}

/// A value as JSON text.
pub fn text(value: &Value) -> String {
    let mut out = Vec::new();
    write(value, &mut out);
    String::from_utf8(out).expect("JSON of valid text")
}

/// An object's entries; large ones are indexed, so that no object takes quadratic time.
#[derive(Default)]
struct Entries<'a> {
    list: Vec<(Cow<'a, str>, Value)>,
    index: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Entries<'a> {
    fn put(&mut self, key: Cow<'a, str>, value: Value) {
        const SMALL: usize = 24;
        if self.list.len() == SMALL {
            self.index = self.list.iter().enumerate().map(|(i, (k, _))| (k.clone(), i)).collect();
        }
        let known = if self.list.len() < SMALL {
            self.list.iter().position(|(k, _)| *k == key)
        } else {
            self.index.get(&key).copied()
        };
        match known {
            Some(at) => self.list[at].1 = value,
            None => {
                if self.list.len() >= SMALL {
                    self.index.insert(key.clone(), self.list.len());
                }
                self.list.push((key, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn what(text: &str) -> &'static str {
        parse(text).expect_err("a mistake").what
    }

    #[test]
    fn numbers_are_exact() {
        assert_eq!(parse("123456789012345678901"), Ok(Value::BigInt("123456789012345678901".into())));
        assert_eq!(parse(" -9223372036854775808 "), Ok(Value::Int(i64::MIN)));
        assert_eq!(parse("-0"), Ok(Value::Int(0)));
        assert_eq!(parse("-0.0"), Ok(Value::Float(-0.0)));
        assert_eq!(parse("0.1e1"), Ok(Value::Float(1.0)));
        assert_eq!(
            parse("[NaN, Infinity, -Infinity]"),
            Ok(Value::List([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Value::Float).to_vec()))
        );
        for (text, mistake) in [
            ("01", "a number with a leading zero"),
            ("1.", "a digit is expected"),
            ("-", "a digit is expected"),
            ("1e999", "a number too large for a float"),
            ("+1", "a value is expected"),
        ] {
            assert_eq!(what(text), mistake, "{text}");
        }
    }

    #[test]
    fn strings_and_escapes() {
        assert_eq!(parse(r#""a\n\u00e9\ud83d\ude00\/""#), Ok(Value::Text("a\né😀/".into())));
        for text in [r#""\ud800""#, r#""\ud800x""#, r#""\ud800\u0041""#, r#""\udc00""#] {
            assert_eq!(what(text), "half a surrogate pair", "{text}");
        }
        assert_eq!(what("\"a\nb\""), "a control character in a string");
        assert_eq!(what(r#""abc"#), "a string without its end");
        assert_eq!(what(r#""\u00é0""#), "four hexadecimal digits are expected");
    }

    #[test]
    fn the_last_of_two_equal_keys_wins_where_the_first_stood() {
        let keys =
            |text| parse_object(text).expect("valid").into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        assert_eq!(keys(r#"{"b": 1, "a": 2, "b": 3}"#), ["b=3", "a=2"]);
        let large: Vec<String> = (0..60).map(|i| format!("\"k{}\": {i}", i % 40)).collect();
        let large = format!("{{{}}}", large.join(","));
        assert_eq!(keys(&large).len(), 40);
        assert_eq!((keys(&large)[0].as_str(), keys(&large)[39].as_str()), ("k0=40", "k39=39"));
    }

    #[test]
    fn depth_is_bounded() {
        assert_eq!(what(&"[".repeat(100_000)), "nested too deeply");
        assert!(parse(&("[".repeat(100) + &"]".repeat(100))).is_ok());
    }

    proptest! {
        #[test]
        fn agrees_with_serde(text in r#"[\[\]{}:, "a1e.\\u0-]{0,12}|\{"[a-z]{0,3}": (-?[0-9]{1,25}|-?[0-9]\.[0-9]{1,20}(e-?[0-9]{1,2})?|true|null|"[^"\\]{0,5}"|\[1, \[\], \{\}\])\}"#) {
            match serde_json::from_str::<serde_json::Value>(&text) {
                Ok(json) => prop_assert_eq!(parse(&text), Ok(Value::from_json(json))),
                Err(_) => prop_assert!(parse(&text).is_err()),
            }
        }

        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
