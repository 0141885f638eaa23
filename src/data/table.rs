//! Rows in columns: what flows between readers, stages, workers and the store.
//!
//! A [`Column`] is typed only where every cell has exactly that type or is null; anything else is a column of
//! canonical cells ([`super::value`]). A [`Table`] is a set of equally long, named columns. Which of the two forms a
//! column has never shows: hashes and values are those of the cells.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, UInt32Array};

use super::value::{self, Value, tag};

/// Equally long cells of one name. Typed forms hold nulls, never absent cells.
#[derive(Debug, Clone)]
pub enum Column {
    /// 64-bit integers.
    Int(Int64Array),
    /// Floats.
    Float(Float64Array),
    /// Truth values.
    Bool(BooleanArray),
    /// Text.
    Text(StringArray),
    /// Canonical cells of any type, one encoding each (never null in the Arrow sense).
    Cells(BinaryArray),
}

impl Column {
    /// Builds a column from values, typed where they all agree.
    pub fn from_values(values: impl IntoIterator<Item = Value>) -> Column {
        let mut builder = ColumnBuilder::default();
        values.into_iter().for_each(|v| builder.push(&v));
        builder.finish()
    }

    /// `rows` times the same value.
    pub fn repeat(value: &Value, rows: usize) -> Column {
        Column::from_values(std::iter::repeat_n(value.clone(), rows))
    }

    /// The Arrow array behind the column.
    pub fn array(&self) -> &dyn Array {
        match self {
            Column::Int(a) => a,
            Column::Float(a) => a,
            Column::Bool(a) => a,
            Column::Text(a) => a,
            Column::Cells(a) => a,
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.array().len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cell at `row`.
    ///
    /// # Panics
    /// When `row` is out of range. A damaged cell reads as null: damage is found by checksums before.
    pub fn value(&self, row: usize) -> Value {
        match self {
            Column::Cells(a) => value::decode(a.value(row)).unwrap_or(Value::Null),
            typed if typed.array().is_null(row) => Value::Null,
            Column::Int(a) => Value::Int(a.value(row)),
            Column::Float(a) => Value::Float(a.value(row)),
            Column::Bool(a) => Value::Bool(a.value(row)),
            Column::Text(a) => Value::Text(a.value(row).to_string()),
        }
    }

    /// Appends the canonical encoding of the cell at `row`.
    #[inline]
    pub fn encode_cell(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Column::Cells(a) => out.extend_from_slice(a.value(row)),
            typed if typed.array().is_null(row) => out.push(tag::NULL),
            Column::Int(a) => value::put_int(out, a.value(row)),
            Column::Float(a) => value::put_float(out, a.value(row)),
            Column::Bool(a) => value::put_bool(out, a.value(row)),
            Column::Text(a) => value::put_text(out, a.value(row)),
        }
    }

    /// The tag of the cell at `row` (absent, null, aside, …), without decoding it.
    #[inline]
    pub(crate) fn tag(&self, row: usize) -> u8 {
        match self {
            Column::Cells(a) => a.value(row).first().copied().unwrap_or(tag::NULL),
            typed if typed.array().is_null(row) => tag::NULL,
            Column::Int(_) => tag::INT,
            Column::Float(_) => tag::FLOAT,
            Column::Bool(a) => {
                if a.value(row) {
                    tag::TRUE
                } else {
                    tag::FALSE
                }
            }
            Column::Text(_) => tag::TEXT,
        }
    }

    /// Bytes held, roughly.
    pub fn bytes(&self) -> usize {
        match self {
            Column::Int(a) => a.len() * 8,
            Column::Float(a) => a.len() * 8,
            Column::Bool(a) => a.len() / 8,
            Column::Text(a) => {
                a.value_offsets().last().map_or(0, |e| (e - a.value_offsets()[0]) as usize) + a.len() * 4
            }
            Column::Cells(a) => {
                a.value_offsets().last().map_or(0, |e| (e - a.value_offsets()[0]) as usize) + a.len() * 4
            }
        }
    }

    /// Rows `offset .. offset + len`, without copying.
    pub fn slice(&self, offset: usize, len: usize) -> Column {
        match self {
            Column::Int(a) => Column::Int(a.slice(offset, len)),
            Column::Float(a) => Column::Float(a.slice(offset, len)),
            Column::Bool(a) => Column::Bool(a.slice(offset, len)),
            Column::Text(a) => Column::Text(a.slice(offset, len)),
            Column::Cells(a) => Column::Cells(a.slice(offset, len)),
        }
    }

    /// The rows of `indices`, in that order.
    pub fn take(&self, indices: &UInt32Array) -> Column {
        let taken = arrow_select::take::take(self.array(), indices, None).expect("indices are in range");
        self.same_kind(taken)
    }

    fn same_kind(&self, array: ArrayRef) -> Column {
        fn cast<T: Clone + 'static>(array: &ArrayRef) -> T {
            array.as_any().downcast_ref::<T>().expect("the kernel keeps the type").clone()
        }
        match self {
            Column::Int(_) => Column::Int(cast(&array)),
            Column::Float(_) => Column::Float(cast(&array)),
            Column::Bool(_) => Column::Bool(cast(&array)),
            Column::Text(_) => Column::Text(cast(&array)),
            Column::Cells(_) => Column::Cells(cast(&array)),
        }
    }

