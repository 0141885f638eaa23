//! Cells as PostgreSQL prints them.
//!
//! The text form is exact for every type, types of extensions among them, and never depends on the machine. What it
//! depends on is settled for the transaction ([`super::connect`]).

use postgres::types::{Kind, Type};

use crate::data::json;
use crate::data::value::{TimeKind, Value};

/// Reads the cells of one column.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) enum Decoder {
    Bool,
    Int,
    Float4,
    Float8,
    Numeric,
    Bytes,
    Json,
    Date,
    Time,
    DateTime,
    Interval,
    /// Elements, and what stands between them.
    List(Box<Decoder>, char),
    /// As it is printed.
    Text,
}

impl Decoder {
    /// For a column of this type.
    pub fn of(kind: &Type) -> Decoder {
        match *kind {
            Type::BOOL => Decoder::Bool,
            Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => Decoder::Int,
            Type::FLOAT4 => Decoder::Float4,
            Type::FLOAT8 => Decoder::Float8,
            Type::NUMERIC => Decoder::Numeric,
            Type::BYTEA => Decoder::Bytes,
            Type::JSON | Type::JSONB => Decoder::Json,
            Type::DATE => Decoder::Date,
            Type::TIME | Type::TIMETZ => Decoder::Time,
            Type::TIMESTAMP | Type::TIMESTAMPTZ => Decoder::DateTime,
            Type::INTERVAL => Decoder::Interval,
            _ => match kind.kind() {
                Kind::Array(element) => {
                    Decoder::List(Box::new(Decoder::of(element)), if *element == Type::BOX { ';' } else { ',' })
                }
                Kind::Domain(base) => Decoder::of(base),
                _ => Decoder::Text,
            },
        }
    }

    /// A cell that is not null; the error is what it is.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let not = |what: &str| format!("{text}, which {what}");
        Ok(match self {
            Decoder::Bool => Value::Bool(text == "t"),
            Decoder::Int => Value::integer(text),
            Decoder::Float4 => Value::Float(text.parse::<f32>().map_err(|_| not("is no float"))?.into()),
            Decoder::Float8 => Value::Float(text.parse().map_err(|_| not("is no float"))?),
            Decoder::Numeric if is_integer(text) => Value::integer(text),
            Decoder::Numeric | Decoder::Text => Value::Text(text.to_string()),
            Decoder::Bytes => Value::Bytes(bytes(text).ok_or_else(|| not("is not hexadecimal"))?),
            Decoder::Json => json::parse(text).map_err(|e| format!("JSON that cannot be read: {e}"))?,
            Decoder::Date => Value::Time(TimeKind::Date, date(text).ok_or_else(|| not("Python cannot hold"))?.into()),
            Decoder::Time => Value::Time(TimeKind::Time, time(text).ok_or_else(|| not("Python cannot hold"))?),
            Decoder::DateTime => {
                let parts = text.split_once(' ').and_then(|(d, t)| Some((date(d)?, time(t)?)));
                let (date, time) = parts.ok_or_else(|| not("Python cannot hold"))?;
                Value::Time(TimeKind::DateTime, format!("{date}T{time}"))
            }
            Decoder::Interval => match seconds(text) {
                Some(seconds) => Value::Time(TimeKind::Duration, seconds),
                None => Value::Text(text.to_string()),
            },
            Decoder::List(element, between) => list(text, element, *between)?,
        })
    }
}

fn is_integer(text: &str) -> bool {
    text.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit())
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?;
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A date of the years 1 to 9999.
fn date(text: &str) -> Option<&str> {
    let plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    (plain && !text.starts_with("0000")).then_some(text)
}

/// A time of day as `isoformat()` gives it: decimals are six or none, an offset has its minutes.
fn time(text: &str) -> Option<String> {
    let (clock, offset) = text.split_at(text.find(['+', '-']).unwrap_or(text.len()));
    let (whole, decimals) = clock.split_once('.').unwrap_or((clock, ""));
    let plain = whole.len() == 8 && whole.bytes().all(|b| b.is_ascii_digit() || b == b':');
    if !plain || whole.starts_with("24") || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let decimals = if decimals.is_empty() { String::new() } else { format!(".{decimals:0<6}") };
    let minutes = if offset.len() == 3 { ":00" } else { "" };
    Some(format!("{whole}{decimals}{offset}{minutes}"))
}

