//! Parameter sweeps: `product:` and `zip:`. Combinations are made as they are read; only the values are held.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::UInt32Array;
use rayon::prelude::*;

use super::written::Numbers;
use super::{Limits, ReadBatch, SourceError, SourceReader, Surroundings, bad_row, open_in};
use crate::data::failure::Failure;
use crate::data::table::{Column, Table};
use crate::data::value::Value;
use crate::spec::model::{Source, Sweep, SweepFilter, SweepValues};
use crate::spec::template::{RenderError, Rows, Scope};

/// Combinations tested by one thread at a time.
const PIECE: usize = 1024;

/// Opens a sweep; the columns of other sources that it names are read now.
pub(super) fn open(
    source_name: &str,
    sweep: &Sweep,
    around: &Surroundings,
    limits: Limits,
) -> Result<SourceReader, SourceError> {
    let mut others = read_others(sweep, around)?;
    let mut columns = Vec::with_capacity(sweep.columns.len());
    for (name, values) in &sweep.columns {
        let values = match values {
            SweepValues::Listed(values) => Values::Column(Column::from_values(values.iter().cloned()), BTreeMap::new()),
            SweepValues::Range { start, stop, step } => Values::Range(Numbers::new(source_name, start, stop, step)?),
            SweepValues::Column { .. } => others.remove(name.as_str()).expect("read above"),
        };
        columns.push((name.as_str(), values));
    }
    let wrong = |what: String| SourceError::Definition { source_name: source_name.into(), what };
    let len = match sweep.in_step {
        true => common_len(&columns).map_err(wrong)?,
        false => columns
            .iter()
            .try_fold(1u64, |len, (_, values)| len.checked_mul(values.len()))
            .ok_or_else(|| wrong(format!("more combinations than {}: no run could ever end", u64::MAX)))?,
    };
    let row_bytes: usize = columns.iter().map(|(_, values)| values.mean_bytes()).sum();
    let limits = Limits { rows: limits.rows.min(limits.bytes / row_bytes.max(1)).max(1), ..limits };
    let names: Arc<[Arc<str>]> = columns.iter().map(|(name, _)| Arc::from(*name)).collect();
    let columns = columns.into_iter().map(|(_, values)| values).collect();
    let filter = sweep.filter.clone();
    Ok(SourceReader::new(Combinations {
        names,
        columns,
        in_step: sweep.in_step,
        filter,
        len,
        at: 0,
        next_row: 0,
        limits,
    }))
}

/// The number of values that all columns of a `zip` have.
fn common_len(columns: &[(&str, Values)]) -> Result<u64, String> {
    let Some((first, values)) = columns.first() else { return Ok(0) };
    let len = values.len();
    match columns.iter().find(|(_, other)| other.len() != len) {
        None => Ok(len),
        Some((name, other)) => Err(format!(
            "zip goes through its columns in step, but {first} has {len} values and {name} has {}",
            other.len()
        )),
    }
}

/// What a column of a sweep takes on.
enum Values {
    /// With the places that could not be read.
    Column(Column, BTreeMap<u64, Failure>),
    Range(Numbers),
}

impl Values {
    fn len(&self) -> u64 {
        match self {
            Values::Column(column, _) => column.len() as u64,
            Values::Range(numbers) => numbers.len(),
        }
    }

    /// The bytes of one value, roughly.
    fn mean_bytes(&self) -> usize {
        match self {
            Values::Column(column, _) => column.bytes() / column.len().max(1),
            Values::Range(_) => 8,
        }
    }

    fn at(&self, places: &[u64]) -> Column {
        match self {
            Values::Column(column, _) => column.take(&UInt32Array::from_iter_values(places.iter().map(|&p| p as u32))),
            Values::Range(numbers) => numbers.column(places.iter().copied()),
        }
    }

    fn bad(&self, place: u64) -> Option<&Failure> {
        match self {
            Values::Column(_, bad) => bad.get(&place),
            Values::Range(_) => None,
        }
    }
}

/// The columns of other sources, by the sweep's own names; each source is read once.
fn read_others<'a>(sweep: &'a Sweep, around: &Surroundings) -> Result<HashMap<&'a str, Values>, SourceError> {
    let mut named: BTreeMap<usize, Vec<(&str, &str)>> = BTreeMap::new();
    for (name, values) in &sweep.columns {
        if let SweepValues::Column { source, column } = values {
            named.entry(*source).or_default().push((name, column));
        }
    }
    let mut others = HashMap::new();
    for (source, names) in named {
        let columns: Vec<&str> = names.iter().map(|(_, column)| *column).collect();
        let read = read_columns(&around.sources[source], &columns, around)?;
        others.extend(names.into_iter().map(|(name, _)| name).zip(read));
    }
    Ok(others)
}

