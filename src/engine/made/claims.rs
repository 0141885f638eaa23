//! Which item a path belongs to in this run.
//!
//! Held for all items that were looked at, done ones included: 17 bytes of a table and some 12 and the key of the owner
//! for each file.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use hashbrown::HashTable;

use crate::data::Hash;

/// The number of no stage.
const RESERVED: u32 = u32::MAX;

/// Paths and their owners.
#[derive(Default)]
pub struct Claims(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    /// The hash of a path, and where its owner stands.
    places: HashTable<(u64, usize)>,
    /// One after the other: stage, origin, length of the key, key.
    owners: Vec<u8>,
}

/// Who has a path.
struct Owner<'a> {
    stage: u32,
    origin: u64,
    key: &'a str,
}

impl Claims {
    /// Keeps a path from all items.
    pub fn reserve(&self, place: &Path, what: &str) {
        let _ = self.take(place, &Owner { stage: RESERVED, origin: 0, key: what });
    }

    /// Gives a path to an item, which may have it already. The error says whose it is.
    ///
    /// # Errors
    /// When it belongs to something else.
    pub fn claim(&self, place: &Path, stage: usize, origin: u64, key: &str) -> Result<(), String> {
        self.take(place, &Owner { stage: stage as u32, origin, key })
    }

    fn take(&self, place: &Path, owner: &Owner<'_>) -> Result<(), String> {
        let hash = Hash::of(place.as_os_str().as_encoded_bytes()).short();
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Taken { places, owners } = &mut *taken;
        if let Some(&(_, at)) = places.find(hash, |(h, _)| *h == hash) {
            let first = Owner::read(&owners[at..]);
            return match (first.stage, first.origin) == (owner.stage, owner.origin) {
                true => Ok(()),
                false => Err(first.in_words(owner)),
            };
        }
        places.insert_unique(hash, (hash, owners.len()), |(h, _)| *h);
        owner.write(owners);
        Ok(())
    }
}

impl<'a> Owner<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stage.to_le_bytes());
        out.extend_from_slice(&self.origin.to_le_bytes());
        out.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        out.extend_from_slice(self.key.as_bytes());
    }

    fn read(bytes: &'a [u8]) -> Owner<'a> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let origin = u64::from_le_bytes(bytes[4..12].try_into().expect("eight bytes"));
        let key = &bytes[16..16 + word(12) as usize];
        Owner { stage: word(0), origin, key: std::str::from_utf8(key).expect("written as text") }
    }

    fn in_words(&self, other: &Owner<'_>) -> String {
        match self.stage {
            RESERVED => self.key.to_string(),
            stage if stage == other.stage => format!("the file of item {}", self.key),
            _ => format!("the file of item {} of another stage", self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_first() {
        let claims = Claims::default();
        let claim = |path: &str, stage, origin, key: &str| claims.claim(Path::new(path), stage, origin, key);
        claims.reserve(Path::new("/w/out.csv"), "an output");
        for n in 0..1000 {
            assert_eq!(claim(&format!("/w/{n}"), 0, n, &format!("key {n}")), Ok(()));
        }
        assert_eq!(claim("/w/7", 0, 7, "key 7"), Ok(()), "its own");
        assert_eq!(claim("/w/7", 0, 8, "key 8"), Err("the file of item key 7".into()));
        assert_eq!(claim("/w/7", 1, 7, "key 7"), Err("the file of item key 7 of another stage".into()));
        assert_eq!(claim("/w/out.csv", 0, 1, "key 1"), Err("an output".into()));
    }
}
