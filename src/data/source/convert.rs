//! Columns of Arrow arrays as our columns.
//!
//! All integers become integers (beyond 64 bits signed exact cells), all floats 64-bit floats, all texts text,
//! dictionaries their values; binary becomes bytes, lists lists, structs and maps with text keys mappings; dates,
//! times and durations become times. What cannot be told exactly fails its row: nanoseconds below a microsecond,
//! decimals with a fraction, maps with other keys, years that Python does not know, intervals.

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use crate::data::table::{Column, ColumnBuilder};
use crate::data::time::{date_time_text, duration_text, offset_text, time_text};
use crate::data::value::{TimeKind, Value};

/// Rows that cannot be told, with the reason; ascending.
pub(super) type Spoilt = Vec<(usize, String)>;

/// The columns of a record batch, and the rows that failed (their cells are null).
pub(super) fn columns(batch: &RecordBatch) -> (Vec<Column>, Spoilt) {
    let mut spoilt = Spoilt::new();
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let (column, wrong) = column(array);
        spoilt.extend(wrong.into_iter().map(|(row, what)| (row, format!("column {:?}: {what}", field.name()))));
        columns.push(column);
    }
    spoilt.sort_by_key(|(row, _)| *row);
    spoilt.dedup_by_key(|(row, _)| *row);
    (columns, spoilt)
}

fn column(array: &ArrayRef) -> (Column, Spoilt) {
    if let DataType::Dictionary(_, value) = array.data_type()
        && let Ok(values) = arrow_cast::cast(array, value)
    {
        return column(&values);
    }
    if let Some(column) = typed(array) {
        return (column, Spoilt::new());
    }
    let mut builder = ColumnBuilder::default();
    let mut spoilt = Spoilt::new();
    for row in 0..array.len() {
        match cell(array, row) {
            Ok(value) => builder.push(&value),
            Err(what) => {
                spoilt.push((row, what));
                builder.push_null();
            }
        }
    }
    (builder.finish(), spoilt)
}

/// Types that Arrow converts as a whole.
fn typed(array: &ArrayRef) -> Option<Column> {
    use DataType::*;
    let target = match array.data_type() {
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 => Int64,
        Float16 | Float32 | Float64 => Float64,
        Utf8 | LargeUtf8 | Utf8View => Utf8,
        Boolean => return Some(Column::Bool(array.as_boolean().clone())),
        _ => return None,
    };
    let array = arrow_cast::cast(array, &target).ok()?;
    Some(match target {
        Int64 => Column::Int(array.as_primitive().clone()),
        Float64 => Column::Float(array.as_primitive().clone()),
        _ => Column::Text(array.as_string().clone()),
    })
}

/// One cell of any array.
fn cell(array: &dyn Array, row: usize) -> Result<Value, String> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    macro_rules! int {
        ($kind:ty) => {
            Value::Int(i64::from(array.as_primitive::<$kind>().value(row)))
        };
    }
    use DataType::*;
    Ok(match array.data_type() {
        Null => Value::Null,
        Boolean => Value::Bool(array.as_boolean().value(row)),
        Int8 => int!(Int8Type),
        Int16 => int!(Int16Type),
        Int32 => int!(Int32Type),
        Int64 => int!(Int64Type),
        UInt8 => int!(UInt8Type),
        UInt16 => int!(UInt16Type),
        UInt32 => int!(UInt32Type),
        UInt64 => {
            let v = array.as_primitive::<UInt64Type>().value(row);
            i64::try_from(v).map_or_else(|_| Value::BigInt(v.to_string()), Value::Int)
        }
        Float16 => Value::Float(array.as_primitive::<Float16Type>().value(row).to_f64()),
        Float32 => Value::Float(f64::from(array.as_primitive::<Float32Type>().value(row))),
        Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        Utf8 => Value::Text(array.as_string::<i32>().value(row).to_string()),
        LargeUtf8 => Value::Text(array.as_string::<i64>().value(row).to_string()),
        Utf8View => Value::Text(array.as_string_view().value(row).to_string()),
        Binary => Value::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        LargeBinary => Value::Bytes(array.as_binary::<i64>().value(row).to_vec()),
        BinaryView => Value::Bytes(array.as_binary_view().value(row).to_vec()),
        FixedSizeBinary(_) => Value::Bytes(array.as_fixed_size_binary().value(row).to_vec()),
        Decimal128(_, scale) => decimal(&array.as_primitive::<Decimal128Type>().value(row).to_string(), *scale)?,
        Decimal256(_, scale) => decimal(&array.as_primitive::<Decimal256Type>().value(row).to_string(), *scale)?,
        Decimal32(_, scale) => decimal(&array.as_primitive::<Decimal32Type>().value(row).to_string(), *scale)?,
        Decimal64(_, scale) => decimal(&array.as_primitive::<Decimal64Type>().value(row).to_string(), *scale)?,
        List(_) => list(&array.as_list::<i32>().value(row))?,
        LargeList(_) => list(&array.as_list::<i64>().value(row))?,
        FixedSizeList(..) => list(&array.as_fixed_size_list().value(row))?,
        ListView(_) => list(&array.as_list_view::<i32>().value(row))?,
        LargeListView(_) => list(&array.as_list_view::<i64>().value(row))?,
        Struct(fields) => {
            let columns = array.as_struct().columns();
            let entries = fields.iter().zip(columns).map(|(f, c)| Ok((f.name().clone(), cell(c, row)?)));
            Value::Map(entries.collect::<Result<_, String>>()?)
        }
        Map(..) => map(array, row)?,
        Dictionary(..) => {
            let one = array.slice(row, 1);
            let one = one.as_any_dictionary();
            cell(one.values(), one.normalized_keys()[0])?
        }
        kind if kind.is_temporal() => temporal(array, row)?,
        kind => return Err(format!("cells of type {kind} cannot be kept")),
    })
}