    /// The parts one below the other: typed if all parts have one type, else cells.
    pub fn concat(parts: &[&Column]) -> Column {
        let kind = std::mem::discriminant(parts[0]);
        if parts.iter().all(|p| std::mem::discriminant(*p) == kind) {
            let arrays: Vec<&dyn Array> = parts.iter().map(|p| p.array()).collect();
            return parts[0].same_kind(arrow_select::concat::concat(&arrays).expect("arrays of one type"));
        }
        let mut cells = BinaryBuilder::new();
        let mut cell = Vec::new();
        for part in parts {
            for row in 0..part.len() {
                cell.clear();
                part.encode_cell(row, &mut cell);
                cells.append_value(&cell);
            }
        }
        Column::Cells(cells.finish())
    }
}

/// Named, equally long columns.
#[derive(Debug, Clone)]
pub struct Table {
    names: Arc<[Arc<str>]>,
    columns: Vec<Column>,
    rows: usize,
}

impl Table {
    /// A table of `columns`.
    ///
    /// # Panics
    /// When the columns are not `rows` long, or are not as many as the names.
    pub fn new(names: Arc<[Arc<str>]>, columns: Vec<Column>, rows: usize) -> Table {
        assert_eq!(names.len(), columns.len(), "a name for each column");
        assert!(columns.iter().all(|c| c.len() == rows), "equally long columns");
        Table { names, columns, rows }
    }

    /// `rows` rows of no columns.
    pub fn empty(rows: usize) -> Table {
        Table { names: Arc::from([]), columns: Vec::new(), rows }
    }

