//! What cells of text mean: the types of columns, inferred or given, and the cells read by them.
//!
//! A type is inferred so that nothing is lost: *integer* only where text → integer → text is identical (`007`, `+1`,
//! ` 1` and `-0` stay text; beyond 64 bits it stays exact), *float* for decimal and exponent forms, `nan` and `inf`,
//! *bool* for `true` and `false`, else *text*. A column of floats may also hold integers that a float holds exactly,
//! and `-0` or `+1`. Types that `schema:` gives are read more leniently: whitespace around, `007`, `True`.

use crate::data::table::ColumnBuilder;
use crate::data::time::{date_time_text, offset_text};
use crate::data::value::{TimeKind, Value};
use crate::spec::model::CellType;

/// Rows from which types are inferred.
pub(super) const SAMPLE_ROWS: usize = 10_000;

/// How the cells of a column of text are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColumnType {
    pub cell: CellType,
    /// By `schema:`, not inferred.
    pub given: bool,
}

/// What a cell looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Empty,
    Int,
    /// An integer that does not print as it is written, though a float does well: `-0`, `+1`.
    LooseInt,
    Float,
    Bool,
    Text,
}

fn shape(cell: &[u8]) -> Shape {
    match cell {
        b"" => Shape::Empty,
        b"true" | b"false" => Shape::Bool,
        _ => number_shape(cell).unwrap_or(Shape::Text),
    }
}

fn number_shape(cell: &[u8]) -> Option<Shape> {
    let (sign, body) = match cell {
        [sign @ (b'+' | b'-'), body @ ..] => (Some(*sign), body),
        body => (None, body),
    };
    if ["nan", "inf", "infinity"].iter().any(|name| body.eq_ignore_ascii_case(name.as_bytes())) {
        return Some(Shape::Float);
    }
    let whole = digits(body);
    if whole > 1 && body[0] == b'0' {
        return None;
    }
    let mut rest = &body[whole..];
    if rest.is_empty() && whole > 0 {
        let loose = sign == Some(b'+') || (sign.is_some() && body == b"0");
        return Some(if loose { Shape::LooseInt } else { Shape::Int });
    }
    let mut fraction = 0;
    if let [b'.', after @ ..] = rest {
        fraction = digits(after);
        rest = &after[fraction..];
    }
    if whole + fraction == 0 {
        return None;
    }
    if let [b'e' | b'E', after @ ..] = rest {
        let power = after.strip_prefix(b"+").or(after.strip_prefix(b"-")).unwrap_or(after);
        rest = if digits(power) == 0 { return None } else { &power[digits(power)..] };
    }
    rest.is_empty().then_some(Shape::Float)
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// What the cells of a column have shown so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    ints: bool,
    floats: bool,
    bools: bool,
    /// Something that no float holds.
    no_float: bool,
    /// Something that is no integer as written.
    no_int: bool,
    text: bool,
}

impl Evidence {
    /// Takes a cell into account.
    pub fn observe(&mut self, cell: &[u8]) {
        match shape(cell) {
            Shape::Empty => {}
            Shape::Int => {
                self.ints = true;
                self.no_float |= !is_exact_float(cell);
            }
            Shape::LooseInt => self.no_int = true,
            Shape::Float => self.floats = true,
            Shape::Bool => self.bools = true,
            Shape::Text => self.text = true,
        }
    }

    /// The type that fits all cells.
    pub fn settle(&self) -> CellType {
        let numbers = self.ints || self.floats || self.no_int;
        match self {
            _ if self.text || (self.bools && numbers) => CellType::Text,
            _ if self.bools => CellType::Bool,
            _ if self.floats && !self.no_float => CellType::Float,
            _ if self.ints && !self.floats && !self.no_int => CellType::Int,
            _ => CellType::Text,
        }
    }
}

/// Whether an integer as text is a float exactly.
fn is_exact_float(digits: &[u8]) -> bool {
    if digits.len() <= 15 {
        return true;
    }
    let text = std::str::from_utf8(digits).unwrap_or("");
    text.parse::<f64>().is_ok_and(|v| format!("{v:.0}") == text)
}

/// Appends `cell`, read as `kind`, to `column`. On an error nothing is appended, and what it says completes
/// "… is not …".
#[inline]
pub(super) fn push_cell(column: &mut ColumnBuilder, kind: ColumnType, cell: &[u8]) -> Result<(), &'static str> {
    if cell.is_empty() && kind.cell != CellType::Text {
        column.push_null();
        return Ok(());
    }
    match (kind.cell, kind.given) {
        (CellType::Text, _) => column.push_text(utf8(cell)?),
        (CellType::Int, false) => match parse_small_int(cell) {
            Some(v) => column.push_int(v),
            None => column.push(&parse_int(cell).ok_or("an integer")?),
        },
        (CellType::Float, false) => column.push_float(parse_float(cell).ok_or("a float")?),
        (CellType::Bool, false) => column.push_bool(match cell {
            b"true" => true,
            b"false" => false,
            _ => return Err("true or false"),
        }),
        _ => match given(kind.cell, utf8(cell)?.trim())? {
            Value::Int(v) => column.push_int(v),
            Value::Float(v) => column.push_float(v),
            other => column.push(&other),
        },
    }
    Ok(())
}

