//! The slot: shared memory in which a worker names the item in hand, so that its death can be laid to that item.
//!
//! 64 bytes a lane. Word 0: the item in hand (index + 1 below, the low half of the task's sequence number above; 0 is
//! idle, a low half of all ones is decoding or encoding). Word 1: take no new item (bpp-flow writes it; lane 0's
//! counts for all). Word 2, commands only: the process group of the item in hand. Word 3, of lane 0: the most KiB that
//! the process and all that it started were seen to hold, until the worker takes it away.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::wire::{SLOT_CHUNK, SLOT_PHASE};

const LANE_BYTES: usize = 64;
const ITEM: usize = 0;
const STOP: usize = 1;
const GROUP: usize = 2;
const PEAK: usize = 3;

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
    file: OwnedFd,
}

impl Slot {
    /// A new slot file, all lanes idle.
    pub(super) fn create(lanes: usize) -> io::Result<Slot> {
        let file = memfd_create("bpp-flow-slot", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, (lanes.max(1) * LANE_BYTES) as u64)?;
        Slot::open(file)
    }

    /// Maps a slot file that the other side made.
    pub(super) fn open(file: OwnedFd) -> io::Result<Slot> {
        let file = std::fs::File::from(file);
        let map = MmapRaw::map_raw(&file)?;
        Ok(Slot { map, file: file.into() })
    }

    /// The file, to be handed on.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn word(&self, lane: usize, word: usize) -> &AtomicU64 {
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

    /// The process group of the command in hand, 0 for none.
    pub(super) fn group(&self) -> i32 {
        self.word(0, GROUP).load(Ordering::Acquire) as i32
    }

    /// So many bytes were seen.
    pub(super) fn raise_peak(&self, bytes: u64) {
        self.word(0, PEAK).fetch_max((bytes >> 10).min(u32::MAX.into()), Ordering::AcqRel);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_item() {
        let slot = Slot::create(2).unwrap();
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
        let slot = Slot::create(1).unwrap();
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
}
