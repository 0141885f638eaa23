//! Merging small segments.
//!
//! Only segments that were written one after the other (of a stage at a version) are merged, and what comes of them
//! takes numbers of theirs. So the order of outcomes never changes, and the later one still counts.
//! The old blobs become garbage, which goes when the next run begins: views made before stay good.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use redb::{ReadTransaction, ReadableTable};

use super::Store;
use super::codec::{EncodedSegment, decode_segment};
use super::commit::garbage;
use super::db::{DIRECTORY, SEGMENTS, table};
use super::error::StoreError;
use super::model::Segment;
use crate::data::Origin;

/// Segments with fewer items and bytes are small.
const SMALL_ITEMS: u32 = 1000;
const SMALL_BYTES: u32 = 256 << 10;
/// Fewer small segments in a row are left alone.
const RUN: usize = 4;
/// Merged segments hold at most so many items. redb gives a blob the next power of two of bytes: 24 bytes each for
/// who the items are and 8 for what they gave just fit 256 KiB.
const MERGED_ITEMS: usize = 8000;
/// What is merged in one transaction.
const WINDOW_ITEMS: u64 = 8 * MERGED_ITEMS as u64;
const WINDOW_BYTES: u64 = 32 << 20;

/// Small segments of a set that follow each other.
#[derive(Debug, Default)]
struct Window {
    set: u32,
    /// Sequence, blob, whether it may replace earlier outcomes.
    segments: Vec<(u64, u64, bool)>,
    items: u64,
    bytes: u64,
    /// Whether the set holds nothing else.
    whole: bool,
}

pub(super) fn tidy(store: &Store) -> Result<(), StoreError> {
    for window in store.reading(windows)? {
        let merged = store.reading(|transaction| merge(transaction, &window))?;
        // What replaced something replaces nothing any more when all is merged.
        let again = window.segments.iter().any(|&(_, _, again)| again) && !window.whole;
        store.transact(|tables| {
            for &(sequence, blob, _) in &window.segments {
                tables.directory.remove((window.set, sequence))?;
                tables.garbage.insert((garbage::SEGMENT, blob), ())?;
            }
            merged.iter().try_for_each(|(n, segment)| tables.place(window.set, *n, segment, again))
        })?;
    }
    Ok(())
}

/// What is worth merging.
fn windows(transaction: &ReadTransaction) -> Result<Vec<Window>, StoreError> {
    let Some(directory) = table(transaction, DIRECTORY)? else { return Ok(Vec::new()) };
    let mut windows = vec![Window::default()];
    let mut sizes: HashMap<u32, usize> = HashMap::new();
    for entry in directory.iter()? {
        let (key, row) = entry?;
        let ((set, sequence), (_, _, items, _, again, blob, bytes)) = (key.value(), row.value());
        *sizes.entry(set).or_default() += 1;
        let small = items < SMALL_ITEMS && bytes < SMALL_BYTES;
        let window = windows.last().expect("never empty");
        let full = window.items >= WINDOW_ITEMS || window.bytes >= WINDOW_BYTES;
        if !small || window.set != set || full {
            windows.push(Window { set, ..Window::default() });
        }
        if small {
            let window = windows.last_mut().expect("never empty");
            window.set = set;
            window.segments.push((sequence, blob, again));
            window.items += u64::from(items);
            window.bytes += u64::from(bytes);
        }
    }
    windows.retain(|window| window.segments.len() >= RUN);
    windows.iter_mut().for_each(|window| window.whole = window.segments.len() == sizes[&window.set]);
    Ok(windows)
}

/// What comes of a window, with the numbers it takes.
fn merge(transaction: &ReadTransaction, window: &Window) -> Result<Vec<(u64, EncodedSegment)>, StoreError> {
    let blobs = table(transaction, SEGMENTS)?.ok_or_else(|| StoreError::damaged("segments", "its tables"))?;
    let mut parts = Vec::with_capacity(window.segments.len());
    for &(_, blob, _) in &window.segments {
        let bytes = blobs.get(blob)?.ok_or_else(|| StoreError::damaged("a missing segment", "the directory"))?;
        parts.push(decode_segment(bytes.value())?);
    }
    let kept = without_replaced(&parts);
    let mut merged = Vec::new();
    for group in groups(&kept) {
        let all = Segment::concat(&kept[group.clone()].iter().collect::<Vec<_>>());
        let mut order: Vec<u32> = (0..all.len() as u32).collect();
        order.sort_by_key(|&i| all.rows[i as usize]);
        let chunks = order.chunks(MERGED_ITEMS);
        let numbers = window.segments[group].iter().rev().take(chunks.len()).rev();
        merged.extend(numbers.zip(chunks).map(|(&(number, ..), items)| (number, all.take(items).encode())));
    }
    Ok(merged)
}

/// Parts that may become one: one version made them, and no origin stands in two of them. (It has different inputs then, and which of them was
/// its last must stay known.)
fn groups(parts: &[Segment]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut origins: HashSet<Origin> = HashSet::new();
    let mut start = 0;
    for (p, part) in parts.iter().enumerate() {
        let other = p > start && part.made != parts[start].made;
        if other || part.origins.iter().any(|origin| origins.contains(origin)) {
            groups.push(start..p);
            origins.clear();
            start = p;
        }
        origins.extend(&part.origins);
    }
    groups.push(start..parts.len());
    groups
}

/// The parts without the outcomes that a later part, or a later place in the same, replaces.
fn without_replaced(parts: &[Segment]) -> Vec<Segment> {
    let mut last = HashMap::new();
    for (p, part) in parts.iter().enumerate() {
        for (at, who) in part.inputs.iter().zip(&part.origins).enumerate() {
            last.insert(who, (p, at));
        }
    }
    let wins = |p: usize, at: u32| {
        let who = (&parts[p].inputs[at as usize], &parts[p].origins[at as usize]);
        last[&who] == (p, at as usize)
    };
    let indices = |p: usize| (0..parts[p].len() as u32).filter(|&at| wins(p, at)).collect::<Vec<u32>>();
    (0..parts.len()).map(|p| parts[p].take(&indices(p))).collect()
}
