//! Keeps rosters and outcomes, durably, in one redb file. The only room that knows redb.
//!
//! - A *roster* is a source as it was read: ordered batches of rows ([`Roster`]). A new one takes the old one's place
//!   at once, when the source was read to its end; equal batches are stored once.
//! - A *segment* holds the outcomes of some items of a stage at a version: who they are, and the columns that the
//!   stage added ([`Segment`]). Segments are only ever added; of outcomes of the same item and input the later one
//!   counts. A [`View`] finds outcomes again.
//! - *Notes* are small JSON documents: runs, settings.
//!
//! What holds always: a commit that returned is on the disk, whatever ends the process; what a [`View`] or a
//! [`Roster`] stands for stays readable until the next run begins; no read transaction outlives one call, so the
//! file does not grow under a reader. See `db.rs` for the tables, `codec.rs` for the blobs.
//!
//! A damaged file is an error, never a panic: `pages.rs` verifies what redb trusts, `guard.rs` catches what it panics
//! on; [`Store::verify`] says what is lost, [`Store::repair`] keeps the rest.

mod backend;
mod bytes;
mod cache;
pub(crate) mod codec;
mod commit;
mod db;
mod digests;
mod error;
mod gather;
mod gc;
mod guard;
mod index;
mod inspect;
mod lock;
pub mod model;
mod network;
mod overlay;
mod pages;
mod repair;
mod roster;
mod survey;
mod tidy;
mod view;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::ReadTransaction;

pub use codec::EncodedSegment;
pub use commit::Write;
pub use error::StoreError;
pub use gather::Gathered;
pub use gc::{Collected, Keep, Kept};
pub use inspect::{Inspection, StageHolding};
pub use lock::Owner;
pub use model::{RosterBatch, RosterInfo, Segment};
pub use repair::Repaired;
pub use roster::Roster;
pub use view::{Hit, View};

use crate::data::Hash;
use commit::Tables;
use db::{Handle, table};
use guard::guard;
use lock::RunLock;

/// The file, in the folder of the state.
const FILE: &str = "store.redb";

/// How to open a store for writing.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions<'a> {
    /// Open it even on a network file system.
    pub on_network_fs: bool,
    /// What the lock says is being run.
    pub command: &'a str,
}

/// A workflow's state. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    // Closed before the lock is let go: fields are dropped in this order.
    handle: Handle,
    path: PathBuf,
    /// A commit failed.
    spent: AtomicBool,
    /// The garbage of earlier runs is gone.
    swept: AtomicBool,
    /// Digests of files were kept.
    epoch_begun: AtomicBool,
    _lock: Option<RunLock>,
}

/// A version of a stage that has been stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageVersion {
    pub version: Hash,
    /// From 1, in the order in which the stage's versions were first met.
    pub number: u32,
    /// What makes the version, as JSON; empty if it was never said.
    pub components: String,
    /// The number of its last segment: the largest is the version that ran last. `None`: no outcome yet.
    pub last_sequence: Option<u64>,
    /// Outcomes stored, those that count no more included.
    pub items: u64,
    /// How many of them are failures.
    pub failed: u64,
}

impl Store {
    /// Opens the state in `dir` for writing, and makes it if it is not there.
    pub fn open(dir: &Path, options: &OpenOptions) -> Result<Store, StoreError> {
        if !options.on_network_fs
            && let Some(kind) = network::network_file_system(dir)
        {
            return Err(StoreError::NetworkFileSystem { dir: dir.to_path_buf(), kind });
        }
        make_folder(dir)?;
        let lock = RunLock::take(dir, options.command)?;
        let path = dir.join(FILE);
        let _ = std::fs::remove_file(repair::unfinished(dir));
        let handle = Handle::write(&path).map_err(|error| error.of(&path))?;
        Ok(Store::new(handle, path, Some(lock)))
    }

    /// Opens the state in `dir` for reading, also while a run writes it; `None` where there is nothing.
    pub fn read(dir: &Path) -> Result<Option<Store>, StoreError> {
        let path = dir.join(FILE);
        let handle = Handle::read(dir, &path).map_err(|error| error.of(&path))?;
        Ok(handle.map(|handle| Store::new(handle, path, None)))
    }

    /// Who is writing the state in `dir` now, if anyone is.
    pub fn owner(dir: &Path) -> Option<Owner> {
        lock::owner(dir)
    }

    fn new(handle: Handle, path: PathBuf, lock: Option<RunLock>) -> Store {
        let [spent, swept, epoch_begun] = [const { AtomicBool::new(false) }; 3];
        Store { inner: Arc::new(Inner { handle, path, spent, swept, epoch_begun, _lock: lock }) }
    }

