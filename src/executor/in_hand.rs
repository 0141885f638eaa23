//! What was in hand when bpp-flow was killed: read from the slots' files that its workers left ([`super::slot`]).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Mark;
use super::slot::{BEGUN, FOLDER, HEARD, ITEM, LANE_BYTES, LANES, LEDGER, PAGE, ledger_at, slots_bytes, split};
use super::wire::{SLOT_CHUNK, SLOT_PHASE};

/// Of the items that may have been in hand, at most so many are told, the last ones: a worker outlives bpp-flow by some
/// milliseconds.
const MOST_IN_HAND: usize = 1024;

/// The marks of items that were in hand, or may have been, when a bpp-flow was killed that ran in this state folder;
/// `None`: none was. The caller holds the run lock.
pub fn left_in_hand(state_dir: &Path) -> Option<Vec<Mark>> {
    let entries = std::fs::read_dir(state_dir.join(FOLDER)).ok()?;
    let marks = entries.flatten().flat_map(|entry| marks_in_hand(&entry.path()).unwrap_or_default());
    Some(marks.collect())
}

/// Forgets what [`left_in_hand`] told.
pub fn forget_in_hand(state_dir: &Path) {
    // It is there again when it could not be removed: what was in hand is then counted twice.
    let _ = std::fs::remove_dir_all(state_dir.join(FOLDER));
}

/// The folder of slots goes when nothing is left in it.
pub(super) fn remove_folder(state_dir: &Path) {
    let _ = std::fs::remove_dir(state_dir.join(FOLDER));
}

/// What was in hand by a slot's file; `None`: it is none, or damaged.
fn marks_in_hand(path: &Path) -> Option<Vec<Mark>> {
    let file = File::open(path).ok()?;
    let mut head = [0; LANE_BYTES];
    file.read_exact_at(&mut head, 0).ok()?;
    let lanes = usize::try_from(word_of(&head, LANES)).ok().filter(|&lanes| lanes <= PAGE)?;
    let mut slots = vec![0; lanes * LANE_BYTES];
    file.read_exact_at(&mut slots, 0).ok()?;
    let mut found = Vec::new();
    for (lane, words) in slots.chunks_exact(LANE_BYTES).enumerate() {
        let range = in_hand_of(words);
        let mut bytes = vec![0; range.len() * size_of::<Mark>()];
        let at = ledger_at(slots_bytes(lanes), lane) + (range.start * size_of::<Mark>()) as u64;
        if file.read_exact_at(&mut bytes, at).is_ok() {
            let (marks, _) = bytes.as_chunks();
            found.extend(marks.iter().map(|&mark| Mark::from_le_bytes(mark)));
        }
    }
    Some(found)
}

/// Which of a task's items were begun and not heard of, by the words of its lane.
fn in_hand_of(words: &[u8]) -> std::ops::Range<usize> {
    let (marks, seq) = split(word_of(words, LEDGER));
    let (begun, begun_of) = split(word_of(words, BEGUN));
    let (item, item_of) = split(word_of(words, ITEM));
    let mut end = if begun_of == seq { begun } else { 0 };
    if item_of == seq {
        end = match item as u32 {
            SLOT_CHUNK => marks,
            SLOT_PHASE => end,
            _ => end.max(item),
        };
    }
    let end = end.min(marks);
    let start = usize::try_from(word_of(words, HEARD)).unwrap_or(usize::MAX);
    start.max(end.saturating_sub(MOST_IN_HAND)).min(end)..end
}

fn word_of(words: &[u8], word: usize) -> u64 {
    let (words, _) = words.as_chunks();
    words.get(word).map_or(0, |&bytes| u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::slot::Slot;
    use super::*;

    #[test]
    fn what_was_begun_and_not_heard_of_was_in_hand() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(left_in_hand(dir.path()), None);
        let slot = Slot::create(dir.path(), 2).unwrap();
        let left = || left_in_hand(dir.path()).unwrap();
        let marks: Vec<Mark> = (100..110).collect();
        slot.set_begun(6, 9);
        slot.enter(0, 7, &marks);
        assert_eq!(left().len(), 0, "another task's items were begun");
        slot.set_item(7, Some(4));
        assert_eq!(left(), marks[..5]);
        slot.hear_of(0, 3);
        assert_eq!(left(), marks[3..5]);
        slot.set_begun(7, 5);
        slot.set_item(7, None);
        assert_eq!(left(), marks[3..5], "between two items");
        slot.hear_of(0, 5);
        assert_eq!(left().len(), 0);
        slot.word(0, ITEM).store(u64::from(SLOT_CHUNK) | 7 << 32, Ordering::Release);
        assert_eq!(left(), marks[5..], "a function has all of them");
        slot.enter(1, 8, &marks[..2]);
        slot.word(1, ITEM).store(1 | 8 << 32, Ordering::Release);
        slot.leave(0);
        assert_eq!(left(), marks[..1]);
        drop(slot);
        assert_eq!(left().len(), 0);
        forget_in_hand(dir.path());
        assert_eq!(left_in_hand(dir.path()), None);
    }

    #[test]
    fn damaged_ledgers_tell_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(FOLDER);
        std::fs::create_dir(&folder).unwrap();
        for (n, bytes) in [vec![], vec![1; 63], vec![255; 64], vec![255; 5000], [[0; 56].as_slice(), &[1; 8]].concat()]
            .into_iter()
            .enumerate()
        {
            std::fs::write(folder.join(n.to_string()), bytes).unwrap();
        }
        assert_eq!(left_in_hand(dir.path()), Some(vec![]));
    }
}
