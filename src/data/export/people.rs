//! Rows for people: aligned columns, short floats, long cells cut, control characters spelled out.

use std::io::{self, Write};

use comfy_table::{CellAlignment, presets};

use super::Sink;
use super::schema::OutputSchema;
use crate::data::table::{Column, Table};
use crate::data::value::Value;

/// Rows after which the header stands again, and what came before is written.
const BLOCK: usize = 1000;
/// Characters of a cell that are shown.
const WIDEST: usize = 60;

/// Writes tables for people, in blocks.
pub(super) struct TableWriter {
    schema: OutputSchema,
    block: comfy_table::Table,
    /// Whether all cells of a column so far are numbers.
    numeric: Vec<bool>,
    sink: Sink,
    written: bool,
}

impl TableWriter {
    pub fn new(schema: &OutputSchema, sink: Sink) -> TableWriter {
        let numeric = vec![true; schema.columns().len()];
        TableWriter { schema: schema.clone(), block: empty_block(schema), numeric, sink, written: false }
    }

    pub fn write(&mut self, table: &Table) -> io::Result<()> {
        let columns: Vec<_> = self.schema.columns().iter().map(|c| table.column(&c.name).cloned()).collect();
        for row in 0..table.rows() {
            let cells = columns.iter().zip(&mut self.numeric).map(|(column, numeric)| {
                let value = column.as_ref().map_or(Value::Null, |c: &Column| c.value(row).plain());
                *numeric &=
                    matches!(value, Value::Null | Value::Absent | Value::Int(_) | Value::BigInt(_) | Value::Float(_));
                shown(&value)
            });
            self.block.add_row(cells.collect::<Vec<_>>());
            if self.block.row_count() == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for (i, numeric) in self.numeric.iter_mut().enumerate() {
            if let Some(column) = self.block.column_mut(i).filter(|_| *numeric) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            *numeric = true;
        }
        let block = std::mem::replace(&mut self.block, empty_block(&self.schema));
        self.written = true;
        writeln!(self.sink, "{}", block.trim_fmt())
    }

    pub fn finish(mut self) -> io::Result<()> {
        if !self.block.is_empty() || !self.written {
            self.flush()?;
        }
        self.sink.flush()
    }
}

fn empty_block(schema: &OutputSchema) -> comfy_table::Table {
    let mut block = comfy_table::Table::new();
    block.load_style(presets::UTF8_FULL_CONDENSED).force_no_tty();
    block.set_header(schema.columns().iter().map(|c| cut(&c.name)));
    block
}

fn shown(value: &Value) -> String {
    match value {
        Value::Float(v) => short_float(*v),
        other => cut(&other.to_string()),
    }
}

fn cut(text: &str) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == WIDEST {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// A float with about six significant digits.
fn short_float(v: f64) -> String {
    let size = v.abs();
    if size != 0.0 && v.is_finite() && !(1e-4..1e15).contains(&size) {
        let text = format!("{v:.5e}");
        let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trim(mantissa));
    }
    if !v.is_finite() || size == 0.0 {
        return crate::data::value::float_text(v);
    }
    let whole = size.log10().floor() as i32 + 1;
    trim(&format!("{v:.*}", (6 - whole).max(1) as usize)).to_string()
}

/// A decimal without needless zeros; one decimal stays.
fn trim(text: &str) -> &str {
    let cut = text.trim_end_matches('0');
    if cut.ends_with('.') { &text[..cut.len() + 1] } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_short() {
        let cases = [
            (1.0, "1.0"),
            (0.1 + 0.2, "0.3"),
            (std::f64::consts::PI, "3.14159"),
            (1234567.891, "1234567.9"),
            (0.000123456789, "0.000123457"),
            (1.5e-9, "1.5e-9"),
            (-2e300, "-2.0e300"),
            (0.0, "0.0"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (v, text) in cases {
            assert_eq!(short_float(v), text);
        }
    }

    #[test]
    fn cells_are_cut_and_harmless() {
        assert_eq!(cut("a\x1b[31m\n"), "a\\u{1b}[31m\\n");
        assert_eq!(cut(&"é".repeat(100)).chars().count(), WIDEST + 1);
    }
}
