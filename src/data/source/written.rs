//! Rows that stand in the workflow itself: `values:` and `range:`.

use std::ops::Range;

use super::{Limits, ReadBatch, SourceError, SourceReader};
use crate::data::table::{Column, Table};
use crate::data::value::Value;

/// Rows written in place.
pub fn values(rows: Vec<Vec<(String, Value)>>, limits: Limits) -> SourceReader {
    let len = rows.len();
    let mut rows = rows.into_iter();
    SourceReader::new(spans(len as u64, limits).map(move |span| {
        let count = (span.end - span.start) as usize;
        Ok(batch(span, Table::from_rows(rows.by_ref().take(count))))
    }))
}

/// `start, start + step, …` up to but without `stop`; made as it is read.
pub fn range(
    source_name: &str,
    start: &Value,
    stop: &Value,
    step: &Value,
    limits: Limits,
) -> Result<SourceReader, SourceError> {
    let numbers = Numbers::new(source_name, start, stop, step)?;
    let spans = spans(numbers.len(), limits);
    Ok(SourceReader::new(spans.map(move |span| Ok(batch(span.clone(), one_column(numbers.column(span)))))))
}

/// The numbers of a range.
#[derive(Debug)]
pub(super) enum Numbers {
    Int { start: i128, step: i128, len: u64 },
    Float { start: f64, step: f64, len: u64 },
}

impl Numbers {
    pub(super) fn new(source_name: &str, start: &Value, stop: &Value, step: &Value) -> Result<Numbers, SourceError> {
        let wrong =
            |what: &str| SourceError::Definition { source_name: source_name.to_string(), what: what.to_string() };
        let zero = || wrong("the step of a range must not be 0");
        if let (Value::Int(start), Value::Int(stop), Value::Int(step)) = (start, stop, step) {
            let (start, stop, step) = (i128::from(*start), i128::from(*stop), i128::from(*step));
            return Ok(Numbers::Int { start, step, len: int_len(start, stop, step).ok_or_else(zero)? });
        }
        let number = |v: &Value| match v {
            Value::Int(v) => Ok(*v as f64),
            Value::Float(v) if v.is_finite() => Ok(*v),
            _ => Err(wrong("start, stop and step of a range must be numbers")),
        };
        let (start, stop, step) = (number(start)?, number(stop)?, number(step)?);
        if step == 0.0 {
            return Err(zero());
        }
        Ok(Numbers::Float { start, step, len: ((stop - start) / step).ceil().max(0.0) as u64 })
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Numbers::Int { len, .. } | Numbers::Float { len, .. } => *len,
        }
    }

    /// The numbers at these places.
    pub(super) fn column(&self, places: impl Iterator<Item = u64>) -> Column {
        match *self {
            Numbers::Int { start, step, .. } => {
                Column::Int(places.map(|i| (start + i128::from(i) * step) as i64).collect())
            }
            Numbers::Float { start, step, .. } => Column::Float(places.map(|i| start + i as f64 * step).collect()),
        }
    }
}

fn int_len(start: i128, stop: i128, step: i128) -> Option<u64> {
    let distance = if step > 0 { stop - start } else { start - stop };
    let len = distance.max(0).checked_add(step.abs() - 1)?.checked_div(step.abs())?;
    Some(len as u64)
}

fn one_column(column: Column) -> Table {
    let rows = column.len();
    Table::new(["value".into()].into(), vec![column], rows)
}

fn spans(len: u64, limits: Limits) -> impl Iterator<Item = Range<u64>> + Send {
    let step = limits.rows as u64;
    (0..len.div_ceil(step)).map(move |i| i * step..((i + 1) * step).min(len))
}

fn batch(rows: Range<u64>, table: Table) -> ReadBatch {
    ReadBatch { rows: rows.collect(), table, bad: Vec::new(), bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(rows: usize) -> Limits {
        Limits { rows, bytes: usize::MAX }
    }

    fn read(reader: SourceReader) -> Vec<Value> {
        let mut values = Vec::new();
        for batch in reader {
            let batch = batch.expect("good");
            assert_eq!(
                batch.rows,
                (values.len() as u64..values.len() as u64 + batch.rows.len() as u64).collect::<Vec<_>>()
            );
            values.extend((0..batch.table.rows()).map(|r| batch.table.columns()[0].value(r)));
        }
        values
    }

    fn ints(start: i64, stop: i64, step: i64) -> Vec<Value> {
        read(range("r", &Value::Int(start), &Value::Int(stop), &Value::Int(step), limits(3)).expect("good"))
    }

    #[test]
    fn integer_ranges_are_pythons() {
        assert_eq!(ints(0, 7, 2), [0, 2, 4, 6].map(Value::Int));
        assert_eq!(ints(5, 0, -2), [5, 3, 1].map(Value::Int));
        assert!(ints(0, -1, 1).is_empty());
        assert_eq!(ints(i64::MIN, i64::MAX, i64::MAX), [i64::MIN, -1, i64::MAX - 1].map(Value::Int));
    }

    #[test]
    fn float_steps_do_not_add_up_errors() {
        let step = Value::Float(0.1);
        let read = read(range("r", &Value::Int(0), &Value::Int(1), &step, limits(4)).expect("good"));
        assert_eq!(read, (0..10).map(|i| Value::Float(f64::from(i) * 0.1)).collect::<Vec<_>>());
    }

    #[test]
    fn a_step_of_zero_is_refused() {
        for zero in [Value::Int(0), Value::Float(0.0)] {
            assert!(range("r", &Value::Int(0), &Value::Int(1), &zero, limits(4)).is_err());
        }
    }

    #[test]
    fn a_huge_range_is_lazy() {
        let mut reader = range("r", &Value::Int(0), &Value::Int(i64::MAX), &Value::Int(1), limits(10)).expect("good");
        assert_eq!(reader.next().expect("some").expect("good").rows.len(), 10);
    }

    #[test]
    fn values_keep_their_order_and_types() {
        let rows =
            [1.into(), 2.5.into(), "x".into()].map(|v: serde_json::Value| vec![("value".into(), Value::from_json(v))]);
        let expected = [Value::Int(1), Value::Float(2.5), Value::Text("x".into())];
        assert_eq!(read(values(rows.to_vec(), limits(2))), expected);
    }
}
