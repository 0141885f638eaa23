//! Delimited text and JSON lines.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use super::schema::{Kind, OutputSchema};
use super::{ExportError, Sink};
use crate::data::json;
use crate::data::table::{Column, Table};
use crate::data::value::{Value, float_text};

/// Writes csv and tsv.
pub(super) struct CsvWriter {
    schema: OutputSchema,
    writer: csv::Writer<Sink>,
}

impl CsvWriter {
    pub fn new(delimiter: u8, schema: &OutputSchema, sink: Sink) -> Result<CsvWriter, ExportError> {
        let mut writer = csv::WriterBuilder::new().delimiter(delimiter).buffer_capacity(256 << 10).from_writer(sink);
        if !schema.columns().is_empty() {
            writer.write_record(schema.columns().iter().map(|c| c.name.as_bytes())).map_err(io::Error::from)?;
        }
        Ok(CsvWriter { schema: schema.clone(), writer })
    }

    pub fn write(&mut self, table: &Table) -> io::Result<()> {
        let columns: Vec<_> = self.schema.columns().iter().map(|c| (table.column(&c.name), &c.kind)).collect();
        if columns.is_empty() {
            return Ok(());
        }
        let mut cell = String::new();
        for row in 0..table.rows() {
            for (column, kind) in &columns {
                cell.clear();
                if let Some(column) = column {
                    print_cell(column, row, kind, &mut cell);
                }
                self.writer.write_field(&cell)?;
            }
            self.writer.write_record(None::<&[u8]>)?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A cell as text, without the way over [`Value`] where it is typed.
fn print_cell(column: &Column, row: usize, kind: &Kind, out: &mut String) {
    use std::fmt::Write;
    let written = match column {
        typed if arrow_array::Array::is_null(typed.array(), row) => Ok(()),
        Column::Int(a) if *kind == Kind::Float => write!(out, "{}", float_text(a.value(row) as f64)),
        Column::Int(a) => write!(out, "{}", a.value(row)),
        Column::Text(a) => out.write_str(a.value(row)),
        other => match (other.value(row).plain(), kind) {
            (Value::Int(v), Kind::Float) => write!(out, "{}", float_text(v as f64)),
            (value @ (Value::List(_) | Value::Map(_)), _) => out.write_str(&json::text(&value)),
            (value, _) => write!(out, "{value}"),
        },
    };
    written.expect("a string takes everything");
}

/// Writes JSON lines; every line has all columns.
pub(super) struct JsonlWriter {
    /// The names, as JSON keys.
    names: Vec<(Arc<str>, Vec<u8>)>,
    sink: BufWriter<Sink>,
}

impl JsonlWriter {
    pub fn new(schema: &OutputSchema, sink: Sink) -> JsonlWriter {
        let key = |name: &Arc<str>| {
            let mut key = Vec::new();
            json::write_text(name, &mut key);
            key.push(b':');
            (name.clone(), key)
        };
        let names = schema.columns().iter().map(|c| key(&c.name)).collect();
        JsonlWriter { names, sink: BufWriter::with_capacity(256 << 10, sink) }
    }

    pub fn write(&mut self, table: &Table) -> io::Result<()> {
        let columns: Vec<_> = self.names.iter().map(|(name, key)| (key, table.column(name))).collect();
        let mut line = Vec::new();
        for row in 0..table.rows() {
            line.clear();
            line.push(b'{');
            for (key, column) in &columns {
                if line.len() > 1 {
                    line.push(b',');
                }
                line.extend_from_slice(key);
                match column {
                    Some(column) => json::write(&column.value(row), &mut line),
                    None => line.extend_from_slice(b"null"),
                }
            }
            line.extend_from_slice(b"}\n");
            self.sink.write_all(&line)?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