fn list(items: &ArrayRef) -> Result<Value, String> {
    (0..items.len()).map(|i| cell(items, i)).collect::<Result<_, _>>().map(Value::List)
}

fn map(array: &dyn Array, row: usize) -> Result<Value, String> {
    let entries = array.as_map().value(row);
    let (keys, values) = (entries.column(0), entries.column(1));
    let entry = |i| match cell(keys, i)? {
        Value::Text(key) => Ok((key, cell(values, i)?)),
        other => Err(format!("a mapping with a key of type {} cannot be kept", other.type_name())),
    };
    (0..entries.len()).map(entry).collect::<Result<_, _>>().map(Value::Map)
}

fn decimal(digits: &str, scale: i8) -> Result<Value, String> {
    if scale > 0 {
        return Err("decimals with a fraction cannot be kept exactly; cast them to float or text".into());
    }
    let zeros = if digits == "0" { 0 } else { usize::from(scale.unsigned_abs()) };
    Ok(Value::integer(&(digits.to_string() + &"0".repeat(zeros))))
}

fn temporal(array: &dyn Array, row: usize) -> Result<Value, String> {
    use DataType::*;
    use TimeUnit::*;
    const DAY: i128 = 86_400_000_000_000;
    macro_rules! number {
        ($kind:ty) => {
            i128::from(array.as_primitive::<$kind>().value(row))
        };
    }
    let nanos = |n: i128, unit: &TimeUnit| match unit {
        Second => n * 1_000_000_000,
        Millisecond => n * 1_000_000,
        Microsecond => n * 1_000,
        Nanosecond => n,
    };
    match array.data_type() {
        Date32 => date(number!(Date32Type) * DAY),
        Date64 => date(number!(Date64Type) * 1_000_000),
        Timestamp(unit, zone) => {
            let n = match unit {
                Second => number!(TimestampSecondType),
                Millisecond => number!(TimestampMillisecondType),
                Microsecond => number!(TimestampMicrosecondType),
                Nanosecond => number!(TimestampNanosecondType),
            };
            timestamp(micros(nanos(n, unit))?, zone.as_deref())
        }
        Time32(Second) => time(number!(Time32SecondType) * 1_000_000_000),
        Time32(_) => time(number!(Time32MillisecondType) * 1_000_000),
        Time64(Microsecond) => time(number!(Time64MicrosecondType) * 1_000),
        Time64(_) => time(number!(Time64NanosecondType)),
        Duration(unit) => {
            let n = match unit {
                Second => number!(DurationSecondType),
                Millisecond => number!(DurationMillisecondType),
                Microsecond => number!(DurationMicrosecondType),
                Nanosecond => number!(DurationNanosecondType),
            };
            Ok(Value::Time(TimeKind::Duration, duration_text(micros(nanos(n, unit))?)))
        }
        kind => Err(format!("cells of type {kind} cannot be kept")),
    }
}

fn micros(nanos: i128) -> Result<i128, String> {
    if nanos % 1000 != 0 {
        return Err(format!("{nanos} ns is no whole number of microseconds, which is as fine as a time can be"));
    }
    Ok(nanos / 1000)
}

/// A date and time without offset, counted from 1970.
fn civil(micros: i128) -> Result<DateTime, String> {
    const OUTSIDE: &str = "a time outside the years 1 to 9999";
    let since = i64::try_from(micros).map_err(|_| OUTSIDE)?;
    let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    match epoch.checked_add(jiff::SignedDuration::from_micros(since)) {
        Ok(t) if t.year() >= 1 => Ok(t),
        _ => Err(OUTSIDE.into()),
    }
}

fn date(nanos: i128) -> Result<Value, String> {
    Ok(Value::Time(TimeKind::Date, civil(nanos.div_euclid(1000))?.date().to_string()))
}

fn time(nanos: i128) -> Result<Value, String> {
    Ok(Value::Time(TimeKind::Time, time_text(civil(micros(nanos)?)?.time())))
}

