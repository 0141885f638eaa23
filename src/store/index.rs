//! Sorted entries of stored outcomes, 24 bytes each: for what is not found where it was.

use std::sync::LazyLock;

use hashbrown::HashMap;
use rayon::ThreadPool;
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
    whole: bool,
}

/// Runs what works in parallel while the lock of a view is held.
///
/// A thread of rayon's that waits takes up other work of its pool: here that may be a lookup, which would wait for the
/// lock that this very thread holds. So the work has a pool of its own, and the caller waits outside of both.
fn beside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static POOL: LazyLock<ThreadPool> =
        LazyLock::new(|| rayon::ThreadPoolBuilder::new().build().expect("threads can be started"));
    let done = std::thread::scope(|scope| scope.spawn(|| POOL.install(work)).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Which outcomes are wanted, by the head of the input and by origin.
pub(super) type Wanted<'w> = &'w (dyn Fn(u64, Origin) -> bool + Sync);

fn entries_of(place: u32, who: &Who, wanted: Option<Wanted<'_>>) -> Vec<Entry> {
    let items = who.inputs.iter().map(|input| input.short()).zip(&who.origins).enumerate();
    items
        .filter(|(_, (input, origin))| wanted.is_none_or(|wanted| wanted(*input, **origin)))
        .map(|(at, (input, &origin))| Entry { input, origin, spot: Spot { place, at: at as u32 } })
        .collect()
}

impl Index {
    /// Indexes the segments at `places`, which `who` reads; of their outcomes those that are `wanted`, by the head of
    /// their input and by origin; all, where nothing says which. There are about `items` of them.
    pub fn build(
        places: &[u32],
        items: usize,
        who: impl Fn(u32) -> Result<Who, StoreError> + Send + Sync,
        wanted: Option<Wanted<'_>>,
    ) -> Result<Index, StoreError> {
        beside(|| Index::gather(places, items, &who, wanted))
    }

    /// Whether it holds all outcomes.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    fn gather(
        places: &[u32],
        items: usize,
        who: &(impl Fn(u32) -> Result<Who, StoreError> + Sync),
        wanted: Option<Wanted<'_>>,
    ) -> Result<Index, StoreError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(items);
        // Some segments at a time, so that what is read waits in no queue.
        for places in places.chunks(32) {
            let read: Vec<Vec<Entry>> = places
                .par_iter()
                .map(|&place| Ok(entries_of(place, &who(place)?, wanted)))
                .collect::<Result<_, StoreError>>()?;
            read.iter().for_each(|read| entries.extend(read));
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
        Ok(Index { entries, heads, searched: HashMap::new(), by_origin: Vec::new(), whole: wanted.is_none() })
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
            beside(|| self.by_origin.par_sort_unstable_by_key(key));
        }
        let entry = |i: &u32| self.entries[*i as usize];
        let end = self.by_origin.partition_point(|i| entry(i).origin <= origin);
        let last = self.by_origin[..end].last().map(entry)?;
        (last.origin == origin).then_some(last.spot)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_builds_an_index_takes_up_no_other_lookup() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
        let (done, ended) = std::sync::mpsc::channel();
        let view = Arc::new(Mutex::new(()));
        for _ in 0..16 {
            let (view, done) = (view.clone(), done.clone());
            pool.spawn(move || {
                let _state = view.lock().expect("nobody panics");
                let who = |_| {
                    std::thread::sleep(Duration::from_micros(50));
                    Ok(Who { rows: vec![0], origins: vec![1], inputs: vec![Hash::of(b"1")] })
                };
                let index = Index::build(&(0..100).collect::<Vec<_>>(), 100, who, None).expect("an index");
                done.send(index.find(Hash::of(b"1"), 1).is_some()).expect("the test waits");
            });
        }
        for _ in 0..16 {
            assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true), "a lookup waits for its own lock");
        }
    }
}
