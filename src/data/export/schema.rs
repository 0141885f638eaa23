//! The types of columns, united over all rows.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, SchemaRef, TimeUnit};

use super::{ExportError, ExportFormat};
use crate::data::source::nearest;
use crate::data::table::{Column, Table};
use crate::data::value::{TimeKind, Value};

/// Mappings with more different keys than this are written as JSON text.
const MOST_FIELDS: usize = 1000;
/// The largest integer below which floats hold all.
const EXACT: u64 = 1 << 53;

/// What the columns of some tables hold, so far.
#[derive(Debug, Default)]
pub struct Schema {
    /// The columns that are asked for; `None`: all, as they come.
    only: Option<Vec<String>>,
    columns: Vec<(Arc<str>, Kinds)>,
    rows: u64,
}

/// The columns of a file.
#[derive(Debug, Clone)]
pub struct OutputSchema {
    columns: Arc<[OutputColumn]>,
    arrow: SchemaRef,
}

/// A column of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OutputColumn {
    pub name: Arc<str>,
    pub kind: Kind,
}

/// The type of a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// No cell holds anything.
    Null,
    Bool,
    Int,
    /// Integers with at most so many digits.
    BigInt(usize),
    Float,
    Text,
    Bytes,
    DateTime {
        aware: bool,
    },
    Date,
    Time,
    Duration,
    List(Box<Kind>),
    Struct(Vec<(String, Kind)>),
    /// As JSON text.
    Json,
    /// Cells of any types, where the format takes them.
    Any,
}

impl Schema {
    /// For only these columns, in this order.
    pub fn of_columns(columns: &[String]) -> Schema {
        Schema { only: Some(columns.to_vec()), ..Schema::default() }
    }

    /// Takes the rows of a table into account; they count on from those before.
    pub fn observe(&mut self, table: &Table) {
        for (name, column) in table.names().iter().zip(table.columns()) {
            let wanted = self.only.as_ref().is_none_or(|only| only.iter().any(|n| **n == **name));
            let at = self.columns.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                self.columns.push((name.clone(), Kinds::default()));
                self.columns.len() - 1
            });
            if wanted {
                self.columns[at].1.observe_column(self.rows, column);
            }
        }
        self.rows += table.rows() as u64;
    }

    /// The united types, for a table of a database: one a column, integers of any size; what is nested is JSON.
    ///
    /// # Errors
    /// As [`Schema::finish`].
    pub fn finish_for_table(mut self) -> Result<OutputSchema, ExportError> {
        self.columns.iter_mut().for_each(|(_, kinds)| kinds.forget_nested());
        self.finish(ExportFormat::Csv)
    }

    /// The united types.
    ///
    /// # Errors
    /// When cells of a column have no common type and the format needs one, or a column that was asked for is in no
    /// row though there are rows.
    pub fn finish(mut self, format: ExportFormat) -> Result<OutputSchema, ExportError> {
        if let Some(only) = &self.only {
            let take = |name: &String| match self.columns.iter().position(|(n, _)| **n == **name) {
                Some(at) => Ok((Arc::clone(&self.columns[at].0), std::mem::take(&mut self.columns[at].1))),
                None if self.rows == 0 => Ok((Arc::from(name.as_str()), Kinds::default())),
                None => Err(ExportError::NoColumn {
                    column: name.clone(),
                    nearest: nearest(name, self.columns.iter().map(|(n, _)| &**n)),
                }),
            };
            self.columns = only.iter().map(take).collect::<Result<_, _>>()?;
        }
        let unite = |(name, kinds): (Arc<str>, Kinds)| {
            let kind = match format.needs_types() {
                true => kinds.unite(&name)?,
                false => Kind::Any,
            };
            match kind {
                Kind::BigInt(digits) if digits > 76 && format.is_columnar() => Err(ExportError::Cell {
                    column: name.to_string(),
                    what: format!("integers of {digits} digits, and the format holds at most 76"),
                }),
                kind => Ok(OutputColumn { name, kind }),
            }
        };
        let columns: Vec<_> = self.columns.into_iter().map(unite).collect::<Result<_, _>>()?;
        let fields: Fields = columns.iter().map(|c| Field::new(&*c.name, c.kind.arrow(), true)).collect();
        Ok(OutputSchema { columns: columns.into(), arrow: Arc::new(arrow_schema::Schema::new(fields)) })
    }
}

impl OutputSchema {
    pub(in crate::data::export) fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }

    pub(super) fn arrow(&self) -> SchemaRef {
        self.arrow.clone()
    }
}

