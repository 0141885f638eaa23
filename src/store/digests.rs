//! What is known of the contents of files, kept from run to run.
//!
//! An entry is under the hash of its path. It says in which *epoch* it was written; an epoch is a run that had something to
//! say. What is still looked at is said again in time; what is not is forgotten.

use std::path::{Path, PathBuf};

use redb::ReadableTable;

use super::Store;
use super::commit::{Tables, Write};
use super::db::{DIGESTS, DIGESTS_EPOCH_FACT, FACTS, table};
use super::error::StoreError;
use crate::data::Hash;
use crate::data::source::{FileStamp, KeptDigests, Known};

/// What is kept of a file: size, time of the last change, inode, digest, whether it was fresh, the epoch.
pub(super) type Row = (u64, i64, u64, [u8; 32], bool, u64);

/// After so many epochs an entry that is looked at is said again.
const REPEATED_AFTER: u64 = 8;
/// After so many an entry is forgotten; so often it is seen which are.
const FORGOTTEN_AFTER: u64 = 16;

/// The digests that a store keeps.
struct Kept {
    store: Store,
    epoch: u64,
}

impl Store {
    /// What it keeps of files' contents.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn digests(&self) -> Result<impl KeptDigests + use<>, StoreError> {
        let epoch = self.reading(|transaction| {
            let facts = table(transaction, FACTS)?;
            Ok(facts.map(|facts| facts.get(DIGESTS_EPOCH_FACT)).transpose()?.flatten().map_or(0, |v| v.value()))
        })?;
        Ok(Kept { store: self.clone(), epoch })
    }
}

impl KeptDigests for Kept {
    fn find(&self, paths: &[&Path]) -> Vec<Option<(Known, bool)>> {
        let known = |(size, mtime_ns, inode, digest, fresh, epoch): Row| {
            let stamp = FileStamp { size, mtime_ns: mtime_ns.into(), inode };
            (Known { stamp, digest, fresh }, epoch + REPEATED_AFTER <= self.epoch)
        };
        let rows = self.store.reading(|transaction| {
            let Some(digests) = table(transaction, DIGESTS)? else { return Ok(vec![None; paths.len()]) };
            let row = |path: &&Path| Ok(digests.get(key(path))?.map(|row| known(row.value())));
            paths.iter().map(row).collect::<Result<_, StoreError>>()
        });
        // A memory that cannot be read is none: the files are.
        rows.unwrap_or_else(|_| vec![None; paths.len()])
    }

    fn keep(&self, learnt: Vec<(PathBuf, Known)>) {
        // A reader keeps nothing; a writer whose disk fails says so at its next commit.
        let _ = self.store.commit(&[Write::Digests(learnt)]);
    }
}

impl Tables<'_> {
    /// Keeps what was learnt. The first to be said by an open store opens an epoch.
    pub fn keep_digests(&mut self, learnt: &[(PathBuf, Known)], new_epoch: bool) -> Result<(), StoreError> {
        let epoch = self.facts.get(DIGESTS_EPOCH_FACT)?.map_or(0, |v| v.value()) + u64::from(new_epoch);
        if new_epoch {
            self.facts.insert(DIGESTS_EPOCH_FACT, epoch)?;
            if epoch % FORGOTTEN_AFTER == 0 {
                self.digests.retain(|_, row| row.5 + FORGOTTEN_AFTER > epoch)?;
            }
        }
        let mut learnt: Vec<([u8; 16], &Known)> = learnt.iter().map(|(path, known)| (key(path), known)).collect();
        learnt.sort_unstable_by_key(|(key, _)| *key);
        for (key, Known { stamp, digest, fresh }) in learnt {
            // A time beyond the year 2262 is no stamp to rely on.
            let Ok(mtime_ns) = i64::try_from(stamp.mtime_ns) else { continue };
            self.digests.insert(key, (stamp.size, mtime_ns, stamp.inode, *digest, *fresh, epoch))?;
        }
        Ok(())
    }
}

fn key(path: &Path) -> [u8; 16] {
    Hash::of(path.as_os_str().as_encoded_bytes()).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::open;

    fn known(n: u64) -> Known {
        Known { stamp: FileStamp { size: n, mtime_ns: 5, inode: 6 }, digest: [n as u8; 32], fresh: n == 1 }
    }

    fn learn(dir: &Path, n: u64) {
        open(dir).commit(&[Write::Digests(vec![(PathBuf::from(format!("/{n}")), known(n))])]).unwrap();
    }

    fn find(dir: &Path, n: u64) -> Option<(Known, bool)> {
        Store::read(dir).unwrap().unwrap().digests().unwrap().find(&[Path::new(&format!("/{n}"))])[0]
    }

    #[test]
    fn what_is_not_said_again_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        (1..=REPEATED_AFTER).for_each(|n| learn(dir.path(), n));
        assert_eq!(find(dir.path(), 1), Some((known(1), false)));
        learn(dir.path(), 100);
        assert_eq!(find(dir.path(), 1), Some((known(1), true)));
        assert_eq!(find(dir.path(), 2), Some((known(2), false)));
        assert_eq!(find(dir.path(), 99), None);
        learn(dir.path(), 1);
        assert_eq!(find(dir.path(), 1), Some((known(1), false)));
        (0..2 * FORGOTTEN_AFTER).for_each(|n| learn(dir.path(), 200 + n));
        assert_eq!(find(dir.path(), 2), None);
        assert!(find(dir.path(), 231).is_some());
    }
}