fn timestamp(micros: i128, zone: Option<&str>) -> Result<Value, String> {
    let text = match zone {
        None => date_time_text(civil(micros)?),
        Some(name) => {
            let offset = offset_at(name, micros)?.seconds();
            date_time_text(civil(micros + i128::from(offset) * 1_000_000)?) + &offset_text(offset)
        }
    };
    Ok(Value::Time(TimeKind::DateTime, text))
}

/// The offset of a zone (`UTC`, `+01:00`, `Europe/Berlin`) at an instant.
fn offset_at(zone: &str, micros: i128) -> Result<Offset, String> {
    if let "UTC" | "Z" | "+00:00" = zone {
        return Ok(Offset::UTC);
    }
    let unknown = |_| format!("the time zone {zone:?} is not known here");
    if zone.starts_with(['+', '-']) {
        let pieces = jiff::fmt::temporal::DateTimeParser::new();
        let shifted = pieces.parse_timestamp(format!("2000-01-01T00:00:00{zone}")).map_err(unknown)?;
        let seconds = 946_684_800 - shifted.as_second();
        return Offset::from_seconds(seconds as i32).map_err(unknown);
    }
    let stamp = i64::try_from(micros).unwrap_or(i64::MAX);
    let stamp = jiff::Timestamp::from_microsecond(stamp).unwrap_or(jiff::Timestamp::MAX);
    Ok(TimeZone::get(zone).map_err(unknown)?.to_offset(stamp))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::*;

    use super::*;

    fn told(array: impl Array + 'static) -> Vec<String> {
        let array: ArrayRef = Arc::new(array);
        let (column, spoilt) = column(&array);
        let cell = |row: usize| match spoilt.iter().find(|(r, _)| *r == row) {
            Some((_, what)) => format!("! {what}"),
            None => format!("{} {}", column.value(row).type_name(), column.value(row)),
        };
        (0..array.len()).map(cell).collect()
    }

    #[test]
    fn numbers() {
        assert_eq!(
            told(UInt64Array::from(vec![Some(u64::MAX), Some(1), None])),
            ["int 18446744073709551615", "int 1", "None "]
        );
        assert_eq!(told(UInt8Array::from(vec![255])), ["int 255"]);
        assert_eq!(told(Float32Array::from(vec![0.1])), ["float 0.10000000149011612"]);
        let decimal = |scale| Decimal128Array::from(vec![15]).with_precision_and_scale(20, scale).expect("valid");
        assert_eq!(told(decimal(0)), ["int 15"]);
        assert_eq!(told(decimal(-2)), ["int 1500"]);
        assert_eq!(told(decimal(1)), ["! decimals with a fraction cannot be kept exactly; cast them to float or text"]);
    }

    #[test]
    fn texts_and_bytes() {
        assert_eq!(told(StringViewArray::from(vec!["é"])), ["str é"]);
        assert_eq!(told(LargeStringArray::from(vec![Some("a"), None])), ["str a", "None "]);
        assert_eq!(told(LargeBinaryArray::from(vec![&b"\x01"[..]])), ["bytes 01"]);
        let dictionary: DictionaryArray<Int8Type> = vec![Some("x"), None, Some("x")].into_iter().collect();
        assert_eq!(told(dictionary), ["str x", "None ", "str x"]);
    }

    #[test]
    fn times() {
        let nanos = TimestampNanosecondArray::from(vec![1_000, -1_000, 1]);
        assert_eq!(
            told(nanos),
            [
                "datetime 1970-01-01T00:00:00.000001",
                "datetime 1969-12-31T23:59:59.999999",
                "! 1 ns is no whole number of microseconds, which is as fine as a time can be",
            ]
        );
        let zoned = |zone: &str| TimestampSecondArray::from(vec![1_750_000_000]).with_timezone(zone);
        assert_eq!(told(zoned("UTC")), ["datetime 2025-06-15T15:06:40+00:00"]);
        assert_eq!(told(zoned("-05:30")), ["datetime 2025-06-15T09:36:40-05:30"]);
        assert!(told(zoned("Nowhere/Here"))[0].contains("is not known"));
        assert_eq!(told(Date32Array::from(vec![-1])), ["date 1969-12-31"]);
        assert_eq!(told(Date32Array::from(vec![-800_000])), ["! a time outside the years 1 to 9999"]);
        assert_eq!(told(TimestampSecondArray::from(vec![i64::MAX])), ["! a time outside the years 1 to 9999"]);
        assert_eq!(told(Time32MillisecondArray::from(vec![86_399_999])), ["time 23:59:59.999000"]);
        assert_eq!(told(DurationMillisecondArray::from(vec![-1_500])), ["timedelta -1.5"]);
        assert!(told(IntervalYearMonthArray::from(vec![1]))[0].contains("cannot be kept"));
    }

    #[test]
    fn one_bad_row_is_told_once() {
        let bad = || Arc::new(TimestampNanosecondArray::from(vec![1_000, 1])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("a", bad()), ("b", bad())]).expect("valid");
        let (_, spoilt) = columns(&batch);
        assert_eq!(spoilt.len(), 1);
        assert!(spoilt[0].1.starts_with("column \"a\": 1 ns"));
    }
}
