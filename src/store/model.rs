//! What the store keeps, in memory.

use crate::data::{Failure, Hash, Items, Origin, Table};

/// The outcomes of some items of a stage at one version: those done first, then those failed.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The source row of each item (see [`Items::rows`]).
    pub rows: Vec<u64>,
    /// Who each item is.
    pub origins: Vec<Origin>,
    /// The hash of what the action saw of each.
    pub inputs: Vec<Hash>,
    /// Microseconds that each took.
    pub micros: Vec<u32>,
    /// The attempt at which each ended, from 1.
    pub attempts: Vec<u16>,
    /// How many of them, from the first, succeeded.
    pub done: usize,
    /// Rows that each of these gave; `None`: one each.
    pub counts: Option<Vec<u32>>,
    /// The columns that the stage added: a row per row given.
    pub added: Table,
    /// The others: key and story of each.
    pub failures: Vec<(String, Failure)>,
}

impl Segment {
    /// The number of items.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The failure of item `at`, if it failed.
    pub fn failure(&self, at: usize) -> Option<&Failure> {
        at.checked_sub(self.done).map(|i| &self.failures[i].1)
    }
}

/// A batch of a source as it was read: good rows with who they are, and rows that could not be read.
#[derive(Debug, Clone)]
pub struct RosterBatch {
    pub items: Items,
    pub table: Table,
    /// Source row, key and story of rows that are no items' fault but the input's.
    pub bad: Vec<(u64, String, Failure)>,
    /// The hash of all of it: rows, origins, keys, bad rows.
    pub digest: Hash,
}

/// What is known of a source's roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterInfo {
    /// Whether the source was read to its end.
    pub complete: bool,
    /// Number of batches.
    pub batches: u64,
    /// Number of rows, bad ones included.
    pub rows: u64,
    /// The hash of the batches' digests.
    pub digest: Hash,
    /// The hash of the source's definition and content when it was read, where that can be had.
    pub content: Option<Hash>,
}
