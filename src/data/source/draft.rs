//! A batch that is being filled with rows that come when they come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Limits, ReadBatch, bad_row};
use crate::data::failure::Failure;
use crate::data::table::{Table, TableBuilder};

/// How long the first row of a batch waits for company.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same where the batch has an end that is known from an earlier reading.
const LONG_PATIENCE: Duration = Duration::from_secs(5);

/// The rows of a stream on their way into batches.
///
/// A batch ends where it is full, where the reading before had one end (so that equal rows make equal batches,
/// however fast they come), or when its first row has waited long enough.
pub struct Draft {
    limits: Limits,
    /// Where batches ended when the source was last read: row numbers, ascending.
    cuts: Arc<[u64]>,
    next_row: u64,
    table: TableBuilder,
    rows: Vec<u64>,
    /// Places in `table` of what is no row after all.
    dropped: Vec<u32>,
    bad: Vec<(u64, Failure)>,
    bytes: usize,
    since: Option<Instant>,
}

impl Draft {
    pub(crate) fn new(limits: Limits, cuts: Arc<[u64]>) -> Draft {
        Draft {
            limits,
            cuts,
            next_row: 0,
            table: TableBuilder::default(),
            rows: Vec::new(),
            dropped: Vec::new(),
            bad: Vec::new(),
            bytes: 0,
            since: None,
        }
    }

    /// Takes in a row of so many bytes, which `fill` puts into the table; or says what is wrong with it.
    pub(crate) fn push(&mut self, bytes: usize, fill: impl FnOnce(&mut TableBuilder) -> Result<(), String>) {
        self.since.get_or_insert_with(Instant::now);
        match fill(&mut self.table) {
            Ok(()) => self.rows.push(self.next_row),
            Err(what) => {
                self.dropped.push(self.table.rows() as u32);
                self.bad.push((self.next_row, bad_row(what)));
            }
        }
        self.table.end_row();
        self.bytes += bytes;
        self.next_row += 1;
    }

    fn len(&self) -> usize {
        self.rows.len() + self.bad.len()
    }

    /// Whether it takes no more rows.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.limits.rows
            || self.bytes >= self.limits.bytes
            || (self.len() > 0 && self.cuts.binary_search(&self.next_row).is_ok())
    }

    /// How long it may still wait for rows; `None`: it has none yet.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let ahead = self.cuts.last().is_some_and(|&last| last > self.next_row);
        let most = if ahead { LONG_PATIENCE } else { PATIENCE };
        self.since.map(|since| most.saturating_sub(since.elapsed()))
    }

    /// The batch; `None`: there are no rows.
    pub(crate) fn take(&mut self) -> Option<ReadBatch> {
        self.since = None;
        self.bytes = 0;
        let table = std::mem::take(&mut self.table).finish();
        let dropped = std::mem::take(&mut self.dropped);
        let batch = ReadBatch {
            rows: std::mem::take(&mut self.rows),
            table: without(table, &dropped),
            bad: std::mem::take(&mut self.bad),
            bytes: 0,
        };
        (!batch.is_empty()).then_some(batch)
    }
}

fn without(table: Table, dropped: &[u32]) -> Table {
    if dropped.is_empty() {
        return table;
    }
    let kept: Vec<u32> = (0..table.rows() as u32).filter(|row| dropped.binary_search(row).is_err()).collect();
    table.take(&kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::value::Value;

    fn push(draft: &mut Draft, value: i64) {
        draft.push(10, |table| {
            table.cell(0, "x").push(&Value::Int(value));
            if value < 0 { Err("negative".into()) } else { Ok(()) }
        });
    }

    fn lengths(limits: Limits, cuts: &[u64], rows: i64) -> Vec<usize> {
        let mut draft = Draft::new(limits, cuts.into());
        let mut lengths = Vec::new();
        for value in 0..rows {
            if draft.is_full() {
                lengths.extend(draft.take().map(|batch| batch.len()));
            }
            push(&mut draft, value);
        }
        lengths.extend(draft.take().map(|batch| batch.len()));
        lengths
    }

    #[test]
    fn batches_end_where_they_are_full_or_ended_before() {
        assert_eq!(lengths(Limits { rows: 4, bytes: 1000 }, &[], 10), [4, 4, 2]);
        assert_eq!(lengths(Limits { rows: 100, bytes: 30 }, &[], 10), [3, 3, 3, 1]);
        assert_eq!(lengths(Limits { rows: 4, bytes: 1000 }, &[3, 5, 9], 12), [3, 2, 4, 3]);
    }

    #[test]
    fn bad_rows_are_told_apart() {
        let mut draft = Draft::new(Limits { rows: 10, bytes: 1000 }, Arc::default());
        [1, -2, 3].into_iter().for_each(|value| push(&mut draft, value));
        let batch = draft.take().expect("rows");
        assert_eq!(batch.rows, [0, 2]);
        assert_eq!(batch.bad[0].0, 1);
        assert_eq!(batch.table.column("x").map(|c| (c.value(0), c.value(1))), Some((Value::Int(1), Value::Int(3))));
        assert!(draft.take().is_none());
    }
}
