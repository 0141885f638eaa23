//! Finding outcomes again.
//!
//! Opening a view reads only the directory. A batch of items is looked up in three steps, each only for what the
//! ones before left open:
//! 1. Outcomes that replaced earlier ones (`again`) are few: they are indexed once, and what the index knows, counts.
//! 2. The segments in which the items' rows lie: items that follow each other mostly lie so in a segment too.
//! 3. An index of all outcomes, built when it is first needed, finds items whose rows have changed places, and
//!    outcomes of the same input that nobody else has taken. For few items, what concerns them is indexed, some times.

use std::sync::{Arc, Mutex, MutexGuard};

use hashbrown::{HashMap, HashSet};
use redb::{ReadOnlyTable, ReadTransaction};

use super::Store;
use super::cache::Cache;
use super::codec::{Who, decode_segment, decode_who};
use super::db::{DIRECTORY, SEGMENTS, VERSIONS, table};
use super::error::StoreError;
use super::guard::guard;
use super::index::{Index, Spot, Wanted};
use super::model::Segment;
use crate::data::{Failure, Hash, Items, Origin, Usage};

/// An outcome that was found: item `at` of a segment.
#[derive(Debug, Clone)]
pub struct Hit {
    pub segment: Arc<Segment>,
    pub at: u32,
}

impl Hit {
    /// The failure, if the item failed.
    pub fn failure(&self) -> Option<&Failure> {
        self.segment.failure(self.at as usize)
    }

    /// The attempt at which it ended, from 1.
    pub fn attempt(&self) -> u16 {
        self.segment.attempts[self.at as usize]
    }

    /// What it used.
    pub fn usage(&self) -> Usage {
        self.segment.usage[self.at as usize]
    }

    /// The version that made it, where it was accepted for another one.
    pub fn made(&self) -> Option<Hash> {
        self.segment.made
    }

    /// Whose it is.
    pub fn origin(&self) -> Origin {
        self.segment.origins[self.at as usize]
    }

    /// The hash of what its action saw.
    pub fn input(&self) -> Hash {
        self.segment.inputs[self.at as usize]
    }
}

/// What was committed of a stage at a version when the view was made.
#[derive(Debug)]
pub struct View {
    store: Store,
    version: Hash,
    directory: Directory,
    state: Mutex<State>,
}

/// The segments of a view.
#[derive(Debug, Default)]
struct Directory {
    /// In the order in which they were written.
    entries: Vec<Entry>,
    /// The places of those that replace nothing, by first row; with the largest last row so far.
    by_row: Vec<(u32, u64)>,
    /// The places of those that may replace earlier outcomes.
    again: Vec<u32>,
    items: u64,
    failed: u64,
}

#[derive(Debug)]
struct Entry {
    first: u64,
    last: u64,
    items: u32,
    blob: u64,
    bytes: u32,
}

/// What lookups learn.
#[derive(Debug, Default)]
struct State {
    cache: Cache,
    /// Outcomes that replaced earlier ones.
    again: Option<Index>,
    /// All outcomes.
    all: Option<Index>,
    /// How often all outcomes were gone through for a few items.
    scans: u32,
    taken: Taken,
}

/// Which outcomes have been given out.
#[derive(Debug, Default)]
struct Taken {
    /// By place; none yet where nothing was given out.
    bits: Vec<Box<[u64]>>,
    count: u64,
}

impl Taken {
    fn take(&mut self, spot: Spot, items: u32) {
        let place = spot.place as usize;
        if self.bits.len() <= place {
            self.bits.resize_with(place + 1, Box::default);
        }
        let bits = &mut self.bits[place];
        if bits.is_empty() {
            *bits = vec![0; items.div_ceil(64) as usize].into();
        }
        let (word, bit) = (&mut bits[spot.at as usize / 64], 1 << (spot.at % 64));
        self.count += u64::from(*word & bit == 0);
        *word |= bit;
    }