/// The seconds of an interval without days and months, which have no fixed length.
fn seconds(text: &str) -> Option<String> {
    let (sign, clock) = text.strip_prefix('-').map_or(("", text), |clock| ("-", clock));
    let (whole, decimals) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.split(':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let total = hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)?;
    let decimals = decimals.trim_end_matches('0');
    let point = if decimals.is_empty() { "" } else { "." };
    let sign = if total == 0 && decimals.is_empty() { "" } else { sign };
    parts.next().is_none().then(|| format!("{sign}{total}{point}{decimals}"))
}

/// `{1,"a b",NULL,{…}}`, perhaps behind its bounds (`[2:3]=`).
fn list(text: &str, element: &Decoder, between: char) -> Result<Value, String> {
    let body = match text.strip_prefix('[') {
        Some(_) => text.split_once('=').map_or(text, |(_, body)| body),
        None => text,
    };
    let mut rest = body.chars().peekable();
    let value = sublist(&mut rest, element, between)?;
    rest.next().map_or(Ok(value), |_| Err(format!("{text}, which is no array")))
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn sublist(rest: &mut Rest<'_>, element: &Decoder, between: char) -> Result<Value, String> {
    let broken = || "an array that cannot be read".to_string();
    if rest.next() != Some('{') {
        return Err(broken());
    }
    let mut items = Vec::new();
    if rest.next_if_eq(&'}').is_some() {
        return Ok(Value::List(items));
    }
    loop {
        items.push(match rest.peek() {
            Some('{') => sublist(rest, element, between)?,
            Some('"') => element.read(&quoted(rest).ok_or_else(broken)?)?,
            _ => {
                let mut text = String::new();
                while let Some(c) = rest.next_if(|c| *c != between && *c != '}') {
                    text.push(c);
                }
                if text == "NULL" { Value::Null } else { element.read(&text)? }
            }
        });
        match rest.next() {
            Some('}') => return Ok(Value::List(items)),
            Some(c) if c == between => {}
            _ => return Err(broken()),
        }
    }
}

fn quoted(rest: &mut Rest<'_>) -> Option<String> {
    rest.next();
    let mut text = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' => text.push(rest.next()?),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(decoder: &Decoder, text: &str) -> String {
        match decoder.read(text) {
            Ok(value) => format!("{} {value}", value.type_name()),
            Err(what) => format!("error: {what}"),
        }
    }

    #[test]
    fn times_are_as_python_prints_them() {
        let all = [
            (Decoder::DateTime, "2026-01-31 12:00:00", "datetime 2026-01-31T12:00:00"),
            (Decoder::DateTime, "2026-01-31 12:00:00.5+00", "datetime 2026-01-31T12:00:00.500000+00:00"),
            (Decoder::DateTime, "infinity", "error: infinity, which Python cannot hold"),
            (Decoder::DateTime, "0044-03-15 12:00:00 BC", "error: 0044-03-15 12:00:00 BC, which Python cannot hold"),
            (Decoder::Date, "12026-01-01", "error: 12026-01-01, which Python cannot hold"),
            (Decoder::Time, "23:59:59.000001+05:30", "time 23:59:59.000001+05:30"),
            (Decoder::Time, "24:00:00", "error: 24:00:00, which Python cannot hold"),
            (Decoder::Interval, "27:00:00.25", "timedelta 97200.25"),
            (Decoder::Interval, "-00:00:01.5", "timedelta -1.5"),
            (Decoder::Interval, "00:00:00", "timedelta 0"),
            (Decoder::Interval, "1 mon 2 days 03:00:00", "str 1 mon 2 days 03:00:00"),
        ];
        for (decoder, text, expected) in all {
            assert_eq!(shown(&decoder, text), expected);
        }
    }

    #[test]
    fn numbers_and_bytes_are_exact() {
        let all = [
            (Decoder::Numeric, "123456789012345678901234567890", "int 123456789012345678901234567890"),
            (Decoder::Numeric, "12.50", "str 12.50"),
            (Decoder::Numeric, "NaN", "str NaN"),
            (Decoder::Float8, "-Infinity", "float -inf"),
            (Decoder::Float4, "0.1", "float 0.10000000149011612"),
            (Decoder::Bytes, "\\x00ff", "bytes 00ff"),
            (Decoder::Json, "[1, {\"a\": null}]", "list [1,{\"a\":null}]"),
        ];
        for (decoder, text, expected) in all {
            assert_eq!(shown(&decoder, text), expected);
        }
    }

    #[test]
    fn arrays_nest_and_quote() {
        let ints = Decoder::of(&Type::INT4_ARRAY);
        assert_eq!(shown(&ints, "{{1,2},{NULL,4}}"), "list [[1,2],[null,4]]");
        assert_eq!(shown(&ints, "[2:3]={5,6}"), "list [5,6]");
        assert_eq!(shown(&ints, "{}"), "list []");
        let texts = Decoder::of(&Type::TEXT_ARRAY);
        assert_eq!(shown(&texts, r#"{a,"b \"c\\,d","NULL",NULL,""}"#), r#"list ["a","b \"c\\,d","NULL",null,""]"#);
        assert!(texts.read("{a").is_err() && texts.read("{a}b").is_err());
    }
}
