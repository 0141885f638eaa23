//! Items that were in hand when bpp-flow was killed, or the machine went down: they may be why.
//!
//! No attempt is counted for them. They run alone, with no other item in hand, before anything else that is due with
//! them; one that was in hand at [`MOST_ENDS`] such ends fails, so that it is not met for ever. Workers leave word of
//! what they have in hand in the state folder ([`crate::executor::left_in_hand`]); the next run takes it into a note.

use std::collections::BTreeMap;
use std::path::Path;

use super::EngineError;
use crate::data::{Failure, FailureKind, Hash, Origin};
use crate::executor::{Mark, forget_in_hand, left_in_hand};
use crate::plan::PlannedStage;
use crate::store::{Store, Write};

/// An item that was in hand at so many ends is not run again by itself.
const MOST_ENDS: u32 = 3;
const NOTE: &str = "suspects";

/// The suspects that have not run since, and at how many ends each was in hand.
#[derive(Debug, Default)]
pub struct Suspects {
    ends: BTreeMap<Mark, u32>,
    changed: bool,
}

/// What is to be done with a due item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    None,
    RunAlone,
    Condemned,
}

impl Suspects {
    /// The suspects that earlier runs left. The caller holds the store's lock.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn take_over(store: &Store, state_dir: &Path) -> Result<Suspects, EngineError> {
        let noted = store.note(NOTE)?.and_then(|json| serde_json::from_str(&json).ok());
        let mut suspects = Suspects { ends: noted.unwrap_or_default(), changed: false };
        if let Some(marks) = left_in_hand(state_dir) {
            marks.into_iter().for_each(|mark| *suspects.ends.entry(mark).or_default() += 1);
            store.commit(&[suspects.write()])?;
            forget_in_hand(state_dir);
        }
        Ok(suspects)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What an item is suspected of.
    pub fn suspicion(&self, mark: Mark) -> Suspicion {
        match self.ends.get(&mark) {
            None => Suspicion::None,
            Some(&ends) if ends < MOST_ENDS => Suspicion::RunAlone,
            Some(_) => Suspicion::Condemned,
        }
    }

    /// The item has an outcome.
    pub fn clear(&mut self, mark: Mark) {
        self.changed |= self.ends.remove(&mark).is_some();
    }

    /// All items that could be due were: those left are gone.
    pub fn clear_all(&mut self) {
        self.changed |= !self.ends.is_empty();
        self.ends.clear();
    }

    /// Writes down those that are left, if others were cleared.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn save(&self, store: &Store) -> Result<(), EngineError> {
        if self.changed {
            store.commit(&[self.write()])?;
        }
        Ok(())
    }

    fn write(&self) -> Write {
        match self.ends.is_empty() {
            true => Write::RemoveNote { key: NOTE.into() },
            false => {
                let json = serde_json::to_string(&self.ends).expect("numbers serialise");
                Write::Note { key: NOTE.into(), json }
            }
        }
    }
}

/// What is told of an item that is not run again.
pub fn condemned() -> Failure {
    let message = format!("in hand each of the {MOST_ENDS} times that bpp-flow was killed or the machine went down");
    Failure::new(FailureKind::Crash, message)
}

/// Makes marks of a stage's items.
#[derive(Debug, Clone, Copy)]
pub struct Marks(u64);

impl Marks {
    /// Those of a stage at its version.
    pub fn of(stage: &PlannedStage) -> Marks {
        let seed = Hash::of_parts([stage.name.as_bytes(), &stage.version.0]);
        Marks(first_half(seed))
    }

    /// The mark of an item with that input.
    pub fn mark(self, origin: Origin, input: Hash) -> Mark {
        // All three are hashes already.
        self.0 ^ origin.rotate_left(32) ^ first_half(input)
    }
}

fn first_half(hash: Hash) -> u64 {
    u64::from_le_bytes(*hash.0.first_chunk().expect("sixteen bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OpenOptions;

    #[test]
    fn suspects_are_counted_until_they_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &OpenOptions::default()).unwrap();
        let begin = || Suspects::take_over(&store, dir.path()).unwrap();
        assert!(begin().is_empty());
        let mut suspects = Suspects { ends: [(1, 1), (2, 2), (3, 3)].into(), changed: true };
        suspects.save(&store).unwrap();
        suspects = begin();
        let judged = [0, 1, 2, 3].map(|mark| suspects.suspicion(mark));
        assert_eq!(judged, [Suspicion::None, Suspicion::RunAlone, Suspicion::RunAlone, Suspicion::Condemned]);
        suspects.clear(2);
        suspects.save(&store).unwrap();
        assert_eq!(begin().ends, [(1, 1), (3, 3)].into());
        suspects.clear_all();
        suspects.save(&store).unwrap();
        assert!(begin().is_empty() && store.note(NOTE).unwrap().is_none());
    }
}