    fn has(&self, spot: Spot) -> bool {
        let word = self.bits.get(spot.place as usize).and_then(|bits| bits.get(spot.at as usize / 64));
        word.is_some_and(|word| word >> (spot.at % 64) & 1 == 1)
    }
}

/// A batch looks through the segments where its rows lie only if these hold at most so many times its items; and so
/// many more.
const NEAR_FACTOR: u64 = 8;
const NEAR_EXTRA: u64 = 100_000;
/// Rows that were added or removed before it may have moved an item by so many places.
const NEAR_SLACK: u64 = 4000;
/// So few items are looked for without an index of everything, so many times, where there are that many outcomes.
const FEW_ITEMS: usize = 1000;
const SCANS: u32 = 4;
const MANY_OUTCOMES: u64 = 100_000;
/// Segments that are looked at to tell how long items take.
const SAMPLED_SEGMENTS: usize = 16;
/// A hit keeps its whole segment in memory if at least one in so many of its items was hit.
const SPARSE: usize = 8;

impl View {
    pub(super) fn new(store: &Store, stage: &str, version: Hash) -> Result<View, StoreError> {
        let directory = store.reading(|transaction| Directory::read(transaction, stage, version))?;
        Ok(View { store: store.clone(), version, directory, state: Mutex::default() })
    }

    /// The version whose outcomes these are.
    pub fn version(&self) -> Hash {
        self.version
    }

    /// Whether there are no outcomes.
    pub fn is_empty(&self) -> bool {
        self.directory.items == 0
    }

    /// The number of outcomes, those that count no more included.
    pub fn items(&self) -> u64 {
        self.directory.items
    }

    /// How many of them are failures.
    pub fn failed(&self) -> u64 {
        self.directory.failed
    }

    /// The outcome of each item with its input: the last one of its origin. Where there is none, and the items are not
    /// `keyed`, one of another origin with the same input; each is given to one such item only, and not after it was
    /// given to the item whose it is. So it matters in which order batches are looked up.
    pub fn lookup(&self, items: &Items, inputs: &[Hash], keyed: bool) -> Result<Vec<Option<Hit>>, StoreError> {
        if self.is_empty() || items.is_empty() {
            return Ok(vec![None; items.len()]);
        }
        self.store.reading(|transaction| {
            let mut lookup = Lookup::begin(self, transaction, items, inputs, keyed)?;
            lookup.again()?;
            lookup.near(0)?;
            lookup.near(NEAR_SLACK)?;
            lookup.anywhere()?;
            lookup.hits()
        })
    }

    /// For each origin the input of its last outcome.
    pub fn inputs_of(&self, origins: &[Origin]) -> Result<Vec<Option<Hash>>, StoreError> {
        if self.is_empty() || origins.is_empty() {
            return Ok(vec![None; origins.len()]);
        }
        self.store.reading(|transaction| {
            let reader = Reader::new(self, transaction)?;
            let mut state = self.state();
            let wanted: HashSet<Origin> = origins.iter().copied().collect();
            let mut index = reader.index_for(&mut state, origins.len(), &|_, origin| wanted.contains(&origin))?;
            let spots: Vec<Option<Spot>> = origins.iter().map(|&origin| index.find_origin(origin)).collect();
            reader.put_back(&mut state, index);
            let mut inputs = vec![None; origins.len()];
            for (place, found) in by_place(&spots) {
                let segment = reader.segment(&mut state, place)?;
                found.iter().for_each(|&(i, at)| inputs[i as usize] = Some(segment.inputs[at as usize]));
            }
            Ok(inputs)
        })
    }

    /// Of the segment at a place of the directory, the items whose outcomes lookups have given.
    pub(super) fn given_of(&self, place: u32) -> Vec<u32> {
        let state = self.state();
        let items = self.directory.entries.get(place as usize).map_or(0, |entry| entry.items);
        (0..items).filter(|&at| state.taken.has(Spot { place, at })).collect()
    }

