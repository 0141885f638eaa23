use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::data::source::testing::{Folder, all_rows};
use crate::data::source::{self, SourceError};
use crate::data::value::strategy::any_value;
use crate::data::{TimeKind, Value};
use crate::diagnostic::Span;
use crate::spec::model::{CellType, Reader, Source, TextOptions};

/// A sink whose bytes can be looked at.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("one thread").extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn written(format: ExportFormat, tables: &[Table]) -> Result<Vec<u8>, ExportError> {
    let sink = Memory::default();
    write_all(format, tables, Box::new(sink.clone()))?;
    let bytes = sink.0.lock().expect("one thread").clone();
    Ok(bytes)
}

fn text(format: ExportFormat, tables: &[Table]) -> String {
    String::from_utf8(written(format, tables).expect("fits")).expect("text")
}

fn column(values: impl IntoIterator<Item = Value>) -> Table {
    Table::from_rows(values.into_iter().map(|v| vec![("x".to_string(), v)]))
}

fn read(format: Format, bytes: &[u8], schema: &[(&str, CellType)]) -> Result<Vec<Vec<(String, Value)>>, SourceError> {
    let folder = Folder::with(&[("file", bytes)]);
    let schema = schema.iter().map(|(n, t)| (n.to_string(), *t)).collect();
    let text = TextOptions { schema, ..TextOptions::default() };
    let reader = Reader::Files { format, paths: vec!["file".into()], text };
    let source = Source { name: "s".into(), reader, key: Vec::new(), span: Span::default() };
    let batches = source::open(&source, folder.path(), Some(7), None)?.collect::<Result<Vec<_>, _>>()?;
    assert!(batches.iter().all(|b| b.bad.is_empty() && b.len() <= 7), "{batches:?}");
    Ok(all_rows(&batches))
}

fn clash(values: impl IntoIterator<Item = Value>) -> String {
    written(ExportFormat::Parquet, &[column(values)]).expect_err("a clash").to_string()
}

#[test]
fn csv_quotes_and_unites_numbers() {
    let table = Table::from_rows([
        vec![("a".to_string(), Value::Int(1)), ("b,".into(), Value::Text("x \"y\"\nz".into()))],
        vec![("a".into(), Value::Float(0.1)), ("c".into(), Value::List(vec![Value::Int(1), Value::Null]))],
    ]);
    assert_eq!(text(ExportFormat::Csv, &[table]), "a,\"b,\",c\n1.0,\"x \"\"y\"\"\nz\",\n0.1,,\"[1,null]\"\n");
    assert_eq!(text(ExportFormat::Tsv, &[column([Value::Null, Value::Bool(true)])]), "x\n\"\"\ntrue\n");
    assert_eq!(text(ExportFormat::Csv, &[]), "");
}

#[test]
fn jsonl_has_all_columns_in_all_lines() {
    let table = Table::from_rows([
        vec![("a".to_string(), Value::Float(f64::NAN))],
        vec![("b".into(), Value::Bytes(vec![1, 255])), ("a".into(), Value::Text("é\u{1}\"".into()))],
    ]);
    assert_eq!(
        text(ExportFormat::Jsonl, &[table]),
        "{\"a\":NaN,\"b\":null}\n{\"a\":\"é\\u0001\\\"\",\"b\":\"01ff\"}\n"
    );
}

#[test]
fn clashes_are_told_with_rows_and_the_way_out() {
    assert_eq!(
        clash([Value::Null, Value::Int(1), Value::Text("a".into())]),
        "column \"x\" holds int in row 1 and str in row 2, which have no common type: make them one in the stage, \
         leave the column out with `columns:`, or export as jsonl"
    );
    assert!(
        clash([Value::Int((1 << 53) + 1), Value::Float(1.0)]).contains("an int that no float holds exactly in row 0")
    );
    assert!(clash([Value::Bool(true), Value::Int(1)]).contains("bool in row 0 and int in row 1"));
    let time = |text: &str| Value::Time(TimeKind::DateTime, text.into());
    let mixed = clash([time("2026-01-01T00:00:00"), time("2026-01-01T00:00:00+00:00")]);
    assert!(mixed.contains("without offset in row 0 and datetime with offset in row 1"), "{mixed}");
    let nested = clash([Value::List(vec![Value::Int(1), Value::Text("a".into())])]);
    assert!(nested.contains("column \"x[]\""), "{nested}");
    assert!(clash([Value::BigInt("9".repeat(80))]).contains("80 digits"));
}

