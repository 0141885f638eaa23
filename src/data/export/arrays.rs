//! Columns as Arrow arrays of a united type.

use std::sync::Arc;

use arrow_array::builder::*;
use arrow_array::types::{ArrowPrimitiveType, *};
use arrow_array::{
    ArrayRef, Float64Array, Int64Array, ListArray, NullArray, PrimitiveArray, StructArray, new_null_array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer, i256};
use arrow_schema::{DataType, Field};

use super::ExportError;
use super::schema::Kind;
use crate::data::table::Column;
use crate::data::value::Value;

/// The array of a column; a missing column is null.
pub(super) fn build(name: &str, kind: &Kind, column: Option<&Column>, rows: usize) -> Result<ArrayRef, ExportError> {
    Ok(match (kind, column) {
        (_, None) => new_null_array(&kind.arrow(), rows),
        (Kind::Int, Some(Column::Int(a))) => Arc::new(a.clone()),
        (Kind::Float, Some(Column::Float(a))) => Arc::new(a.clone()),
        (Kind::Float, Some(Column::Int(a))) => Arc::new(a.unary::<_, Float64Type>(|v| v as f64)),
        (Kind::Bool, Some(Column::Bool(a))) => Arc::new(a.clone()),
        (Kind::Text, Some(Column::Text(a))) => Arc::new(a.clone()),
        (kind, Some(column)) => {
            let cells = (0..rows).map(|row| column.value(row).plain()).collect();
            from_values(kind, cells).map_err(|what| ExportError::Cell { column: name.to_string(), what })?
        }
    })
}

/// The array of some values of one kind; the error says what is wrong with one.
fn from_values(kind: &Kind, cells: Vec<Value>) -> Result<ArrayRef, String> {
    Ok(match kind {
        Kind::Null => Arc::new(NullArray::new(cells.len())),
        Kind::Bool => {
            let array: BooleanBuilder = filled(cells, |b: &mut BooleanBuilder, v| b.append_option(as_bool(v)));
            finish(array)
        }
        Kind::Int => Arc::new(cells.iter().map(as_int).collect::<Int64Array>()),
        Kind::Float => Arc::new(cells.iter().map(as_float).collect::<Float64Array>()),
        Kind::BigInt(0..=38) => Arc::new(
            primitive::<Decimal128Type>(&cells, |v| parsed(v, str::parse::<i128>))?.with_data_type(kind.arrow()),
        ),
        Kind::BigInt(_) => Arc::new(
            primitive::<Decimal256Type>(&cells, |v| parsed(v, |t| i256::from_string(t).ok_or(())))?
                .with_data_type(kind.arrow()),
        ),
        Kind::Text | Kind::Json | Kind::Any => {
            finish(filled(cells, |b: &mut StringBuilder, v| b.append_option(is_there(v).then(|| v.to_string()))))
        }
        Kind::Bytes => finish(filled(cells, |b: &mut BinaryBuilder, v| match v {
            Value::Bytes(bytes) => b.append_value(bytes),
            _ => b.append_null(),
        })),
        Kind::DateTime { .. } => Arc::new(
            primitive::<TimestampMicrosecondType>(&cells, |v| parsed(v, date_time))?.with_data_type(kind.arrow()),
        ),
        Kind::Date => Arc::new(primitive::<Date32Type>(&cells, |v| parsed(v, date))?),
        Kind::Time => Arc::new(primitive::<Time64MicrosecondType>(&cells, |v| parsed(v, time))?),
        Kind::Duration => Arc::new(primitive::<DurationMicrosecondType>(&cells, |v| parsed(v, duration))?),
        Kind::List(items) => list(items, cells)?,
        Kind::Struct(fields) => structure(fields, cells)?,
    })
}

fn filled<B: Default>(cells: Vec<Value>, append: impl Fn(&mut B, &Value)) -> B {
    let mut builder = B::default();
    cells.iter().for_each(|v| append(&mut builder, v));
    builder
}

fn finish(mut builder: impl ArrayBuilder) -> ArrayRef {
    ArrayBuilder::finish(&mut builder)
}

fn primitive<T: ArrowPrimitiveType>(
    cells: &[Value],
    read: impl Fn(&Value) -> Result<T::Native, String>,
) -> Result<PrimitiveArray<T>, String> {
    let cell = |v: &Value| if is_there(v) { read(v).map(Some) } else { Ok(None) };
    Ok(PrimitiveArray::from_iter(cells.iter().map(cell).collect::<Result<Vec<_>, _>>()?))
}

