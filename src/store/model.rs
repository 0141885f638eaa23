//! What the store keeps, in memory.

use crate::data::{Failure, Hash, Items, Origin, Table, Usage};

/// The outcomes of some items of a stage at one version: those done first, then those failed.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The source row of each item (see [`Items::rows`]).
    pub rows: Vec<u64>,
    /// Who each item is.
    pub origins: Vec<Origin>,
    /// The hash of what the action saw of each.
    pub inputs: Vec<Hash>,
    /// What each used.
    pub usage: Vec<Usage>,
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
    /// The version that made them, where they were accepted for another one.
    pub made: Option<Hash>,
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

    /// Bytes held, roughly.
    pub fn bytes(&self) -> usize {
        let counts = self.counts.as_ref().map_or(0, |counts| counts.len() * 4);
        let failures = self
            .failures
            .iter()
            .map(|(key, f)| key.len() + f.message.len() + f.traceback.len() + f.output.len() + f.place.len() + 160);
        self.len() * 42 + counts + self.added.bytes() + failures.sum::<usize>()
    }

    /// How many rows item `at`, which succeeded, gave.
    pub fn count(&self, at: usize) -> u32 {
        self.counts.as_ref().map_or(1, |counts| counts[at])
    }

    /// Where in the added table the rows of each item end; `None`: each gave one.
    pub fn ends(&self) -> Option<Vec<u32>> {
        let mut end = 0;
        let next = |&count: &u32| {
            end += count;
            end
        };
        self.counts.as_ref().map(|counts| counts.iter().map(next).collect())
    }

    /// The items of `indices` in that order, those done before those failed.
    pub fn take(&self, indices: &[u32]) -> Segment {
        let (done, failed): (Vec<u32>, Vec<u32>) = indices.iter().partition(|&&i| (i as usize) < self.done);
        let added = match self.ends() {
            None => self.added.take(&done),
            Some(ends) => {
                let given = |&i: &u32| ends[i as usize] - self.count(i as usize)..ends[i as usize];
                self.added.take(&done.iter().flat_map(given).collect::<Vec<u32>>())
            }
        };
        let counts = self.counts.as_ref().map(|counts| done.iter().map(|&i| counts[i as usize]).collect());
        let failures = failed.iter().map(|&i| self.failures[i as usize - self.done].clone()).collect();
        fn pick<T: Copy>(from: &[T], done: &[u32], failed: &[u32]) -> Vec<T> {
            done.iter().chain(failed).map(|&i| from[i as usize]).collect()
        }
        Segment {
            rows: pick(&self.rows, &done, &failed),
            origins: pick(&self.origins, &done, &failed),
            inputs: pick(&self.inputs, &done, &failed),
            usage: pick(&self.usage, &done, &failed),
            attempts: pick(&self.attempts, &done, &failed),
            done: done.len(),
            counts,
            added,
            failures,
            made: self.made,
        }
    }

    /// All items of all parts, which one version made, in that order but those done before those failed.
    pub fn concat(parts: &[&Segment]) -> Segment {
        fn each<T: Copy>(parts: &[&Segment], column: impl Fn(&Segment) -> &[T]) -> Vec<T> {
            let done = parts.iter().flat_map(|p| &column(p)[..p.done]);
            done.chain(parts.iter().flat_map(|p| &column(p)[p.done..])).copied().collect()
        }
        let counted = parts.iter().any(|p| p.counts.is_some());
        let counts = |p: &&Segment| p.counts.clone().unwrap_or_else(|| vec![1; p.done]);
        let added: Vec<Table> = parts.iter().map(|p| p.added.clone()).filter(|t| t.rows() > 0).collect();
        Segment {
            rows: each(parts, |p| &p.rows),
            origins: each(parts, |p| &p.origins),
            inputs: each(parts, |p| &p.inputs),
            usage: each(parts, |p| &p.usage),
            attempts: each(parts, |p| &p.attempts),
            done: parts.iter().map(|p| p.done).sum(),
            counts: counted.then(|| parts.iter().flat_map(counts).collect()),
            added: match added[..] {
                [] => parts.first().map_or_else(|| Table::empty(0), |p| p.added.clone()),
                _ => Table::concat(&added),
            },
            failures: parts.iter().flat_map(|p| p.failures.iter().cloned()).collect(),
            made: parts.first().and_then(|p| p.made),
        }
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
