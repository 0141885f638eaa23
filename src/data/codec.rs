//! The compact binary form of a [`Table`], as the store and the wire hold it (uncompressed).
//!
//! ```text
//! version u8 | rows varint | columns varint | per column: name (varint length, bytes), kind u8,
//!     validity bitmap if the kind says so, then
//!     int, float: 8 bytes a row, little-endian | bool: a bitmap | text, cells: a length a row, then the bytes
//! ```
//! Lengths take one, two or four bytes each, as the longest needs. Reading checks every length against what is
//! there before anything is allocated: damaged bytes give [`DamagedTable`], never a panic.

use std::sync::Arc;

use arrow_array::types::ByteArrayType;
use arrow_array::{Array, BinaryArray, BooleanArray, Float64Array, GenericByteArray, Int64Array, StringArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use super::table::{Column, Table};

const VERSION: u8 = 1;

const INT: u8 = 0;
const FLOAT: u8 = 1;
const BOOL: u8 = 2;
const TEXT: u8 = 3;
const CELLS: u8 = 4;
const KIND: u8 = 0x0f;
/// A validity bitmap follows.
const NULLS: u8 = 0x10;
/// Where the kind byte holds log2 of the width of lengths.
const WIDTH_SHIFT: u8 = 5;

/// The bytes are no table: the store or a frame is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged table")]
pub struct DamagedTable;

/// Appends the binary form of `table`.
pub fn write_table(table: &Table, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_varint(out, table.rows() as u64);
    put_varint(out, table.columns().len() as u64);
    for (name, column) in table.names().iter().zip(table.columns()) {
        put_varint(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        write_column(column, out);
    }
}

fn write_column(column: &Column, out: &mut Vec<u8>) {
    match column {
        Column::Int(a) => {
            put_head(out, INT, a.nulls());
            out.reserve(a.len() * 8);
            a.values().iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        }
        Column::Float(a) => {
            put_head(out, FLOAT, a.nulls());
            out.reserve(a.len() * 8);
            a.values().iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        }
        Column::Bool(a) => {
            put_head(out, BOOL, a.nulls());
            put_bits(out, a.values());
        }
        Column::Text(a) => put_bytes(out, TEXT, a),
        Column::Cells(a) => put_bytes(out, CELLS, a),
    }
}

fn put_head(out: &mut Vec<u8>, kind: u8, nulls: Option<&NullBuffer>) {
    match nulls.filter(|n| n.null_count() > 0) {
        None => out.push(kind),
        Some(nulls) => {
            out.push(kind | NULLS);
            put_bits(out, nulls.inner());
        }
    }
}

fn put_bits(out: &mut Vec<u8>, bits: &BooleanBuffer) {
    let packed = bits.sliced();
    out.extend_from_slice(&packed.as_slice()[..bits.len().div_ceil(8)]);
    if let (Some(last), used @ 1..) = (out.last_mut(), bits.len() % 8) {
        *last &= (1 << used) - 1;
    }
}

fn put_bytes<T: ByteArrayType<Offset = i32>>(out: &mut Vec<u8>, kind: u8, array: &GenericByteArray<T>) {
    let offsets = array.value_offsets();
    let lengths = || offsets.windows(2).map(|w| (w[1] - w[0]) as u32);
    let width = match lengths().max().unwrap_or(0) {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        _ => 2,
    };
    put_head(out, kind | (width << WIDTH_SHIFT), array.nulls());
    out.reserve(array.len() << width);
    lengths().for_each(|n| out.extend_from_slice(&n.to_le_bytes()[..1 << width]));
    out.extend_from_slice(&array.value_data()[offsets[0] as usize..offsets[array.len()] as usize]);
}

/// Reads one table from the front of `rest`, and moves it behind.
pub fn read_table(rest: &mut &[u8]) -> Result<Table, DamagedTable> {
    if take(rest, 1)?[0] != VERSION {
        return Err(DamagedTable);
    }
    let rows = take_usize(rest)?;
    let count = take_usize(rest)?;
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut columns = Vec::new();
    for _ in 0..count {
        let name_len = take_usize(rest)?;
        let name = std::str::from_utf8(take(rest, name_len)?).map_err(|_| DamagedTable)?;
        names.push(name.into());
        columns.push(read_column(rest, rows)?);
    }
    Ok(Table::new(names.into(), columns, rows))
}

fn read_column(rest: &mut &[u8], rows: usize) -> Result<Column, DamagedTable> {
    let head = take(rest, 1)?[0];
    let nulls = match head & NULLS {
        0 => None,
        _ => Some(NullBuffer::new(take_bits(rest, rows)?)),
    };
    let width = head >> WIDTH_SHIFT;
    Ok(match head & KIND {
        INT => Column::Int(Int64Array::new(take_numbers(rest, rows, i64::from_le_bytes)?, nulls)),
        FLOAT => Column::Float(Float64Array::new(take_numbers(rest, rows, f64::from_le_bytes)?, nulls)),
        BOOL => Column::Bool(BooleanArray::new(take_bits(rest, rows)?, nulls)),
        TEXT => {
            let (offsets, data) = take_bytes(rest, rows, width)?;
            Column::Text(StringArray::try_new(offsets, data, nulls).map_err(|_| DamagedTable)?)
        }
        CELLS if nulls.is_none() => {
            let (offsets, data) = take_bytes(rest, rows, width)?;
            Column::Cells(BinaryArray::try_new(offsets, data, None).map_err(|_| DamagedTable)?)
        }
        _ => return Err(DamagedTable),
    })
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], DamagedTable> {
    let (head, tail) = rest.split_at_checked(n).ok_or(DamagedTable)?;
    *rest = tail;
    Ok(head)
}

fn take_bits(rest: &mut &[u8], rows: usize) -> Result<BooleanBuffer, DamagedTable> {
    let bytes = take(rest, rows.div_ceil(8))?;
    Ok(BooleanBuffer::new(Buffer::from(bytes), 0, rows))
}

fn take_numbers<T: arrow_buffer::ArrowNativeType>(
    rest: &mut &[u8],
    rows: usize,
    number: impl Fn([u8; 8]) -> T,
) -> Result<ScalarBuffer<T>, DamagedTable> {
    let bytes = take(rest, rows.checked_mul(8).ok_or(DamagedTable)?)?;
    let (chunks, _) = bytes.as_chunks::<8>();
    Ok(chunks.iter().map(|c| number(*c)).collect::<Vec<T>>().into())
}

fn take_bytes(rest: &mut &[u8], rows: usize, width: u8) -> Result<(OffsetBuffer<i32>, Buffer), DamagedTable> {
    if width > 2 {
        return Err(DamagedTable);
    }
    let bytes = take(rest, rows.checked_mul(1 << width).ok_or(DamagedTable)?)?;
    let mut offsets = Vec::with_capacity(rows + 1);
    let mut end = 0i32;
    offsets.push(end);
    for length in bytes.chunks_exact(1 << width) {
        let mut wide = [0; 4];
        wide[..length.len()].copy_from_slice(length);
        let length = i32::try_from(u32::from_le_bytes(wide)).map_err(|_| DamagedTable)?;
        end = end.checked_add(length).ok_or(DamagedTable)?;
        offsets.push(end);
    }
    let data = take(rest, end as usize)?;
    Ok((OffsetBuffer::new(offsets.into()), Buffer::from(data)))
}

fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn take_usize(rest: &mut &[u8]) -> Result<usize, DamagedTable> {
    let mut v = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = take(rest, 1)?[0];
        v |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(v).map_err(|_| DamagedTable);
        }
    }
    Err(DamagedTable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::Value;
    use crate::data::value::strategy::any_value;

    fn written(table: &Table) -> Vec<u8> {
        let mut out = Vec::new();
        write_table(table, &mut out);
        out
    }

    fn assert_same(a: &Table, b: &Table) {
        assert_eq!(a.names(), b.names());
        assert_eq!(a.rows(), b.rows());
        for row in 0..a.rows() {
            assert_eq!(a.row(row), b.row(row));
        }
        let kinds = |t: &Table| t.columns().iter().map(std::mem::discriminant).collect::<Vec<_>>();
        assert_eq!(kinds(a), kinds(b));
    }

    fn any_table() -> impl Strategy<Value = Table> {
        let column = |rows| {
            prop_oneof![
                prop::collection::vec(
                    prop::option::of(any::<i64>()).prop_map(|v| v.map_or(Value::Null, Value::Int)),
                    rows
                ),
                prop::collection::vec(any::<f64>().prop_map(Value::Float), rows),
                prop::collection::vec(
                    prop::option::of(any::<bool>()).prop_map(|v| v.map_or(Value::Null, Value::Bool)),
                    rows
                ),
                prop::collection::vec(
                    prop::option::of(".{0,300}").prop_map(|v| v.map_or(Value::Null, Value::Text)),
                    rows
                ),
                prop::collection::vec(any_value(), rows),
            ]
        };
        (0usize..40).prop_flat_map(move |rows| {
            prop::collection::vec(column(rows), 0..5).prop_map(move |columns| {
                let names = (0..columns.len()).map(|i| Arc::from(format!("c{i}"))).collect();
                Table::new(names, columns.into_iter().map(Column::from_values).collect(), rows)
            })
        })
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(table in any_table(), cut in 0.0f64..1.0, keep in 0.0f64..1.0) {
            let bytes = written(&table);
            let mut rest = &bytes[..];
            assert_same(&table, &read_table(&mut rest).expect("whole"));
            prop_assert!(rest.is_empty());
            let from = (table.rows() as f64 * cut) as usize;
            let slice = table.slice(from, ((table.rows() - from) as f64 * keep) as usize);
            assert_same(&slice, &read_table(&mut &written(&slice)[..]).expect("whole"));
        }

        #[test]
        fn damage_never_panics(
            table in any_table(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = written(&table);
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
                if let Ok(read) = read_table(&mut &bytes[..]) {
                    (0..read.rows().min(100)).for_each(|row| drop(read.row(row)));
                }
            }
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_table(&mut &bytes[..]);
            let _ = read_table(&mut &[&[VERSION], &bytes[..]].concat()[..]);
        }
    }

    #[test]
    fn small_tables_are_small() {
        let table =
            Table::from_rows([vec![("y".to_string(), Value::Int(4)), ("name".to_string(), Value::Text("ab".into()))]]);
        assert!(written(&table).len() <= 24, "{} bytes", written(&table).len());
    }

    #[test]
    fn truncated_tables_are_damaged() {
        let table = Table::from_rows([vec![("y".to_string(), Value::Text("some text".into()))]]);
        let bytes = written(&table);
        for n in 0..bytes.len() {
            assert!(read_table(&mut &bytes[..n]).is_err(), "{n} of {} bytes", bytes.len());
        }
    }
}