    /// A table from rows of (name, value) pairs; columns in the order in which they first appear, missing cells absent.
    pub fn from_rows(rows: impl IntoIterator<Item = Vec<(String, Value)>>) -> Table {
        let mut builder = TableBuilder::default();
        rows.into_iter().for_each(|row| builder.push_row(row.iter().map(|(n, v)| (n.as_str(), v))));
        builder.finish()
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns' names.
    pub fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    /// The columns, as [`Table::names`] names them.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.position(name).map(|i| &self.columns[i])
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| &**n == name)
    }

    /// Bytes held, roughly.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum()
    }

    /// One row, absent cells left out.
    pub fn row(&self, row: usize) -> Vec<(String, Value)> {
        let cells = self.names.iter().zip(&self.columns).map(|(n, c)| (n.to_string(), c.value(row)));
        cells.filter(|(_, v)| !matches!(v, Value::Absent)).collect()
    }

    /// Rows `offset .. offset + len`, without copying.
    pub fn slice(&self, offset: usize, len: usize) -> Table {
        let columns = self.columns.iter().map(|c| c.slice(offset, len)).collect();
        Table { names: self.names.clone(), columns, rows: len }
    }

    /// The rows of `indices`, in that order (repeats allowed).
    pub fn take(&self, indices: &[u32]) -> Table {
        if is_identity(indices, self.rows) {
            return self.clone();
        }
        let indices = UInt32Array::from(indices.to_vec());
        let columns = self.columns.iter().map(|c| c.take(&indices)).collect();
        Table { names: self.names.clone(), columns, rows: indices.len() }
    }

    /// Only the columns that `keep` accepts.
    pub fn select(&self, keep: impl Fn(&str) -> bool) -> Table {
        let (names, columns) = self
            .names
            .iter()
            .zip(&self.columns)
            .filter(|(n, _)| keep(n))
            .map(|(n, c)| (n.clone(), c.clone()))
            .unzip::<_, _, Vec<_>, Vec<_>>();
        Table { names: names.into(), columns, rows: self.rows }
    }

    /// These columns, in this order; one that the table lacks is absent throughout.
    pub fn project(&self, names: &[String]) -> Table {
        let column =
            |name: &String| self.column(name).cloned().unwrap_or_else(|| Column::repeat(&Value::Absent, self.rows));
        let columns = names.iter().map(column).collect();
        Table { names: names.iter().map(|n| Arc::from(n.as_str())).collect(), columns, rows: self.rows }
    }

    /// The columns of both, side by side. Where both have a name, `added`'s cell wins unless it is absent.
    pub fn join(&self, added: &Table) -> Table {
        assert_eq!(self.rows, added.rows, "tables of equal length");
        let mut names = self.names.to_vec();
        let mut columns = self.columns.clone();
        for (name, column) in added.names.iter().zip(&added.columns) {
            match self.position(name) {
                Some(i) => columns[i] = overlay(&columns[i], column),
                None => {
                    names.push(name.clone());
                    columns.push(column.clone());
                }
            }
        }
        Table { names: names.into(), columns, rows: self.rows }
    }

    /// The tables one below the other; columns in order of first appearance, missing cells absent.
    pub fn concat(parts: &[Table]) -> Table {
        if let [only] = parts {
            return only.clone();
        }
        let mut names: Vec<Arc<str>> = Vec::new();
        for part in parts {
            for name in part.names.iter() {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        let rows = parts.iter().map(Table::rows).sum();
        let columns = names.iter().map(|name| concat_column(parts, name)).collect();
        Table { names: names.into(), columns, rows }
    }
}

fn concat_column(parts: &[Table], name: &str) -> Column {
    let found: Vec<Option<&Column>> = parts.iter().map(|p| p.column(name)).collect();
    let missing: Vec<Column> = parts
        .iter()
        .zip(&found)
        .map(|(p, c)| Column::repeat(&Value::Absent, if c.is_none() { p.rows } else { 0 }))
        .collect();
    let columns: Vec<&Column> =
        found.iter().zip(&missing).map(|(c, m)| c.unwrap_or(m)).filter(|c| !c.is_empty()).collect();
    if columns.is_empty() { Column::from_values([]) } else { Column::concat(&columns) }
}

fn is_identity(indices: &[u32], rows: usize) -> bool {
    indices.len() == rows && indices.iter().enumerate().all(|(i, &x)| i == x as usize)
}

fn overlay(old: &Column, new: &Column) -> Column {
    if !matches!(new, Column::Cells(_)) || !(0..new.len()).any(|r| new.tag(r) == tag::ABSENT) {
        return new.clone();
    }
    Column::from_values((0..new.len()).map(|r| match new.value(r) {
        Value::Absent => old.value(r),
        value => value,
    }))
}

/// Grows a column cell by cell; it is typed as long as its cells agree.
#[derive(Debug, Default)]
pub struct ColumnBuilder {
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    /// Only nulls so far.
    Nulls(usize),
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
    Mixed(BinaryBuilder),
}

impl Default for Cells {
    fn default() -> Self {
        Cells::Nulls(0)
    }
}

impl ColumnBuilder {
    /// Appends a cell.
    pub fn push(&mut self, value: &Value) {
        match value {
            Value::Int(v) => self.push_int(*v),
            Value::Float(v) => self.push_float(*v),
            Value::Bool(v) => self.push_bool(*v),
            Value::Text(v) => self.push_text(v),
            Value::Null => self.push_null(),
            other => self.mixed().append_value(other.encoded()),
        }
    }

    /// Appends an integer.
    #[inline]
    pub fn push_int(&mut self, v: i64) {
        if let Cells::Nulls(n) = self.cells {
            let mut b = Int64Builder::new();
            b.append_nulls(n);
            self.cells = Cells::Int(b);
        }
        match &mut self.cells {
            Cells::Int(b) => b.append_value(v),
            _ => {
                let mut cell = Vec::with_capacity(9);
                value::put_int(&mut cell, v);
                self.mixed().append_value(cell);
            }
        }
    }

    /// Appends a float.
    #[inline]
    pub fn push_float(&mut self, v: f64) {
        if let Cells::Nulls(n) = self.cells {
            let mut b = Float64Builder::new();
            b.append_nulls(n);
            self.cells = Cells::Float(b);
        }
        match &mut self.cells {
            Cells::Float(b) => b.append_value(v),
            _ => {
                let mut cell = Vec::with_capacity(9);
                value::put_float(&mut cell, v);
                self.mixed().append_value(cell);
            }
        }
    }

    /// Appends a truth value.
    #[inline]
    pub fn push_bool(&mut self, v: bool) {
        if let Cells::Nulls(n) = self.cells {
            let mut b = BooleanBuilder::new();
            b.append_nulls(n);
            self.cells = Cells::Bool(b);
        }
        match &mut self.cells {
            Cells::Bool(b) => b.append_value(v),
            _ => {
                let mut cell = Vec::with_capacity(1);
                value::put_bool(&mut cell, v);
                self.mixed().append_value(cell);
            }
        }
    }

    /// Appends text.
    #[inline]
    pub fn push_text(&mut self, v: &str) {
        if let Cells::Nulls(n) = self.cells {
            let mut b = StringBuilder::new();
            b.append_nulls(n);
            self.cells = Cells::Text(b);
        }
        match &mut self.cells {
            Cells::Text(b) => b.append_value(v),
            _ => {
                let mut cell = Vec::with_capacity(v.len() + 5);
                value::put_text(&mut cell, v);
                self.mixed().append_value(cell);
            }
        }
    }

    /// Appends a null.
    #[inline]
    pub fn push_null(&mut self) {
        match &mut self.cells {
            Cells::Nulls(n) => *n += 1,
            Cells::Int(b) => b.append_null(),
            Cells::Float(b) => b.append_null(),
            Cells::Bool(b) => b.append_null(),
            Cells::Text(b) => b.append_null(),
            Cells::Mixed(b) => b.append_value([tag::NULL]),
        }
    }

    /// Appends an absent cell.
    pub fn push_absent(&mut self) {
        self.mixed().append_value([tag::ABSENT]);
    }

    fn mixed(&mut self) -> &mut BinaryBuilder {
        if !matches!(self.cells, Cells::Mixed(_)) {
            let typed = ColumnBuilder { cells: std::mem::take(&mut self.cells) }.finish();
            let mut builder = BinaryBuilder::new();
            let mut cell = Vec::new();
            for row in 0..typed.len() {
                cell.clear();
                typed.encode_cell(row, &mut cell);
                builder.append_value(&cell);
            }
            self.cells = Cells::Mixed(builder);
        }
        match &mut self.cells {
            Cells::Mixed(builder) => builder,
            _ => unreachable!("set above"),
        }
    }

    /// The number of cells so far.
    pub fn len(&self) -> usize {
        use arrow_array::builder::ArrayBuilder;
        match &self.cells {
            Cells::Nulls(n) => *n,
            Cells::Int(b) => b.len(),
            Cells::Float(b) => b.len(),
            Cells::Bool(b) => b.len(),
            Cells::Text(b) => b.len(),
            Cells::Mixed(b) => b.len(),
        }
    }

    /// Whether there are no cells yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column.
    pub fn finish(self) -> Column {
        match self.cells {
            Cells::Nulls(n) => Column::Cells(BinaryArray::from_iter_values(std::iter::repeat_n([tag::NULL], n))),
            Cells::Int(mut b) => Column::Int(b.finish()),
            Cells::Float(mut b) => Column::Float(b.finish()),
            Cells::Bool(mut b) => Column::Bool(b.finish()),
            Cells::Text(mut b) => Column::Text(b.finish()),
            Cells::Mixed(mut b) => Column::Cells(b.finish()),
        }
    }
}

/// Grows a table row by row; cells that a row lacks are absent.
#[derive(Debug, Default)]
pub struct TableBuilder {
    names: Vec<Arc<str>>,
    columns: Vec<ColumnBuilder>,
    rows: usize,
}

impl TableBuilder {
    /// Appends a row; a name that stands twice in it keeps its first value.
    pub fn push_row<'a>(&mut self, row: impl IntoIterator<Item = (&'a str, &'a Value)>) {
        for (at, (name, value)) in row.into_iter().enumerate() {
            let rows = self.rows;
            let column = self.cell(at, name);
            if column.len() == rows {
                column.push(value);
            }
        }
        self.end_row();
    }

    /// The column `name`, ready to take this row's cell; `guess` is where it probably stands. Push at most one cell,
    /// and call [`TableBuilder::end_row`] after the row's last.
    #[inline]
    pub fn cell(&mut self, guess: usize, name: &str) -> &mut ColumnBuilder {
        let at = match self.names.get(guess) {
            Some(n) if &**n == name => guess,
            _ => match self.names.iter().position(|n| &**n == name) {
                Some(at) => at,
                None => {
                    let mut column = ColumnBuilder::default();
                    (0..self.rows).for_each(|_| column.push_absent());
                    self.names.push(name.into());
                    self.columns.push(column);
                    self.names.len() - 1
                }
            },
        };
        &mut self.columns[at]
    }

    /// Ends the row: columns without a cell for it get an absent one.
    #[inline]
    pub fn end_row(&mut self) {
        self.rows += 1;
        for column in &mut self.columns {
            if column.len() < self.rows {
                column.push_absent();
            }
        }
    }

    /// The number of rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The table.
    pub fn finish(self) -> Table {
        let columns = self.columns.into_iter().map(ColumnBuilder::finish).collect();
        Table { names: self.names.into(), columns, rows: self.rows }
    }
}