fn is_there(v: &Value) -> bool {
    !matches!(v, Value::Null | Value::Absent)
}

fn as_bool(v: &Value) -> Option<bool> {
    if let Value::Bool(v) = v { Some(*v) } else { None }
}

fn as_int(v: &Value) -> Option<i64> {
    if let Value::Int(v) = v { Some(*v) } else { None }
}

fn as_float(v: &Value) -> Option<f64> {
    match v {
        Value::Float(v) => Some(*v),
        Value::Int(v) => Some(*v as f64),
        Value::BigInt(digits) => digits.parse().ok(),
        _ => None,
    }
}

fn parsed<T, E>(v: &Value, read: impl Fn(&str) -> Result<T, E>) -> Result<T, String> {
    let text = v.to_string();
    read(&text).map_err(|_| format!("the {} {text}, which the format cannot hold", v.type_name()))
}

fn date_time(text: &str) -> Result<i64, jiff::Error> {
    let pieces = jiff::fmt::temporal::Pieces::parse(text)?;
    let local = pieces.date().to_datetime(pieces.time().unwrap_or_default());
    let offset = pieces.to_numeric_offset().map_or(0, |o| i64::from(o.seconds()));
    let since_epoch = local.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0));
    Ok(since_epoch.as_micros() as i64 - offset * 1_000_000)
}

fn date(text: &str) -> Result<i32, jiff::Error> {
    let date: jiff::civil::Date = text.parse()?;
    Ok(jiff::civil::date(1970, 1, 1).until(date)?.get_days())
}

fn time(text: &str) -> Result<i64, jiff::Error> {
    let time: jiff::civil::Time = text.parse()?;
    let seconds = (i64::from(time.hour()) * 60 + i64::from(time.minute())) * 60 + i64::from(time.second());
    Ok(seconds * 1_000_000 + i64::from(time.subsec_nanosecond() / 1000))
}

/// Seconds with up to six decimals, in microseconds.
fn duration(text: &str) -> Result<i64, ()> {
    let (sign, body) = match text.strip_prefix('-') {
        Some(body) => (-1, body),
        None => (1, text),
    };
    let (whole, part) = body.split_once('.').unwrap_or((body, ""));
    let micros = format!("{whole}{part:0<6}");
    if part.len() > 6 || !micros.bytes().all(|b| b.is_ascii_digit()) {
        return Err(());
    }
    micros.parse::<i64>().map(|v| sign * v).map_err(|_| ())
}

fn list(items: &Kind, cells: Vec<Value>) -> Result<ArrayRef, String> {
    let valid = NullBuffer::from_iter(cells.iter().map(is_there));
    let mut lengths = Vec::with_capacity(cells.len());
    let mut all = Vec::new();
    for cell in cells {
        let before = all.len();
        if let Value::List(values) = cell {
            all.extend(values.into_iter().map(Value::plain));
        }
        lengths.push(all.len() - before);
    }
    let field = Arc::new(Field::new_list_field(items.arrow(), true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    let array = ListArray::try_new(field, offsets, from_values(items, all)?, Some(valid));
    array.map(|a| Arc::new(a) as ArrayRef).map_err(|e| e.to_string())
}

fn structure(fields: &[(String, Kind)], mut cells: Vec<Value>) -> Result<ArrayRef, String> {
    let valid = NullBuffer::from_iter(cells.iter().map(is_there));
    let mut columns = Vec::with_capacity(fields.len());
    for (name, kind) in fields {
        let take = |cell: &mut Value| match cell {
            Value::Map(entries) => match entries.iter_mut().find(|(k, _)| k == name) {
                Some((_, v)) => std::mem::replace(v, Value::Null).plain(),
                None => Value::Null,
            },
            _ => Value::Null,
        };
        columns.push(from_values(kind, cells.iter_mut().map(take).collect())?);
    }
    let arrow = Kind::Struct(fields.to_vec()).arrow();
    let DataType::Struct(fields) = arrow else { unreachable!("a struct's type") };
    let array = StructArray::try_new_with_length(fields, columns, Some(valid), cells.len());
    array.map(|a| Arc::new(a) as ArrayRef).map_err(|e| e.to_string())
}