/// Columns of a source, in order. What its rows lack is null.
fn read_columns(source: &Source, columns: &[&str], around: &Surroundings) -> Result<Vec<Values>, SourceError> {
    let around = Surroundings { cuts: Arc::default(), ..around.clone() };
    let mut parts: Vec<Vec<Column>> = vec![Vec::new(); columns.len()];
    let mut bad = BTreeMap::new();
    let mut there: BTreeSet<Arc<str>> = BTreeSet::new();
    for batch in open_in(source, &around, None, None)? {
        let batch = batch?;
        there.extend(batch.table.names().iter().cloned());
        parts.iter_mut().zip(columns).for_each(|(parts, column)| parts.push(cells(&batch, column)));
        bad.extend(batch.bad);
    }
    if let Some(missing) = columns.iter().find(|column| !there.is_empty() && !there.contains(**column)) {
        return Err(SourceError::no_column(&source.name, missing, there.iter().map(|name| &**name)));
    }
    let whole = |parts: Vec<Column>| Values::Column(Column::concat(&parts.iter().collect::<Vec<_>>()), bad.clone());
    Ok(parts.into_iter().map(whole).collect())
}

/// A column of a batch, with a null in place of each row that cannot be read.
fn cells(batch: &ReadBatch, name: &str) -> Column {
    let cell = |at: usize| batch.table.column(name).map_or(Value::Null, |column| column.value(at));
    match batch.table.column(name) {
        Some(column) if batch.bad.is_empty() => column.clone(),
        _ => {
            let good = batch.rows.iter().enumerate().map(|(at, row)| (*row, cell(at)));
            let all: BTreeMap<u64, Value> = good.chain(batch.bad.iter().map(|(row, _)| (*row, Value::Null))).collect();
            Column::from_values(all.into_values())
        }
    }
}

struct Combinations {
    names: Arc<[Arc<str>]>,
    columns: Vec<Values>,
    in_step: bool,
    filter: Option<SweepFilter>,
    /// The number of combinations, and of the next one.
    len: u64,
    at: u64,
    next_row: u64,
    limits: Limits,
}

impl Combinations {
    /// The next rows, a full batch as far as that can be told before they are made.
    fn read_batch(&mut self) -> Option<ReadBatch> {
        let mut parts = Vec::new();
        let mut batch = ReadBatch { rows: Vec::new(), table: Table::empty(0), bad: Vec::new(), bytes: 0 };
        while self.at < self.len && batch.len() * 2 < self.limits.rows {
            let count = ((self.limits.rows - batch.len()) as u64).min(self.len - self.at);
            parts.push(self.combine(self.at..self.at + count, &mut batch));
            self.at += count;
        }
        batch.table = Table::concat(&parts);
        (!batch.is_empty()).then_some(batch)
    }

    /// The rows among these combinations: numbered in the batch, their cells returned.
    fn combine(&mut self, span: Range<u64>, batch: &mut ReadBatch) -> Table {
        let mut table = Vec::with_capacity(self.columns.len());
        let mut failures: BTreeMap<u64, Failure> = BTreeMap::new();
        let mut places = vec![0; (span.end - span.start) as usize];
        let mut stride = if self.in_step { 1 } else { self.len };
        for values in &self.columns {
            if !self.in_step {
                stride /= values.len();
            }
            for (place, number) in places.iter_mut().zip(span.clone()) {
                *place = number / stride % values.len();
                if let Some(failure) = values.bad(*place) {
                    failures.entry(number - span.start).or_insert_with(|| failure.clone());
                }
            }
            table.push(values.at(&places));
        }
        let table = Table::new(self.names.clone(), table, places.len());
        let kept = self.filter.as_ref().map(|filter| kept(filter, &table));
        let mut good = Vec::with_capacity(places.len());
        for at in 0..places.len() {
            let failure = match (failures.remove(&(at as u64)), kept.as_ref().map(|kept| &kept[at])) {
                (Some(failure), _) => Some(failure),
                (None, Some(Ok(false))) => continue,
                (None, Some(Err(problem))) => Some(bad_row(format!("where: {problem} (in {})", told(&table, at)))),
                (None, None | Some(Ok(true))) => None,
            };
            match failure {
                Some(failure) => batch.bad.push((self.next_row, failure)),
                None => {
                    batch.rows.push(self.next_row);
                    good.push(at as u32);
                }
            }
            self.next_row += 1;
        }
        if good.len() == places.len() { table } else { table.take(&good) }
    }
}

impl Iterator for Combinations {
    type Item = Result<ReadBatch, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_batch().map(Ok)
    }
}

/// Whether each combination is to be a row.
fn kept(filter: &SweepFilter, table: &Table) -> Vec<Result<bool, RenderError>> {
    let env = |name: &str| filter.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let scope = Scope { params: &filter.params, env: Some(&env), ..Scope::default() };
    let pieces: Vec<usize> = (0..table.rows()).step_by(PIECE).collect();
    let test = |at: usize| {
        let piece = table.slice(at, PIECE.min(table.rows() - at));
        let rows = Rows { table: &piece, key: &|_| String::new(), index: &|_| 0 };
        filter.condition.test_table(&rows, &scope)
    };
    pieces.into_par_iter().flat_map_iter(test).collect()
}

/// A combination in words.
fn told(table: &Table, at: usize) -> String {
    let cells = table.row(at).into_iter().map(|(name, value)| format!("{name}: {value}"));
    cells.collect::<Vec<_>>().join(", ")
}
