//! The store's file: its tables, its format version, how it is opened.
//!
//! ```text
//! facts          name → number             format version, next id
//! notes          key → JSON
//! versions       (stage, version) → (set id, components as JSON)
//! sequences      stage → number of the last segment written of it
//! directory      (set id, sequence) → what a segment holds, and the id of its blob
//! segments       blob id → segment
//! rosters        source → JSON: the current list and the pending one
//! lists          (list id, n) → (digest, rows)
//! batches        digest → roster batch
//! batch digests  digest → ()               so that a sweep need not touch the batches
//! garbage        (kind, id) → ()           goes with the next run's first commit; readers may still look at it
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, Key, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction,
    ReadableDatabase, TableDefinition, TableError, Value,
};

use super::backend::{Backend, Syncs, is_blank};
use super::error::StoreError;
use super::lock::RunLock;

/// The format that this program writes; it reads this one and all before it.
pub(super) const FORMAT: u64 = 2;
const CACHE: usize = 64 << 20;
/// How long a reader waits for a run that is just repairing the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is stored of a segment beside its blob: first row, last row, items, failed, again, blob id, bytes.
pub(super) type DirectoryRow = (u64, u64, u32, u32, bool, u64, u32);

pub(super) const FACTS: TableDefinition<&str, u64> = TableDefinition::new("facts");
pub(super) const NOTES: TableDefinition<&str, &str> = TableDefinition::new("notes");
pub(super) const VERSIONS: TableDefinition<(&str, [u8; 16]), (u32, &str)> = TableDefinition::new("versions");
pub(super) const SEQUENCES: TableDefinition<&str, u64> = TableDefinition::new("sequences");
pub(super) const DIRECTORY: TableDefinition<(u32, u64), DirectoryRow> = TableDefinition::new("directory");
pub(super) const SEGMENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("segments");
pub(super) const ROSTERS: TableDefinition<&str, &str> = TableDefinition::new("rosters");
pub(super) const LISTS: TableDefinition<(u64, u64), ([u8; 16], u64)> = TableDefinition::new("lists");
pub(super) const BATCHES: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("batches");
pub(super) const BATCH_DIGESTS: TableDefinition<[u8; 16], ()> = TableDefinition::new("batch digests");
pub(super) const GARBAGE: TableDefinition<(u8, u64), ()> = TableDefinition::new("garbage");

/// Names in [`FACTS`].
pub(super) const FORMAT_FACT: &str = "format";
pub(super) const NEXT_ID_FACT: &str = "next id";

/// An open file.
pub(super) enum Handle {
    Writer { database: Option<Database>, syncs: Syncs },
    Reader(ReadOnlyDatabase),
}

impl Handle {
    /// Opens the file for writing and makes it if it is not there. The caller holds the run lock.
    pub fn write(path: &Path) -> Result<Handle, StoreError> {
        let new = is_blank(path).map_err(StoreError::io("read", path))?;
        let file = super::open_file(path, new)?;
        let (backend, syncs) = Backend::new(file, new)?;
        let database = builder().create_with_backend(backend)?;
        syncs.begin();
        let handle = Handle::Writer { database: Some(database), syncs };
        check_format(&handle)?;
        Ok(handle)
    }

    /// Opens the file for reading; `None`: there is none, or nothing in it. After a run that was killed the file is
    /// repaired first, under the run lock.
    pub fn read(dir: &Path, path: &Path) -> Result<Option<Handle>, StoreError> {
        let started = Instant::now();
        loop {
            if is_blank(path).map_err(StoreError::io("read", path))? {
                return Ok(None);
            }
            match builder().open_read_only(path) {
                Ok(database) => {
                    let handle = Handle::Reader(database);
                    check_format(&handle)?;
                    return Ok(Some(handle));
                }
                Err(DatabaseError::RepairAborted) => repair(dir, path, started)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        match self {
            Handle::Writer { database, .. } => Ok(database.as_ref().ok_or(StoreError::Spent)?.begin_read()?),
            Handle::Reader(database) => Ok(database.begin_read()?),
        }
    }

    pub fn writer(&self) -> Result<&Database, StoreError> {
        match self {
            Handle::Writer { database, .. } => database.as_ref().ok_or(StoreError::Spent),
            Handle::Reader(_) => Err(StoreError::ReadOnly),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Handle::Writer { database, syncs } = self {
            syncs.end();
            drop(database.take());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this room is redb's")]
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

/// Opens the file for writing and closes it again. A run that is alive does that itself: it is waited for.
fn repair(dir: &Path, path: &Path, started: Instant) -> Result<(), StoreError> {
    match RunLock::take(dir, "repairing the store") {
        Ok(_lock) => Handle::write(path).map(drop),
        Err(StoreError::Locked(_)) if started.elapsed() < PATIENCE => {
            std::thread::sleep(Duration::from_millis(10));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn check_format(handle: &Handle) -> Result<(), StoreError> {
    let Some(facts) = table(&handle.begin_read()?, FACTS)? else { return Ok(()) };
    match facts.get(FORMAT_FACT)?.map(|v| v.value()) {
        Some(found) if found > FORMAT => Err(StoreError::Newer { found, known: FORMAT }),
        _ => Ok(()),
    }
}

/// A table, if anything was ever written to it.
pub(super) fn table<K: Key + 'static, V: Value + 'static>(
    transaction: &ReadTransaction,
    definition: TableDefinition<K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, StoreError> {
    match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
