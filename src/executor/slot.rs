//! The slot: shared memory in which a worker names the item in hand, so that its death can be laid to that item; and
//! the ledger behind it, which says which items it was given, so that the next run knows what was in hand when bpp-flow
//! itself was killed ([`super::in_hand`]).
//!
//! A file of the state folder, there as long as its worker. Functions share their process with the worker and may write
//! anything into it: nothing here trusts what it reads. First 64 bytes a lane:
//!
//! | word | |
//! |---|---|
//! | 0 | the item in hand (index + 1 below, the low half of the task's sequence number above; 0 is idle, a low half of all ones is decoding or encoding) |
//! | 1 | take no new item (bpp-flow writes it; lane 0's counts for all) |
//! | 2 | commands only: the process group of the item in hand |
//! | 3 | of lane 0: the most KiB that the process and all that it started were seen to hold, until the worker takes it away |
//! | 4 | how many items of the task were begun (below; the task above), brought up to date between items |
//! | 5 | how many items of the task bpp-flow has heard of (bpp-flow writes it) |
//! | 6 | how many marks of the task's items stand in the ledger (below; the task above; bpp-flow writes it) |
//! | 7 | the number of lanes |
//!
//! Then, from the next page on, 8 MiB a lane (a hole, but for what is used): the marks.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::MmapRaw;

use super::Mark;
use super::wire::{SLOT_CHUNK, SLOT_PHASE};

pub(super) const LANE_BYTES: usize = 64;
pub(super) const PAGE: usize = 4096;
pub(super) const ITEM: usize = 0;
const STOP: usize = 1;
const GROUP: usize = 2;
const PEAK: usize = 3;
pub(super) const BEGUN: usize = 4;
pub(super) const HEARD: usize = 5;
pub(super) const LEDGER: usize = 6;
pub(super) const LANES: usize = 7;
const LEDGER_BYTES: u64 = 8 << 20;
const MOST_MARKS: usize = LEDGER_BYTES as usize / size_of::<Mark>();
/// The folder of slots in the state folder.
pub(super) const FOLDER: &str = "in-hand";

/// What a worker is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InHand {
    /// No item: idle, or reading, writing, loading.
    Nothing,
    Item(u32),
    /// Items that a function takes together.
    Several,
}

/// A mapped slot file.
pub(super) struct Slot {
    map: MmapRaw,
    file: File,
    lanes: usize,
    /// Where it lies, if it goes with this value.
    path: Option<PathBuf>,
    /// What the lanes had in hand when they were last looked at, and whether that is on the disk.
    aged: Mutex<Vec<(u64, bool)>>,
}

impl Slot {
    /// A new slot file in a state folder, all lanes idle.
    pub(super) fn create(state_dir: &Path, lanes: usize) -> io::Result<Slot> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = state_dir.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let path = folder.join(format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // Written, not only set to a length: a full disk shows now, and not when the memory is used.
        file.write_all_at(&vec![0; slots_bytes(lanes)], 0)?;
        let mut slot = Slot::map(file, lanes)?;
        slot.path = Some(path);
        slot.word(0, LANES).store(lanes as u64, Ordering::Release);
        Ok(slot)
    }

    /// Maps a slot file that the other side made, of which only lane 0 is of interest.
    pub(super) fn open(file: OwnedFd) -> io::Result<Slot> {
        Slot::map(file.into(), 1)
    }

    fn map(file: File, lanes: usize) -> io::Result<Slot> {
        let map = memmap2::MmapOptions::new().len(slots_bytes(lanes)).map_raw(&file)?;
        Ok(Slot { map, file, lanes, path: None, aged: Mutex::default() })
    }