    /// Writes all of it, in this order, or nothing. When this returns it is on the disk. After an error this store
    /// takes no more writes; what was written before is safe.
    pub fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        if self.inner.spent.load(Ordering::Acquire) {
            return Err(StoreError::Spent);
        }
        let encoded = self.reading(|transaction| {
            let digests = table(transaction, db::BATCH_DIGESTS)?;
            let known = |digest: Hash| digests.as_ref().is_some_and(|t| matches!(t.get(digest.0), Ok(Some(_))));
            Ok(commit::encode_batches(writes, known))
        })?;
        self.transact(|tables| writes.iter().try_for_each(|write| tables.apply(write, &encoded)))
    }

    /// Runs `change` in a durable transaction of its own.
    fn transact<T>(&self, change: impl FnOnce(&mut Tables) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.inner.handle.writer()?;
        if self.inner.spent.load(Ordering::Acquire) {
            return Err(StoreError::Spent);
        }
        let changed = guard(|| {
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            let changed = {
                let mut tables = Tables::open(&transaction)?;
                tables.new_epoch = !self.inner.epoch_begun.load(Ordering::Acquire);
                if !self.inner.swept.load(Ordering::Acquire) {
                    tables.sweep()?;
                }
                let changed = change(&mut tables)?;
                self.inner.epoch_begun.store(!tables.new_epoch, Ordering::Release);
                changed
            };
            transaction.commit()?;
            self.inner.swept.store(true, Ordering::Release);
            Ok(changed)
        });
        if changed.is_err() {
            self.inner.spent.store(true, Ordering::Release);
        }
        changed.map_err(|error| error.of(&self.inner.path))
    }

    /// Reads in a transaction of its own: all reading goes through here.
    fn reading<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        guard(|| read(&self.inner.handle.begin_read()?)).map_err(|error| error.of(&self.inner.path))
    }

    /// The roster of a source: the last one that was read to its end, else what there is of the first.
    pub fn roster(&self, source: &str) -> Result<Option<Roster>, StoreError> {
        roster::find(self, source)
    }

    /// What is committed now of a stage at a version.
    pub fn view(&self, stage: &str, version: Hash) -> Result<View, StoreError> {
        View::new(self, stage, version)
    }

    /// The versions of a stage, by number.
    pub fn stage_versions(&self, stage: &str) -> Result<Vec<StageVersion>, StoreError> {
        self.reading(|transaction| stage_versions(transaction, stage))
    }

    /// The number of the last segment written of a stage, whatever the version; 0: none yet.
    pub fn last_sequence(&self, stage: &str) -> Result<u64, StoreError> {
        self.reading(|transaction| {
            let Some(sequences) = table(transaction, db::SEQUENCES)? else { return Ok(0) };
            Ok(sequences.get(stage)?.map_or(0, |v| v.value()))
        })
    }

    /// The JSON document of that key.
    pub fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.reading(|transaction| {
            let Some(notes) = table(transaction, db::NOTES)? else { return Ok(None) };
            Ok(notes.get(key)?.map(|json| json.value().to_string()))
        })
    }

    /// The JSON documents whose keys begin with `prefix`, in the order of their keys.
    pub fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.reading(|transaction| {
            let Some(notes) = table(transaction, db::NOTES)? else { return Ok(Vec::new()) };
            let mut found = Vec::new();
            for entry in notes.range(prefix..)? {
                let (key, json) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_string(), json.value().to_string()));
            }
            Ok(found)
        })
    }

    /// Merges small segments. Changes nothing that a [`View`] finds.
    pub fn tidy(&self) -> Result<(), StoreError> {
        tidy::tidy(self)
    }
}

fn stage_versions(transaction: &ReadTransaction, stage: &str) -> Result<Vec<StageVersion>, StoreError> {
    let Some(versions) = table(transaction, db::VERSIONS)? else { return Ok(Vec::new()) };
    let directory = table(transaction, db::DIRECTORY)?;
    let mut found: Vec<(u32, StageVersion)> = Vec::new();
    for entry in versions.range((stage, [0; 16])..=(stage, [255; 16]))? {
        let (key, value) = entry?;
        let (set, components) = value.value();
        let mut version = StageVersion {
            version: Hash(key.value().1),
            number: 0,
            components: components.to_string(),
            last_sequence: None,
            items: 0,
            failed: 0,
        };
        if let Some(directory) = &directory {
            for entry in directory.range((set, 0)..=(set, u64::MAX))? {
                let (key, row) = entry?;
                let (_, _, items, failed, ..) = row.value();
                version.last_sequence = Some(key.value().1);
                version.items += u64::from(items);
                version.failed += u64::from(failed);
            }
        }
        found.push((set, version));
    }
    // Sets are numbered as versions come.
    found.sort_unstable_by_key(|(set, _)| *set);
    Ok((1..).zip(found).map(|(number, (_, version))| StageVersion { number, ..version }).collect())
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Makes the folder of a state, its owner's alone. One that is there keeps its mode, unless its place says that it is
/// ours: somebody's own folder may hold other things.
fn make_folder(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(StoreError::io("create", dir))?;
    if let Some(parent) = dir.parent().filter(|parent| parent.ends_with(".bpp-flow")) {
        close_to_others(parent, 0o700);
        close_to_others(dir, 0o700);
    }
    Ok(())
}

/// Opens a file of the state for reading and writing, and makes it if it is not there: its owner's alone.
fn open_file(path: &Path, empty: bool) -> Result<File, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().create(true).truncate(empty).read(true).write(true).mode(0o600).open(path);
    close_to_others(path, 0o600);
    file.map_err(StoreError::io("open", path))
}

/// Narrows a mode that is wider. Whoever may write here without being the owner may not, and need not, change it.
fn close_to_others(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let wider = |m: std::fs::Metadata| !m.is_symlink() && m.permissions().mode() & 0o777 & !mode != 0;
    if std::fs::symlink_metadata(path).is_ok_and(wider) {
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    }
}

#[cfg(test)]
mod tests;