#[test]
fn a_clash_may_be_in_two_tables_and_in_a_column_left_out() {
    let tables = [column([Value::Int(1)]), column([Value::Text("a".into())])];
    assert!(written(ExportFormat::Csv, &tables).is_err());
    let mut schema = Schema::of_columns(&["y".to_string()]);
    tables.iter().for_each(|t| schema.observe(t));
    let error = schema.finish(ExportFormat::Csv).expect_err("nowhere").to_string();
    assert_eq!(error, "there is no column \"y\" to export");
    let mut schema = Schema::of_columns(&["b".to_string()]);
    schema.observe(&Table::from_rows([vec![("a".to_string(), Value::Int(1)), ("b".into(), Value::Int(2))]]));
    assert_eq!(schema.finish(ExportFormat::Csv).expect("fits").columns().len(), 1);
}

#[test]
fn every_type_comes_back_from_parquet_and_arrow() {
    let time = |kind, text: &str| Value::Time(kind, text.into());
    let map = |entries: &[(&str, Value)]| Value::Map(entries.iter().map(|(k, v)| (k.to_string(), v.clone())).collect());
    let columns = [
        vec![Value::Int(i64::MIN), Value::Int(i64::MAX)],
        vec![Value::BigInt("-12345678901234567890123456789012345678".into()), Value::Int(1)],
        vec![Value::BigInt("9".repeat(76)), Value::BigInt(format!("-{}", "9".repeat(50)))],
        vec![Value::Float(-0.0), Value::Float(f64::INFINITY)],
        vec![Value::Bool(true), Value::Null],
        vec![Value::Text(String::new()), Value::Text("é".into())],
        vec![Value::Bytes(vec![]), Value::Bytes(vec![0, 255])],
        vec![time(TimeKind::DateTime, "2026-01-31T12:00:00.000001"), time(TimeKind::DateTime, "0001-01-01T00:00:00")],
        vec![time(TimeKind::DateTime, "2026-01-31T12:00:00+00:00"), Value::Null],
        vec![time(TimeKind::Date, "9999-12-31"), time(TimeKind::Date, "1969-12-31")],
        vec![time(TimeKind::Time, "23:59:59.999999"), time(TimeKind::Time, "00:00:00")],
        vec![time(TimeKind::Duration, "-1.5"), time(TimeKind::Duration, "86400")],
        vec![Value::List(vec![Value::Float(1.5), Value::Null]), Value::List(vec![])],
        vec![map(&[("a", Value::Int(1)), ("b", Value::List(vec![Value::Text("x".into())]))]), Value::Null],
        vec![Value::Null, Value::Null],
    ];
    let names: Vec<String> = (0..columns.len()).map(|i| format!("c{i}")).collect();
    let rows: Vec<Vec<(String, Value)>> =
        (0..2).map(|r| names.iter().cloned().zip(columns.iter().map(|c| c[r].clone())).collect()).collect();
    let table = Table::from_rows(rows.clone());
    for (export, format) in [(ExportFormat::Parquet, Format::Parquet), (ExportFormat::Arrow, Format::Arrow)] {
        let bytes = written(export, std::slice::from_ref(&table)).expect("fits");
        let back = read(format, &bytes, &[]).expect("readable");
        for (wrote, got) in rows.iter().flatten().zip(back.iter().flatten()) {
            assert_eq!(wrote, got, "{format:?}");
        }
    }
}