impl Kind {
    /// The Arrow type.
    pub fn arrow(&self) -> DataType {
        match self {
            Kind::Null => DataType::Null,
            Kind::Bool => DataType::Boolean,
            Kind::Int => DataType::Int64,
            Kind::BigInt(0..=38) => DataType::Decimal128(38, 0),
            Kind::BigInt(_) => DataType::Decimal256(76, 0),
            Kind::Float => DataType::Float64,
            Kind::Text | Kind::Json | Kind::Any => DataType::Utf8,
            Kind::Bytes => DataType::Binary,
            Kind::DateTime { aware } => DataType::Timestamp(TimeUnit::Microsecond, aware.then(|| "UTC".into())),
            Kind::Date => DataType::Date32,
            Kind::Time => DataType::Time64(TimeUnit::Microsecond),
            Kind::Duration => DataType::Duration(TimeUnit::Microsecond),
            Kind::List(items) => DataType::List(Arc::new(Field::new_list_field(items.arrow(), true))),
            Kind::Struct(fields) => {
                DataType::Struct(fields.iter().map(|(n, k)| Field::new(n, k.arrow(), true)).collect())
            }
        }
    }
}

/// The kinds of cells that are their own type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Bool,
    Int,
    /// An integer that no float holds exactly.
    InexactInt,
    Float,
    Text,
    Bytes,
    Naive,
    Aware,
    Date,
    Time,
    Duration,
    List,
    Map,
}

const LEAVES: usize = 13;

impl Leaf {
    fn name(self) -> &'static str {
        match self {
            Leaf::Bool => "bool",
            Leaf::Int => "int",
            Leaf::InexactInt => "an int that no float holds exactly",
            Leaf::Float => "float",
            Leaf::Text => "str",
            Leaf::Bytes => "bytes",
            Leaf::Naive => "datetime without offset",
            Leaf::Aware => "datetime with offset",
            Leaf::Date => "date",
            Leaf::Time => "time",
            Leaf::Duration => "timedelta",
            Leaf::List => "list",
            Leaf::Map => "dict",
        }
    }

    /// Whether cells of both can stand in one column.
    fn goes_with(self, other: Leaf) -> bool {
        use Leaf::*;
        match (self, other) {
            (Int | InexactInt, Int | InexactInt) | (Int, Float) | (Float, Int) => true,
            (a, b) => a == b,
        }
    }
}

/// What was seen in a column: the first row of each kind of cell.
#[derive(Debug, Clone, Default)]
struct Kinds {
    first: [Option<u64>; LEAVES],
    /// The digits of the longest integer beyond 64 bits.
    digits: usize,
    items: Option<Box<Kinds>>,
    fields: Vec<(String, Kinds)>,
}

const ALL: [Leaf; LEAVES] = [
    Leaf::Bool,
    Leaf::Int,
    Leaf::InexactInt,
    Leaf::Float,
    Leaf::Text,
    Leaf::Bytes,
    Leaf::Naive,
    Leaf::Aware,
    Leaf::Date,
    Leaf::Time,
    Leaf::Duration,
    Leaf::List,
    Leaf::Map,
];

impl Kinds {
    fn saw(&mut self, leaf: Leaf, row: u64) {
        self.first[leaf as usize].get_or_insert(row);
    }

    fn row(&self, leaf: Leaf) -> Option<u64> {
        self.first[leaf as usize]
    }

    fn observe_column(&mut self, first_row: u64, column: &Column) {
        let some = |array: &dyn arrow_array::Array| (0..array.len()).find(|&i| array.is_valid(i));
        let (leaf, found) = match column {
            Column::Int(a) => {
                if self.row(Leaf::InexactInt).is_none() {
                    let inexact = |i: usize| arrow_array::Array::is_valid(a, i) && a.value(i).unsigned_abs() > EXACT;
                    for i in (0..a.len()).filter(|&i| inexact(i)) {
                        self.observe(first_row + i as u64, &Value::Int(a.value(i)));
                    }
                }
                (Leaf::Int, some(a))
            }
            Column::Float(a) => (Leaf::Float, some(a)),
            Column::Bool(a) => (Leaf::Bool, some(a)),
            Column::Text(a) => (Leaf::Text, some(a)),
            Column::Cells(_) => {
                (0..column.len()).for_each(|i| self.observe(first_row + i as u64, &column.value(i)));
                return;
            }
        };
        if let Some(at) = found {
            self.saw(leaf, first_row + at as u64);
        }
    }

