//! `jsonl:`: an object per line; blank lines are passed over.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use super::error::SourceError;
use super::files::{self, SourceFile};
use super::infer::given;
use super::lines::without_end;
use super::{Counter, Limits, ReadBatch, SourceReader, Surroundings, bad_row, input};
use crate::data::json;
use crate::data::table::TableBuilder;
use crate::data::value::Value;
use crate::spec::model::{CellType, TextOptions};

/// Opens a source of JSON lines.
pub(super) fn open(
    source_name: &str,
    paths: &[String],
    text: &TextOptions,
    around: &Surroundings,
    limits: Limits,
) -> Result<SourceReader, SourceError> {
    let files = files::expand(source_name, paths, around)?;
    let total = files.iter().map(|f| f.size).sum();
    let lines = JsonLines {
        source_name: source_name.into(),
        schema: text.schema.clone(),
        files: files.into_iter(),
        current: None,
        next_row: 0,
        limits,
        counter: Counter::default(),
    };
    Ok(SourceReader { total_bytes: Some(total), ..SourceReader::new(lines) })
}

struct JsonLines {
    source_name: String,
    schema: BTreeMap<String, CellType>,
    files: std::vec::IntoIter<SourceFile>,
    current: Option<JsonFile>,
    next_row: u64,
    limits: Limits,
    counter: Counter,
}

struct JsonFile {
    reader: BufReader<Box<dyn Read + Send>>,
    shown: String,
    line: u64,
}

impl JsonLines {
    /// Reads the next line that is not blank, from whatever file it is in.
    fn next_line(&mut self, line: &mut Vec<u8>) -> Result<bool, SourceError> {
        loop {
            let Some(file) = &mut self.current else {
                let Some(file) = self.files.next() else { return Ok(false) };
                let bytes = input::open_text(&self.source_name, &file, &self.counter)?;
                let reader = BufReader::with_capacity(256 << 10, bytes);
                self.current = Some(JsonFile { reader, shown: file.shown, line: 0 });
                continue;
            };
            line.clear();
            let read = file.reader.read_until(b'\n', line);
            let io = |cause| SourceError::Io { source_name: self.source_name.clone(), path: file.shown.clone(), cause };
            if read.map_err(io)? == 0 {
                self.current = None;
                continue;
            }
            file.line += 1;
            if !line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn read_batch(&mut self) -> Result<Option<ReadBatch>, SourceError> {
        let mut table = TableBuilder::default();
        let (mut rows, mut bad, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut line = Vec::new();
        while rows.len() + bad.len() < self.limits.rows && bytes < self.limits.bytes && self.next_line(&mut line)? {
            bytes += line.len();
            match read_row(&line, &self.schema) {
                Ok(row) => {
                    table.push_row(row.iter().map(|(n, v)| (&**n, v)));
                    rows.push(self.next_row);
                }
                Err(what) => {
                    let place = self.current.as_ref().map(|f| format!("{}:{}", f.shown, f.line)).unwrap_or_default();
                    bad.push((self.next_row, bad_row(format!("{place}: {what}"))));
                }
            }
            self.next_row += 1;
        }
        let batch = ReadBatch { rows, table: table.finish(), bad, bytes: self.counter.take() };
        Ok((!batch.is_empty()).then_some(batch))
    }
}

type Row<'a> = Vec<(std::borrow::Cow<'a, str>, Value)>;

fn read_row<'a>(line: &'a [u8], schema: &BTreeMap<String, CellType>) -> Result<Row<'a>, String> {
    let text = std::str::from_utf8(without_end(line)).map_err(|_| "not valid UTF-8".to_string())?;
    let mut row = json::parse_object(text).map_err(|e| e.to_string())?;
    if !schema.is_empty() {
        for (name, value) in &mut row {
            let Some(kind) = schema.get(&**name) else { continue };
            let found = std::mem::replace(value, Value::Null);
            *value = convert(*kind, found)
                .map_err(|(found, what)| format!("column {name:?}: {} is not {what}", found.to_json()))?;
        }
    }
    Ok(row)
}