#[test]
fn large_batches_are_read_in_pieces() {
    let table = column((0..100).map(Value::Int));
    for (export, format) in [(ExportFormat::Parquet, Format::Parquet), (ExportFormat::Arrow, Format::Arrow)] {
        let bytes = written(export, &[table.clone(), table.clone()]).expect("fits");
        let back = read(format, &bytes, &[]).expect("readable");
        let expected: Vec<_> = (0..100).chain(0..100).map(Value::Int).collect();
        assert_eq!(back.into_iter().map(|r| r[0].1.clone()).collect::<Vec<_>>(), expected);
        assert!(read(format, &bytes[..bytes.len() / 2], &[]).is_err(), "half a file");
        assert!(read(format, b"", &[]).is_err());
    }
}

/// Columns each of which has one type, nulls in between.
fn any_typed_column(rows: usize) -> impl Strategy<Value = Vec<Value>> {
    let of = move |value: BoxedStrategy<Value>| {
        let cell = prop_oneof![4 => value, 1 => Just(Value::Null)];
        prop::collection::vec(cell, rows).boxed()
    };
    let int = any::<i64>().prop_map(Value::Int).boxed();
    let float = any::<f64>().prop_map(Value::Float).boxed();
    let text = ".{1,9}".prop_map(Value::Text).boxed();
    let list = prop::collection::vec(any::<i32>().prop_map(|v| Value::Int(v.into())), 0..4).prop_map(Value::List);
    prop_oneof![
        of(int),
        of(float),
        of(text),
        of(any::<bool>().prop_map(Value::Bool).boxed()),
        of(list.boxed()),
        of(prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes).boxed()),
    ]
}

fn any_typed_rows() -> impl Strategy<Value = Vec<Vec<(String, Value)>>> {
    (1usize..20).prop_flat_map(|rows| prop::collection::vec(any_typed_column(rows), 1..5)).prop_map(|columns| {
        let cell = |(i, c): (usize, &Vec<Value>), row: usize| (format!("c{i}"), c[row].clone());
        (0..columns[0].len()).map(|row| columns.iter().enumerate().map(|c| cell(c, row)).collect()).collect()
    })
}

proptest! {
    #[test]
    fn typed_formats_give_back_what_they_were_given(rows in any_typed_rows(), cut in 0usize..20) {
        let table = Table::from_rows(rows.clone());
        let cut = cut.min(table.rows());
        let parts = [table.slice(0, cut), table.slice(cut, table.rows() - cut)];
        for (export, format) in [(ExportFormat::Parquet, Format::Parquet), (ExportFormat::Arrow, Format::Arrow)] {
            let bytes = written(export, &parts).expect("fits");
            prop_assert_eq!(&read(format, &bytes, &[]).expect("readable"), &rows);
        }
    }

    #[test]
    fn csv_gives_back_numbers_and_text(cells in prop::collection::vec((any::<i64>(), any::<f64>(), "[ -~é\n\"]{0,8}"), 1..20)) {
        let row = |(i, f, t): (i64, f64, String)| vec![("i".to_string(), Value::Int(i)), ("f".into(), Value::Float(f)), ("t".into(), Value::Text(t))];
        let rows: Vec<_> = cells.into_iter().map(row).collect();
        let bytes = written(ExportFormat::Csv, &[Table::from_rows(rows.clone())]).expect("fits");
        prop_assert_eq!(read(Format::Csv, &bytes, &[("t", CellType::Text)]).expect("readable"), rows);
    }

    #[test]
    fn jsonl_gives_back_what_json_can_hold(value in any_value()) {
        let bytes = written(ExportFormat::Jsonl, &[column([value.clone()])]).expect("fits");
        let back = read(Format::Jsonl, &bytes, &[]).expect("readable");
        prop_assert_eq!(&back[0][0].1, &crate::data::json::parse(&crate::data::json::text(&value)).expect("valid"));
    }

    #[test]
    fn no_value_is_too_odd(values in prop::collection::vec(any_value(), 0..6)) {
        for (_, format) in ExportFormat::NAMES {
            let _ = written(format, &[column(values.clone())]);
        }
    }
}