    /// The mean time that an item which succeeded took, in microseconds, by a sample; `None`: none did.
    pub fn mean_micros(&self) -> Result<Option<f64>, StoreError> {
        let segments = self.directory.entries.len();
        if segments == 0 {
            return Ok(None);
        }
        self.store.reading(|transaction| {
            let reader = Reader::new(self, transaction)?;
            let (mut micros, mut items) = (0, 0);
            for n in 0..segments.min(SAMPLED_SEGMENTS) {
                let segment =
                    reader.segment(&mut self.state(), (n * segments / segments.min(SAMPLED_SEGMENTS)) as u32)?;
                micros += segment.usage[..segment.done].iter().map(|usage| u64::from(usage.micros)).sum::<u64>();
                items += segment.done as u64;
            }
            Ok((items > 0).then(|| micros as f64 / items as f64))
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panicking thread left is still a cache of what is stored.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Directory {
    fn read(transaction: &ReadTransaction, stage: &str, version: Hash) -> Result<Directory, StoreError> {
        let mut directory = Directory::default();
        let (Some(versions), Some(rows)) = (table(transaction, VERSIONS)?, table(transaction, DIRECTORY)?) else {
            return Ok(directory);
        };
        let Some(set) = versions.get((stage, version.0))?.map(|v| v.value().0) else { return Ok(directory) };
        for row in rows.range((set, 0)..=(set, u64::MAX))? {
            let (first, last, items, failed, again, blob, bytes) = row?.1.value();
            let place = directory.entries.len() as u32;
            directory.entries.push(Entry { first, last, items, blob, bytes });
            directory.items += u64::from(items);
            directory.failed += u64::from(failed);
            if again {
                directory.again.push(place);
            } else {
                directory.by_row.push((place, last));
            }
        }
        let entries = &directory.entries;
        directory.by_row.sort_by_key(|&(place, _)| entries[place as usize].first);
        let mut largest = 0;
        for (_, last) in &mut directory.by_row {
            largest = largest.max(*last);
            *last = largest;
        }
        Ok(directory)
    }

    /// The segments that replace nothing and may hold rows `low ..= high`.
    fn near(&self, low: u64, high: u64) -> Vec<u32> {
        let end = self.by_row.partition_point(|&(place, _)| self.entries[place as usize].first <= high);
        let candidates = self.by_row[..end].iter().rev().take_while(|&&(_, largest)| largest >= low);
        let mut near: Vec<u32> =
            candidates.map(|&(place, _)| place).filter(|&place| self.entries[place as usize].last >= low).collect();
        near.sort_unstable();
        near
    }
}

/// Reads segments within one call.
struct Reader<'v> {
    directory: &'v Directory,
    blobs: ReadOnlyTable<u64, &'static [u8]>,
}

impl<'v> Reader<'v> {
    fn new(view: &'v View, transaction: &ReadTransaction) -> Result<Reader<'v>, StoreError> {
        let blobs = table(transaction, SEGMENTS)?.ok_or_else(|| StoreError::damaged("segments", "its tables"))?;
        Ok(Reader { directory: &view.directory, blobs })
    }

    fn decoded<T>(&self, place: u32, decode: impl Fn(&[u8]) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let entry = &self.directory.entries[place as usize];
        // Guarded by itself: indexes are built by many threads.
        guard(|| {
            let blob = self.blobs.get(entry.blob)?;
            let blob = blob.as_ref().ok_or_else(|| StoreError::Replaced("the state".into()))?.value();
            if blob.len() != entry.bytes as usize {
                return Err(StoreError::damaged("a length", "the directory"));
            }
            decode(blob)
        })
    }

    fn segment(&self, state: &mut State, place: u32) -> Result<Arc<Segment>, StoreError> {
        if let Some(segment) = state.cache.get(place) {
            return Ok(segment);
        }
        let segment = Arc::new(self.decoded(place, decode_segment)?);
        if segment.len() != self.directory.entries[place as usize].items as usize {
            return Err(StoreError::damaged("a number of items", "the directory"));
        }
        state.cache.put(place, segment.clone());
        Ok(segment)
    }

    fn who(&self, place: u32) -> Result<Who, StoreError> {
        self.decoded(place, decode_who)
    }

    fn index(&self, places: &[u32]) -> Result<Index, StoreError> {
        let items = places.iter().map(|&place| self.directory.entries[place as usize].items as usize).sum();
        Index::build(places, items, |place| self.who(place), None)
    }

    fn index_again(&self, state: &mut State) -> Result<(), StoreError> {
        if state.again.is_none() {
            state.again = Some(self.index(&self.directory.again)?);
        }
        Ok(())
    }

    /// An index in which `few` items are looked for, those that are `wanted`: the index of all outcomes, which is to
    /// be put back, or one of theirs.
    fn index_for(&self, state: &mut State, few: usize, wanted: Wanted<'_>) -> Result<Index, StoreError> {
        if let Some(all) = state.all.take() {
            return Ok(all);
        }
        let places: Vec<u32> = (0..self.directory.entries.len() as u32).collect();
        if few > FEW_ITEMS || state.scans == SCANS || self.directory.items < MANY_OUTCOMES {
            return self.index(&places);
        }
        state.scans += 1;
        Index::build(&places, few, |place| self.who(place), Some(wanted))
    }

    /// Keeps an index of all outcomes for the next who needs it.
    fn put_back(&self, state: &mut State, index: Index) {
        if index.is_whole() {
            state.all = Some(index);
        }
    }
}

/// One lookup of a batch.
struct Lookup<'v> {
    reader: Reader<'v>,
    state: MutexGuard<'v, State>,
    items: &'v Items,
    inputs: &'v [Hash],
    spots: Vec<Option<Spot>>,
    missing: usize,
    keyed: bool,
    /// Segments that were read, so that each is read once a lookup.
    segments: HashMap<u32, Arc<Segment>>,
}

impl<'v> Lookup<'v> {
    fn begin(
        view: &'v View,
        transaction: &ReadTransaction,
        items: &'v Items,
        inputs: &'v [Hash],
        keyed: bool,
    ) -> Result<Lookup<'v>, StoreError> {
        assert_eq!(items.len(), inputs.len(), "an input for each item");
        Ok(Lookup {
            reader: Reader::new(view, transaction)?,
            state: view.state(),
            items,
            inputs,
            spots: vec![None; items.len()],
            missing: items.len(),
            keyed,
            segments: HashMap::new(),
        })
    }

    fn segment(&mut self, place: u32) -> Result<Arc<Segment>, StoreError> {
        if let Some(segment) = self.segments.get(&place) {
            return Ok(segment.clone());
        }
        let segment = self.reader.segment(&mut self.state, place)?;
        self.segments.insert(place, segment.clone());
        Ok(segment)
    }

    fn entry(&self, place: u32) -> &'v Entry {
        &self.reader.directory.entries[place as usize]
    }

    fn found(&mut self, i: usize, spot: Spot) {
        self.spots[i] = Some(spot);
        self.missing -= 1;
        let items = self.entry(spot.place).items;
        self.state.taken.take(spot, items);
    }

    fn open_items(&self) -> Vec<usize> {
        (0..self.spots.len()).filter(|&i| self.spots[i].is_none()).collect()
    }

    /// Outcomes that replaced earlier ones count whatever else there is.
    fn again(&mut self) -> Result<(), StoreError> {
        if self.reader.directory.again.is_empty() {
            return Ok(());
        }
        self.reader.index_again(&mut self.state)?;
        self.exact(|state| state.again.as_ref().expect("built above"))
    }

    /// Finds open items by input and origin in an index.
    fn exact(&mut self, index: impl Fn(&State) -> &Index) -> Result<(), StoreError> {
        for i in self.open_items() {
            let Some(spot) = index(&self.state).find(self.inputs[i], self.items.origins[i]) else { continue };
            if self.segment(spot.place)?.inputs[spot.at as usize] == self.inputs[i] {
                self.found(i, spot);
            }
        }
        Ok(())
    }

    /// Looks where the rows are, or were when up to `slack` more or fewer stood before them.
    fn near(&mut self, slack: u64) -> Result<(), StoreError> {
        if self.missing == 0 {
            return Ok(());
        }
        let low = self.items.rows.iter().copied().min().unwrap_or(0);
        let high = self.items.rows.iter().copied().max().unwrap_or(0);
        let places = self.reader.directory.near(low.saturating_sub(slack), high.saturating_add(slack));
        let held: u64 = places.iter().map(|&place| u64::from(self.entry(place).items)).sum();
        if held > NEAR_FACTOR * self.items.len() as u64 + NEAR_EXTRA {
            return Ok(());
        }
        let segments = places.iter().map(|&place| Ok((place, self.segment(place)?)));
        let segments: Vec<(u32, Arc<Segment>)> = segments.collect::<Result<_, StoreError>>()?;
        let mut near = Near::new(segments);
        for i in 0..self.items.len() {
            if self.spots[i].is_none()
                && let Some(spot) = near.find(self.items.rows[i], self.inputs[i], self.items.origins[i])
            {
                self.found(i, spot);
            }
        }
        Ok(())
    }

    /// Looks among all outcomes: for the same origin, then, if the items are not keyed, for any that is free.
    fn anywhere(&mut self) -> Result<(), StoreError> {
        if self.missing == 0 || self.state.taken.count == self.reader.directory.items {
            return Ok(());
        }
        let wanted: HashSet<u64> = self.open_items().iter().map(|&i| self.inputs[i].short()).collect();
        let mut index = self.reader.index_for(&mut self.state, self.missing, &|input, _| wanted.contains(&input))?;
        self.search(
            |_, input, origin| index.find(input, origin),
            |_, segment, spot, origin| segment.origins[spot.at as usize] == origin,
        )?;
        if !self.keyed && self.missing > 0 {
            // Where nothing was replaced, what follows an outcome in its segment counts as well.
            let plain = self.reader.directory.again.is_empty();
            self.search(
                |taken, input, _| index.find_free(input, |spot| !taken.has(spot)),
                |taken, _, spot, _| plain && !taken.has(spot),
            )?;
        }
        self.reader.put_back(&mut self.state, index);
        Ok(())
    }

    /// Finds open items with `find`. What moved mostly moved together: what follows the last one in its segment is
    /// tried first, and is it if the input is the same and `follows` agrees.
    fn search(
        &mut self,
        mut find: impl FnMut(&Taken, Hash, Origin) -> Option<Spot>,
        follows: impl Fn(&Taken, &Segment, Spot, Origin) -> bool,
    ) -> Result<(), StoreError> {
        let mut next: Option<(Spot, Arc<Segment>)> = None;
        for i in self.open_items() {
            let (input, origin) = (self.inputs[i], self.items.origins[i]);
            let (spot, segment) = match next.take() {
                Some((spot, segment))
                    if segment.inputs.get(spot.at as usize) == Some(&input)
                        && follows(&self.state.taken, &segment, spot, origin) =>
                {
                    (spot, segment)
                }
                _ => {
                    let Some(spot) = find(&self.state.taken, input, origin) else { continue };
                    (spot, self.segment(spot.place)?)
                }
            };
            if segment.inputs[spot.at as usize] == input {
                self.found(i, spot);
            }
            next = Some((Spot { at: spot.at + 1, ..spot }, segment));
        }
        Ok(())
    }

    /// The outcomes found. A segment of which few were hit is not kept in memory for them.
    fn hits(mut self) -> Result<Vec<Option<Hit>>, StoreError> {
        let spots = std::mem::take(&mut self.spots);
        let mut hits = vec![None; spots.len()];
        for (place, found) in by_place(&spots) {
            let segment = self.segment(place)?;
            if found.len() * SPARSE >= segment.len() {
                found.iter().for_each(|&(i, at)| hits[i as usize] = Some(Hit { segment: segment.clone(), at }));
                continue;
            }
            // Those done come first in what is taken, as they do in the segment.
            let mut wanted: Vec<u32> = found.iter().map(|&(_, at)| at).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let few = Arc::new(segment.take(&wanted));
            for (i, at) in found {
                let at = wanted.binary_search(&at).expect("taken above") as u32;
                hits[i as usize] = Some(Hit { segment: few.clone(), at });
            }
        }
        Ok(hits)
    }
}

/// Item numbers and where in the segment they are, by segment.
fn by_place(spots: &[Option<Spot>]) -> Vec<(u32, Vec<(u32, u32)>)> {
    let mut places: Vec<(u32, Vec<(u32, u32)>)> = Vec::new();
    let mut known: HashMap<u32, usize> = HashMap::new();
    let mut last = None;
    for (i, spot) in spots.iter().enumerate() {
        let Some(Spot { place, at }) = *spot else { continue };
        let group = match last {
            Some((same, group)) if same == place => group,
            _ => *known.entry(place).or_insert_with(|| {
                places.push((place, Vec::new()));
                places.len() - 1
            }),
        };
        last = Some((place, group));
        places[group].1.push((i as u32, at));
    }
    places
}

/// Finds items in the segments where their rows lie.
struct Near {
    segments: Vec<(u32, Arc<Segment>)>,
    /// Where the next item is if it follows the last one: segment and item in it.
    next: (usize, usize),
    /// Made when guessing fails: (input, origin) → segment and item.
    map: Option<HashMap<(Hash, Origin), (u32, u32)>>,
}

impl Near {
    fn new(segments: Vec<(u32, Arc<Segment>)>) -> Near {
        Near { segments, next: (0, 0), map: None }
    }