/// A value as the type that `schema:` gives; texts are read as cells of a CSV file are.
fn convert(kind: CellType, found: Value) -> Result<Value, (Value, &'static str)> {
    match (kind, found) {
        (_, Value::Null) => Ok(Value::Null),
        (_, Value::Text(text)) => given(kind, &text).map_err(|what| (Value::Text(text), what)),
        (CellType::Int, v @ (Value::Int(_) | Value::BigInt(_))) => Ok(v),
        (CellType::Int, v) => Err((v, "an integer")),
        (CellType::Float, v @ Value::Float(_)) => Ok(v),
        (CellType::Float, v @ (Value::Int(_) | Value::BigInt(_))) => {
            given(CellType::Float, &v.to_string()).map_err(|what| (v, what))
        }
        (CellType::Float, v) => Err((v, "a float")),
        (CellType::Bool, v @ Value::Bool(_)) => Ok(v),
        (CellType::Bool, v) => Err((v, "true or false")),
        (CellType::Text, v) => Err((v, "text")),
        (CellType::Date, v) => Err((v, "a date (2026-01-31)")),
        (CellType::DateTime, v) => Err((v, "a date and time (2026-01-31T12:00:00)")),
    }
}

impl Iterator for JsonLines {
    type Item = Result<ReadBatch, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_batch().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::testing::{Folder, all_rows, messages};
    use crate::data::value::TimeKind;

    fn read(content: &[u8], text: &TextOptions) -> Vec<ReadBatch> {
        let folder = Folder::with(&[("a.jsonl", content), ("b.jsonl", b"{\"z\": 1}\n")]);
        let paths = ["a.jsonl".to_string(), "b.jsonl".to_string()];
        let limits = Limits { rows: 2, bytes: 1 << 20 };
        let reader = open("s", &paths, text, &Surroundings::new(folder.path()), limits).expect("opens");
        reader.map(|b| b.expect("reads")).collect()
    }

    #[test]
    fn objects_lines_and_mistakes() {
        let content = b"\xef\xbb\xbf{\"b\": 1, \"a\": [1, {\"x\": null}]}\r\n\n  \n[1]\n{\"a\": \"\\ud800\"}\n{\"a\": \"\xff\"}\n{\"b\": 1.0}";
        let batches = read(content, &TextOptions::default());
        assert_eq!(
            messages(&batches),
            [
                (1, "a.jsonl:4: an object is expected at column 1".to_string()),
                (2, "a.jsonl:5: half a surrogate pair at column 8".to_string()),
                (3, "a.jsonl:6: not valid UTF-8".to_string()),
            ]
        );
        let rows = all_rows(&batches);
        let nested = Value::List(vec![Value::Int(1), Value::Map(vec![("x".into(), Value::Null)])]);
        assert_eq!(rows[0], [("b".to_string(), Value::Int(1)), ("a".to_string(), nested)]);
        assert_eq!(rows[1], [("b".to_string(), Value::Float(1.0))]);
        assert_eq!(rows[2], [("z".to_string(), Value::Int(1))]);
        assert!(batches.iter().all(|b| b.len() <= 2));
    }

    #[test]
    fn schemas_convert_and_refuse() {
        let schema = [("d".to_string(), CellType::Date), ("f".to_string(), CellType::Float)].into();
        let text = TextOptions { schema, ..TextOptions::default() };
        let batches = read(b"{\"d\": \"2026-01-31\", \"f\": 1}\n{\"d\": 5}\n{\"f\": \"x\"}\n", &text);
        let date = Value::Time(TimeKind::Date, "2026-01-31".into());
        assert_eq!(all_rows(&batches)[0], [("d".to_string(), date), ("f".to_string(), Value::Float(1.0))]);
        assert_eq!(
            messages(&batches),
            [
                (1, "a.jsonl:2: column \"d\": 5 is not a date (2026-01-31)".to_string()),
                (2, "a.jsonl:3: column \"f\": \"x\" is not a float".to_string()),
            ]
        );
    }
}
