//! Sorted entries of stored outcomes, 24 bytes each: for what is not found where it was.

use hashbrown::HashMap;
use rayon::prelude::*;

use super::codec::Who;
use super::error::StoreError;
use crate::data::{Hash, Origin};

/// Where an outcome is: a segment's place in the directory, and the item in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub place: u32,
    pub at: u32,
}

/// The head of the input hash suffices to sort; who takes a spot compares the whole hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    input: u64,
    origin: Origin,
    spot: Spot,
}

/// Where among sorted entries those begin whose inputs share their first bits: spares the far jumps of a search.
#[derive(Debug, Default)]
struct Heads {
    starts: Vec<u32>,
    bits: u32,
}

/// Entries that share their first bits, on average.
const PER_HEAD: usize = 16;

impl Heads {
    fn of(entries: &[Entry]) -> Heads {
        let bits = (entries.len() / PER_HEAD).max(2).ilog2();
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        for (at, entry) in entries.iter().enumerate() {
            let head = (entry.input >> (64 - bits)) as usize;
            while starts.len() <= head {
                starts.push(at as u32);
            }
        }
        starts.resize((1 << bits) + 1, entries.len() as u32);
        Heads { starts, bits }
    }

    /// The first entry of that input or a larger one is in this range, or where it ends.
    fn range(&self, input: u64) -> std::ops::Range<usize> {
        let head = (input >> (64 - self.bits)) as usize;
        self.starts[head] as usize..self.starts[head + 1] as usize
    }
}

/// The outcomes of some segments by input and origin, the last of each.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    heads: Heads,
    /// For inputs that many have: where the search for one that is free goes on.
    searched: HashMap<u64, usize>,
    /// Positions in `entries` in the order of origin, then of the time of writing; made when first asked for.
    by_origin: Vec<u32>,
}

impl Index {
    /// Indexes the segments at `places`, which `who` reads.
    pub fn build(
        places: &[u32],
        items: usize,
        who: impl Fn(u32) -> Result<Who, StoreError> + Sync,
    ) -> Result<Index, StoreError> {
        let mut entries = Vec::with_capacity(items);
        // Some segments at a time, so that what is read waits in no queue.
        for places in places.chunks(32) {
            let read: Vec<(u32, Who)> =
                places.par_iter().map(|&place| Ok((place, who(place)?))).collect::<Result<_, StoreError>>()?;
            for (place, who) in &read {
                let items = who.inputs.iter().zip(&who.origins).enumerate();
                entries.extend(items.map(|(at, (input, &origin))| Entry {
                    input: input.short(),
                    origin,
                    spot: Spot { place: *place, at: at as u32 },
                }));
            }
        }
        entries.par_sort_unstable();
        // Of equal input and origin the last written stays.
        entries.dedup_by(|later, first| {
            let same = (later.input, later.origin) == (first.input, first.origin);
            if same {
                first.spot = later.spot;
            }
            same
        });
        let heads = Heads::of(&entries);
        Ok(Index { entries, heads, searched: HashMap::new(), by_origin: Vec::new() })
    }

    /// The outcome of that input and origin.
    pub fn find(&self, input: Hash, origin: Origin) -> Option<Spot> {
        let key = (input.short(), origin);
        let near = self.heads.range(key.0);
        let at = near.start + self.entries[near].partition_point(|e| (e.input, e.origin) < key);
        self.entries.get(at).filter(|e| (e.input, e.origin) == key).map(|e| e.spot)
    }

    /// An outcome of that input which is free.
    pub fn find_free(&mut self, input: Hash, free: impl Fn(Spot) -> bool) -> Option<Spot> {
        let input = input.short();
        let start = match self.searched.get(&input) {
            Some(&at) => at,
            None => {
                let near = self.heads.range(input);
                near.start + self.entries[near].partition_point(|e| e.input < input)
            }
        };
        let same = self.entries[start..].iter().take_while(|e| e.input == input);
        let mut passed = 0;
        let found = same.inspect(|_| passed += 1).find(|e| free(e.spot)).map(|e| e.spot);
        if passed > 1 {
            self.searched.insert(input, start + passed - 1);
        }
        found
    }

    /// The last outcome of that origin, whatever its input.
    pub fn find_origin(&mut self, origin: Origin) -> Option<Spot> {
        if self.by_origin.len() != self.entries.len() {
            self.by_origin = (0..self.entries.len() as u32).collect();
            let key = |&i: &u32| (self.entries[i as usize].origin, self.entries[i as usize].spot);
            self.by_origin.par_sort_unstable_by_key(key);
        }
        let entry = |i: &u32| self.entries[*i as usize];
        let end = self.by_origin.partition_point(|i| entry(i).origin <= origin);
        let last = self.by_origin[..end].last().map(entry)?;
        (last.origin == origin).then_some(last.spot)
    }
}