    fn observe(&mut self, row: u64, value: &Value) {
        let leaf = match value {
            Value::Absent | Value::Null => return,
            Value::Aside(inner) => return self.observe(row, inner),
            Value::Bool(_) => Leaf::Bool,
            Value::Int(v) if is_exact(*v) => Leaf::Int,
            Value::Int(_) => Leaf::InexactInt,
            Value::BigInt(digits) => {
                self.digits = self.digits.max(digits.trim_start_matches('-').len());
                let exact = digits.parse::<f64>().is_ok_and(|v| format!("{v:.0}") == *digits);
                if exact { Leaf::Int } else { Leaf::InexactInt }
            }
            Value::Float(_) => Leaf::Float,
            Value::Text(_) | Value::File { .. } => Leaf::Text,
            Value::Bytes(_) => Leaf::Bytes,
            Value::Time(TimeKind::DateTime, text) if has_offset(text) => Leaf::Aware,
            Value::Time(TimeKind::DateTime, _) => Leaf::Naive,
            Value::Time(TimeKind::Date, _) => Leaf::Date,
            Value::Time(TimeKind::Time, _) => Leaf::Time,
            Value::Time(TimeKind::Duration, _) => Leaf::Duration,
            Value::List(items) => {
                let kinds = self.items.get_or_insert_default();
                items.iter().for_each(|v| kinds.observe(row, v));
                Leaf::List
            }
            Value::Map(entries) => {
                entries.iter().for_each(|(key, v)| self.observe_field(row, key, v));
                Leaf::Map
            }
        };
        self.saw(leaf, row);
    }

    fn observe_field(&mut self, row: u64, key: &str, value: &Value) {
        let at = match self.fields.iter().position(|(k, _)| k == key) {
            Some(at) => at,
            None if self.fields.len() > MOST_FIELDS => return,
            None => {
                self.fields.push((key.to_string(), Kinds::default()));
                self.fields.len() - 1
            }
        };
        self.fields[at].1.observe(row, value);
    }

    /// Makes JSON of lists and mappings, whatever is in them.
    fn forget_nested(&mut self) {
        self.first[Leaf::Map as usize] = self.row(Leaf::Map).into_iter().chain(self.row(Leaf::List)).min();
        self.first[Leaf::List as usize] = None;
        self.fields.clear();
    }

    /// The one type that holds all cells.
    fn unite(&self, name: &str) -> Result<Kind, ExportError> {
        let mut seen: Vec<Leaf> = ALL.into_iter().filter(|leaf| self.row(*leaf).is_some()).collect();
        seen.sort_by_key(|leaf| self.row(*leaf));
        let clash = |a: Leaf, b: Leaf| {
            let told = |leaf: Leaf| (self.row(leaf).unwrap_or(0), leaf.name().to_string());
            ExportError::Clash { column: name.to_string(), first: told(a), second: told(b) }
        };
        for (i, a) in seen.iter().enumerate() {
            if let Some(b) = seen[i + 1..].iter().find(|b| !a.goes_with(**b)) {
                return Err(clash(*a, *b));
            }
        }
        let Some(&leaf) = seen.first() else { return Ok(Kind::Null) };
        Ok(match leaf {
            _ if seen.contains(&Leaf::Float) => Kind::Float,
            Leaf::Int | Leaf::InexactInt if self.digits > 0 => Kind::BigInt(self.digits.max(19)),
            Leaf::Int | Leaf::InexactInt => Kind::Int,
            Leaf::Bool => Kind::Bool,
            Leaf::Float => Kind::Float,
            Leaf::Text => Kind::Text,
            Leaf::Bytes => Kind::Bytes,
            Leaf::Naive => Kind::DateTime { aware: false },
            Leaf::Aware => Kind::DateTime { aware: true },
            Leaf::Date => Kind::Date,
            Leaf::Time => Kind::Time,
            Leaf::Duration => Kind::Duration,
            Leaf::List => match &self.items {
                Some(items) => Kind::List(Box::new(items.unite(&format!("{name}[]"))?)),
                None => Kind::List(Box::new(Kind::Null)),
            },
            Leaf::Map if self.fields.is_empty() || self.fields.len() > MOST_FIELDS => Kind::Json,
            Leaf::Map => {
                let field = |(key, kinds): &(String, Kinds)| Ok((key.clone(), kinds.unite(&format!("{name}.{key}"))?));
                Kind::Struct(self.fields.iter().map(field).collect::<Result<_, ExportError>>()?)
            }
        })
    }
}

fn is_exact(v: i64) -> bool {
    v.unsigned_abs() <= EXACT || (v as f64) as i128 == i128::from(v)
}

/// Whether the text of a date and time ends in an offset.
fn has_offset(text: &str) -> bool {
    text.get(10..).is_some_and(|time| time.contains(['+', '-', 'Z']))
}