    /// The file, to be handed on.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) fn word(&self, lane: usize, word: usize) -> &AtomicU64 {
        let at = lane * LANE_BYTES + word * 8;
        assert!(at + 8 <= self.map.len(), "a lane of the slot");
        // SAFETY: in bounds (checked), aligned (the map is page-aligned, offsets are multiples of 8), mapped as long
        // as `self` lives; all access from this side is atomic.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(at).cast()) }
    }

    /// Word 0 as it stands; changes whenever the worker goes on.
    pub(super) fn raw(&self, lane: usize) -> u64 {
        self.word(lane, ITEM).load(Ordering::Acquire)
    }

    /// What the lane has in hand of the task `seq`.
    pub(super) fn in_hand(&self, lane: usize, seq: u64) -> InHand {
        let raw = self.raw(lane);
        let low = raw as u32;
        match low {
            0 | SLOT_PHASE => InHand::Nothing,
            _ if (raw >> 32) as u32 != seq as u32 => InHand::Nothing,
            SLOT_CHUNK => InHand::Several,
            _ => InHand::Item(low - 1),
        }
    }

    /// Names the item in hand, or none.
    pub(super) fn set_item(&self, seq: u64, item: Option<u32>) {
        let value = item.map_or(0, |i| u64::from(i + 1) | (seq & 0xFFFF_FFFF) << 32);
        self.word(0, ITEM).store(value, Ordering::Release);
    }

    /// Asks the worker to take no new item.
    pub(super) fn stop(&self) {
        self.word(0, STOP).store(1, Ordering::Release);
    }

    /// Whether no new item is to be taken.
    pub(super) fn stopped(&self) -> bool {
        self.word(0, STOP).load(Ordering::Acquire) != 0
    }

    /// Takes note of the items that the lane is about to be given. What does not fit, or finds no room on the disk,
    /// would not be known after a kill, and that is all.
    pub(super) fn enter(&self, lane: usize, seq: u64, marks: &[Mark]) {
        self.leave(lane);
        let marks = &marks[..marks.len().min(MOST_MARKS)];
        let mut bytes = Vec::with_capacity(size_of_val(marks));
        marks.iter().for_each(|mark| bytes.extend_from_slice(&mark.to_le_bytes()));
        if self.file.write_all_at(&bytes, ledger_at(self.map.len(), lane)).is_ok() {
            self.word(lane, HEARD).store(0, Ordering::Release);
            self.word(lane, LEDGER).store(paired(marks.len(), seq), Ordering::Release);
        }
    }

    /// So many of these items have been heard of.
    pub(super) fn hear_of(&self, lane: usize, items: usize) {
        self.word(lane, HEARD).store(items as u64, Ordering::Release);
    }

    /// The lane has none of these items in hand any more.
    pub(super) fn leave(&self, lane: usize) {
        self.word(lane, LEDGER).store(0, Ordering::Release);
    }

    /// So many items of the task were begun.
    pub(super) fn set_begun(&self, seq: u64, items: usize) {
        self.word(0, BEGUN).store(paired(items, seq), Ordering::Release);
    }

    /// How many items of the task were begun, as far as the worker has said.
    pub(super) fn begun(&self, lane: usize, seq: u64) -> usize {
        match split(self.word(lane, BEGUN).load(Ordering::Acquire)) {
            (begun, of) if of == seq as u32 => begun,
            _ => 0,
        }
    }

    /// Whether a lane has had the same item in hand since this was last asked, and that is not on the disk yet.
    pub(super) fn should_be_kept(&self) -> bool {
        let mut aged = self.aged.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        aged.resize(self.lanes, (0, true));
        let mut found = false;
        for (lane, (seen, kept)) in aged.iter_mut().enumerate() {
            let raw = self.raw(lane);
            found |= raw == *seen && !*kept;
            *kept = raw as u32 == 0 || raw == *seen;
            *seen = raw;
        }
        found
    }

    /// Brings it to the disk, for the case that the machine goes down.
    pub(super) fn keep(&self) {
        // Where that fails, an item is not known after a crash of the machine.
        let _ = self.file.sync_data();
    }

    /// The process group of the command in hand, 0 for none.
    pub(super) fn group(&self) -> i32 {
        self.word(0, GROUP).load(Ordering::Acquire) as i32
    }

    /// So much memory was seen.
    pub(super) fn raise_peak(&self, kib: u32) {
        self.word(0, PEAK).fetch_max(kib.into(), Ordering::AcqRel);
    }

    /// The most KiB seen since the worker last asked.
    pub(super) fn peak(&self) -> u32 {
        self.word(0, PEAK).load(Ordering::Acquire) as u32
    }

    /// Names the process group of the command in hand.
    pub(super) fn set_group(&self, group: i32) {
        self.word(0, GROUP).store(u64::from(group.cast_unsigned()), Ordering::Release);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What cannot be removed now is found, and found to be stale, by the next run.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A number with the task that it is of.
pub(super) fn paired(number: usize, seq: u64) -> u64 {
    number as u64 & 0xFFFF_FFFF | seq << 32
}

pub(super) fn split(word: u64) -> (usize, u32) {
    (word as u32 as usize, (word >> 32) as u32)
}

/// Bytes of the slots before the ledger.
pub(super) fn slots_bytes(lanes: usize) -> usize {
    (lanes.max(1) * LANE_BYTES).next_multiple_of(PAGE)
}

pub(super) fn ledger_at(slots: usize, lane: usize) -> u64 {
    slots as u64 + lane as u64 * LEDGER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_item() {
        let dir = tempfile::tempdir().unwrap();
        let slot = Slot::create(dir.path(), 2).unwrap();
        let other = Slot::open(slot.file().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(slot.in_hand(0, 7), InHand::Nothing);
        other.set_item(7, Some(4));
        assert_eq!(slot.in_hand(0, 7), InHand::Item(4));
        assert_eq!(slot.in_hand(0, 8), InHand::Nothing, "another task's item blames nobody");
        assert_eq!(slot.in_hand(1, 7), InHand::Nothing);
        slot.stop();
        assert!(other.stopped());
    }

    #[test]
    fn phases_without_an_item_name_none() {
        let dir = tempfile::tempdir().unwrap();
        let slot = Slot::create(dir.path(), 1).unwrap();
        for (raw, in_hand) in [
            (u64::from(SLOT_PHASE) | 3 << 32, InHand::Nothing),
            (u64::from(SLOT_CHUNK) | 3 << 32, InHand::Several),
            (1 | 3 << 32, InHand::Item(0)),
            (3 << 32, InHand::Nothing),
        ] {
            slot.word(0, ITEM).store(raw, Ordering::Release);
            assert_eq!(slot.in_hand(0, 3), in_hand);
        }
    }

    #[test]
    fn an_item_that_stays_in_hand_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let slot = Slot::create(dir.path(), 1).unwrap();
        let asked = |n: u32| {
            slot.set_item(1, Some(n));
            slot.should_be_kept()
        };
        assert_eq!(
            [asked(1), asked(2), asked(2), asked(2), asked(3), asked(3)],
            [false, false, true, false, false, true]
        );
        slot.set_item(1, None);
        assert!(!slot.should_be_kept() && !slot.should_be_kept());
    }
}