fn utf8(cell: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(cell).map_err(|_| "valid UTF-8")
}

/// An integer of at most 18 digits in its canonical form.
#[inline]
fn parse_small_int(cell: &[u8]) -> Option<i64> {
    let (negative, body) = match cell {
        [b'-', body @ ..] => (true, body),
        body => (false, body),
    };
    if body.is_empty() || body.len() > 18 || (body[0] == b'0' && (body.len() > 1 || negative)) {
        return None;
    }
    let mut v = 0i64;
    for b in body {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        v = v * 10 + i64::from(digit);
    }
    Some(if negative { -v } else { v })
}

fn parse_int(cell: &[u8]) -> Option<Value> {
    (number_shape(cell)? == Shape::Int).then(|| Value::integer(std::str::from_utf8(cell).expect("only digits")))
}

#[inline]
fn parse_float(cell: &[u8]) -> Option<f64> {
    match number_shape(cell)? {
        Shape::Int if !is_exact_float(cell) => None,
        _ => std::str::from_utf8(cell).ok()?.parse().ok(),
    }
}

/// Reads text as a type that `schema:` gives.
pub(super) fn given(kind: CellType, text: &str) -> Result<Value, &'static str> {
    if text.is_empty() && kind != CellType::Text {
        return Ok(Value::Null);
    }
    match kind {
        CellType::Text => Ok(Value::Text(text.to_string())),
        CellType::Int => any_integer(text).ok_or("an integer"),
        CellType::Float => text.parse().map(Value::Float).map_err(|_| "a float"),
        CellType::Bool => match text {
            "true" | "True" | "TRUE" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" => Ok(Value::Bool(false)),
            _ => Err("true or false"),
        },
        CellType::Date => match text.parse::<jiff::civil::Date>() {
            Ok(date) if text.len() <= 10 => Ok(Value::Time(TimeKind::Date, date.to_string())),
            _ => Err("a date (2026-01-31)"),
        },
        CellType::DateTime => date_time(text).map(|t| Value::Time(TimeKind::DateTime, t)),
    }
}

