//! Rows of data for people: as a table that is streamed in two passes; and as one JSON array.

use std::io::{self, Write};

use crate::data::value::float_text;
use crate::data::{Table, Value};

use super::grid::{Cell, Layout};
use super::style::Style;

/// Cells of more columns than this are cut, whatever the terminal.
const WIDEST: usize = 60;

/// A table of rows: first every batch is shown to [`RowTable::observe`], then each is written.
#[derive(Debug, Default)]
pub struct RowTable {
    names: Vec<String>,
    layout: Layout,
    rows: u64,
}

impl RowTable {
    /// Makes room for rows.
    pub fn observe(&mut self, table: &Table) {
        for name in table.names().iter() {
            if !self.names.iter().any(|n| **n == **name) {
                self.names.push(name.to_string());
            }
        }
        (0..table.rows()).for_each(|row| self.layout.observe(&self.cells(table, row)));
        self.rows += table.rows() as u64;
    }

    /// All rows were observed: fits the columns to the terminal and writes their names.
    pub fn begin(&mut self, out: &mut dyn Write, style: Style, width: Option<usize>) -> io::Result<()> {
        if self.names.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.layout.observe_header(&names);
        self.layout.fit(WIDEST, width);
        writeln!(out, "{}", self.layout.header(&names, style))
    }

    /// Writes the rows of a batch.
    pub fn write(&self, out: &mut dyn Write, table: &Table) -> io::Result<()> {
        (0..table.rows())
            .try_for_each(|row| writeln!(out, "{}", self.layout.line(&self.cells(table, row), Style::PLAIN)))
    }

    fn cells(&self, table: &Table, row: usize) -> Vec<Cell> {
        let value = |name: &String| table.column(name).map_or(Value::Absent, |column| column.value(row));
        self.names.iter().map(|name| cell(&value(name))).collect()
    }
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Int(_) | Value::BigInt(_) => Cell::number(value.to_string()),
        Value::Float(v) => Cell::number(short_float(*v)),
        other => Cell::text(other.to_string()),
    }
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
        return float_text(v);
    }
    let whole = size.log10().floor() as i32 + 1;
    trim(&format!("{v:.*}", (6 - whole).max(1) as usize)).to_string()
}

/// A decimal without needless zeros; one decimal stays.
fn trim(text: &str) -> &str {
    let cut = text.trim_end_matches('0');
    if cut.ends_with('.') { &text[..cut.len() + 1] } else { cut }
}

/// Rows as objects of one JSON array, on one line.
#[derive(Debug, Default)]
pub struct JsonRows {
    begun: bool,
}

impl JsonRows {
    /// Writes the rows of a batch.
    pub fn write(&mut self, out: &mut dyn Write, table: &Table) -> io::Result<()> {
        for row in 0..table.rows() {
            out.write_all(if self.begun { b"," } else { b"[" })?;
            self.begun = true;
            let fields = table.row(row).into_iter().map(|(name, value)| (name, value.to_json()));
            serde_json::to_writer(&mut *out, &fields.collect::<serde_json::Map<_, _>>())?;
        }
        Ok(())
    }

    /// Writes the end.
    pub fn finish(self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(if self.begun { b"]\n" } else { b"[]\n" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> [Table; 2] {
        let row = |cells: &[(&str, Value)]| cells.iter().map(|(n, v)| ((*n).to_string(), v.clone())).collect();
        let text = |t: &str| Value::Text(t.into());
        [
            Table::from_rows([row(&[("cell", text("c1")), ("area", Value::Int(7))]), row(&[("cell", text("c2\n"))])]),
            Table::from_rows([row(&[("area", Value::Float(12.5)), ("tags", Value::List(vec![text("a")]))])]),
        ]
    }

    #[test]
    fn rows_of_all_batches_are_one_table() {
        let mut table = RowTable::default();
        tables().iter().for_each(|t| table.observe(t));
        let mut out = Vec::new();
        table.begin(&mut out, Style::PLAIN, None).expect("writes");
        tables().iter().for_each(|t| table.write(&mut out, t).expect("writes"));
        insta::assert_snapshot!(String::from_utf8_lossy(&out), @r#"
        cell  area  tags
        c1       7
        c2\n
              12.5  ["a"]
        "#);
    }

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
    fn rows_of_all_batches_are_one_document() {
        let mut rows = JsonRows::default();
        let mut out = Vec::new();
        tables().iter().for_each(|t| rows.write(&mut out, t).expect("writes"));
        rows.finish(&mut out).expect("writes");
        insta::assert_snapshot!(String::from_utf8_lossy(&out), @r#"[{"cell":"c1","area":7},{"cell":"c2\n"},{"area":12.5,"tags":["a"]}]"#);
        let mut none = Vec::new();
        JsonRows::default().finish(&mut none).expect("writes");
        assert_eq!(none, b"[]\n");
    }
}