    fn find(&mut self, row: u64, input: Hash, origin: Origin) -> Option<Spot> {
        if self.segments.is_empty() {
            return None;
        }
        let (segment, at) = match self.is(self.next, input, origin) {
            true => self.next,
            false => self.by_row(row, input, origin).or_else(|| self.by_map(input, origin))?,
        };
        self.next = (segment, at + 1);
        Some(Spot { place: self.segments[segment].0, at: at as u32 })
    }

    fn is(&self, (segment, at): (usize, usize), input: Hash, origin: Origin) -> bool {
        let segment = &self.segments[segment].1;
        segment.origins.get(at) == Some(&origin) && segment.inputs[at] == input
    }

    /// Rows mostly ascend, among those done and among those failed.
    fn by_row(&self, row: u64, input: Hash, origin: Origin) -> Option<(usize, usize)> {
        (0..self.segments.len()).find_map(|i| {
            let segment = &self.segments[i].1;
            let (done, failed) = segment.rows.split_at(segment.done);
            let places = [done.partition_point(|&r| r < row), done.len() + failed.partition_point(|&r| r < row)];
            places.map(|at| (i, at)).into_iter().find(|&at| self.is(at, input, origin))
        })
    }

    fn by_map(&mut self, input: Hash, origin: Origin) -> Option<(usize, usize)> {
        let map = self.map.get_or_insert_with(|| {
            let each = self.segments.iter().enumerate().flat_map(|(s, (_, segment))| {
                let who = segment.inputs.iter().zip(&segment.origins).enumerate();
                who.map(move |(at, (&input, &origin))| ((input, origin), (s as u32, at as u32)))
            });
            each.collect()
        });
        map.get(&(input, origin)).map(|&(segment, at)| (segment as usize, at as usize))
    }
}