fn any_integer(text: &str) -> Option<Value> {
    let (sign, body) = match text.strip_prefix('-') {
        Some(body) => ("-", body),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    if body.is_empty() || digits(body.as_bytes()) != body.len() {
        return None;
    }
    let body = body.trim_start_matches('0');
    Some(if body.is_empty() { Value::Int(0) } else { Value::integer(&format!("{sign}{body}")) })
}

/// A date and time as Python's `isoformat()` has it, the offset kept.
fn date_time(text: &str) -> Result<String, &'static str> {
    const WHAT: &str = "a date and time (2026-01-31T12:00:00)";
    let pieces = jiff::fmt::temporal::Pieces::parse(text).map_err(|_| WHAT)?;
    if pieces.time_zone_annotation().is_some() {
        return Err(WHAT);
    }
    let time = pieces.time().unwrap_or_default();
    if time.subsec_nanosecond() % 1000 != 0 {
        return Err("a date and time of whole microseconds");
    }
    let offset = pieces.to_numeric_offset().map_or(String::new(), |o| offset_text(o.seconds()));
    Ok(date_time_text(pieces.date().to_datetime(time)) + &offset)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inferred(cells: &[&str]) -> CellType {
        let mut evidence = Evidence::default();
        cells.iter().for_each(|c| evidence.observe(c.as_bytes()));
        evidence.settle()
    }

    fn read(cell: CellType, given: bool, text: &str) -> Result<Value, &'static str> {
        let mut column = ColumnBuilder::default();
        push_cell(&mut column, ColumnType { cell, given }, text.as_bytes())?;
        Ok(column.finish().value(0))
    }

    #[test]
    fn integers_print_as_they_are_written() {
        assert_eq!(inferred(&["1", "-20", "0", ""]), CellType::Int);
        assert_eq!(inferred(&["123456789012345678901234567890"]), CellType::Int);
        for text in ["007", "+1", " 1", "-0", "1 ", "1_000", "١", "--1", "-", "0x1"] {
            assert_eq!(inferred(&[text]), CellType::Text, "{text:?}");
            assert_eq!(inferred(&["1", text]), CellType::Text, "{text:?}");
        }
    }

    #[test]
    fn floats_are_decimal_or_special() {
        for text in ["1.5", ".5", "5.", "-1e5", "1E+05", "nan", "NaN", "inf", "-Infinity", "+1.5", "0.0", "-0.0"] {
            assert_eq!(inferred(&[text]), CellType::Float, "{text:?}");
        }
        for text in [".", "e5", "1e", "1.5.", "00.5", "1.5e+", "1,5", "0.5f", "in", "na"] {
            assert_eq!(inferred(&[text]), CellType::Text, "{text:?}");
        }
        assert_eq!(inferred(&["1", "2.5", "-0", "+3"]), CellType::Float);
        assert_eq!(inferred(&["9007199254740993", "2.5"]), CellType::Text, "no float holds the first");
        assert_eq!(inferred(&["9007199254740992", "2.5"]), CellType::Float);
    }

    #[test]
    fn the_rest() {
        assert_eq!(inferred(&[]), CellType::Text);
        assert_eq!(inferred(&["", ""]), CellType::Text);
        assert_eq!(inferred(&["true", "", "false"]), CellType::Bool);
        assert_eq!(inferred(&["true", "1"]), CellType::Text);
        assert_eq!(inferred(&["True"]), CellType::Text);
        assert_eq!(inferred(&["2026-01-31"]), CellType::Text);
    }

    #[test]
    fn given_types_are_lenient() {
        assert_eq!(read(CellType::Int, true, " 007 "), Ok(Value::Int(7)));
        assert_eq!(read(CellType::Int, true, "-00"), Ok(Value::Int(0)));
        assert_eq!(
            read(CellType::Int, true, "+36893488147419103232"),
            Ok(Value::BigInt("36893488147419103232".into()))
        );
        assert!(read(CellType::Int, true, "1.0").is_err());
        assert_eq!(read(CellType::Float, true, "1"), Ok(Value::Float(1.0)));
        assert_eq!(read(CellType::Bool, true, "TRUE"), Ok(Value::Bool(true)));
        assert_eq!(read(CellType::Text, true, "007"), Ok(Value::Text("007".into())));
    }

    #[test]
    fn times_are_as_python_prints_them() {
        let time = |text| read(CellType::DateTime, true, text);
        let is = |text: &str| Ok(Value::Time(TimeKind::DateTime, text.into()));
        assert_eq!(time("2026-01-31T12:00"), is("2026-01-31T12:00:00"));
        assert_eq!(time("2026-01-31 12:00:00.5"), is("2026-01-31T12:00:00.500000"));
        assert_eq!(time("2026-01-31T12:00:00Z"), is("2026-01-31T12:00:00+00:00"));
        assert_eq!(time("2026-01-31T12:00:00-05:30"), is("2026-01-31T12:00:00-05:30"));
        assert!(time("2026-01-31T12:00:00.0000001").is_err());
        assert!(time("31.1.2026").is_err());
        assert_eq!(read(CellType::Date, true, "2026-01-31"), Ok(Value::Time(TimeKind::Date, "2026-01-31".into())));
        assert!(read(CellType::Date, true, "2026-02-30").is_err());
        assert!(read(CellType::Date, true, "2026-01-31T12:00").is_err());
        assert_eq!(read(CellType::Date, true, ""), Ok(Value::Null));
    }

    proptest! {
        /// The naive oracle: parse it, print it, compare.
        #[test]
        fn integers_agree_with_a_naive_oracle(text in "[+-]?[0-9]{0,3}|-?[0-9]{17,40}| ?[0-9.]{1,3}") {
            let oracle = text.parse::<i128>().is_ok_and(|v| v.to_string() == text)
                || (text.len() > 38 && {
                    let body = text.strip_prefix('-').unwrap_or(&text);
                    body.bytes().all(|b| b.is_ascii_digit()) && !body.starts_with('0')
                });
            prop_assert_eq!(inferred(&[&text]) == CellType::Int, oracle);
            match read(CellType::Int, false, &text) {
                Ok(Value::Null) => prop_assert!(text.is_empty()),
                Ok(value) => prop_assert!(oracle && value.to_string() == text),
                Err(_) => prop_assert!(!oracle),
            }
        }

        #[test]
        fn floats_read_as_rust_reads_them(text in "[+-]?[0-9]{0,3}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,2})?") {
            if inferred(&[&text]) == CellType::Float {
                prop_assert_eq!(read(CellType::Float, false, &text), Ok(Value::Float(text.parse().unwrap())));
            }
        }

        #[test]
        fn a_column_holds_every_cell_it_was_inferred_from(cells in prop::collection::vec("[+-]?[0-9]{0,2}(\\.[0-9]{1,2})?|true|x|-?[0-9]{16,20}", 1..6)) {
            let kind = inferred(&cells.iter().map(String::as_str).collect::<Vec<_>>());
            for cell in &cells {
                prop_assert!(read(kind, false, cell).is_ok(), "{:?} as {:?}", cell, kind);
            }
        }
    }
}
