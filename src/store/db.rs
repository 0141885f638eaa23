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
//! digests        hash of a path → stamp and digest of the file: a memory, which may be lost
//! garbage        (kind, id) → ()           goes with the next run's first commit; readers may still look at it
//! ```

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{
    Builder, ConcurrencyMode, Database, Key, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    StorageBackend, TableDefinition, TableError, Value,
};

use super::backend::{Backend, Syncs, is_blank};
use super::error::StoreError;
use super::guard::guard;
use super::lock::RunLock;
use super::overlay::Overlay;
use super::pages::Pages;

/// The format that this program writes; it reads this one and all before it.
pub(super) const FORMAT: u64 = 3;
const CACHE: usize = 64 << 20;
/// How long a reader waits for a run that is just repairing the file.
const PATIENCE: Duration = Duration::from_secs(30);

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
pub(super) const DIGESTS: TableDefinition<[u8; 16], super::digests::Row> = TableDefinition::new("digests");
pub(super) const GARBAGE: TableDefinition<(u8, u64), ()> = TableDefinition::new("garbage");

/// Names in [`FACTS`].
pub(super) const FORMAT_FACT: &str = "format";
pub(super) const NEXT_ID_FACT: &str = "next id";
pub(super) const DIGESTS_EPOCH_FACT: &str = "digests epoch";

/// The tables whose values are blobs with sums of their own, which are verified when they are read.
pub(super) const BLOBS: [&str; 2] = ["segments", "batches"];

/// An open file.
pub(super) struct Handle {
    /// Gone only while it is dropped.
    opened: Option<Opened>,
}

enum Opened {
    Writer(Database, Syncs),
    Reader(ReadOnlyDatabase),
    /// Repaired in memory only; nobody writes the file meanwhile.
    Private {
        database: Database,
        _lock: Option<RunLock>,
    },
}

impl Handle {
    /// Opens the file for writing and makes it if it is not there. The caller holds the run lock.
    pub fn write(path: &Path) -> Result<Handle, StoreError> {
        let new = is_blank(path)?;
        let file = super::open_file(path, new)?;
        if !new {
            admit(&Pages::open(path)?)?;
        }
        Handle::write_over(FileBackend::new(file)?, new)
    }

    /// Opens what a backend holds for writing.
    pub fn write_over(file: impl StorageBackend, new: bool) -> Result<Handle, StoreError> {
        let (backend, syncs) = Backend::new(file, new);
        let database = guard(|| Ok(builder().create_with_backend(backend)?))?;
        syncs.begin();
        Ok(Handle { opened: Some(Opened::Writer(database, syncs)) })
    }

    /// Opens the file for reading; `None`: there is none, or nothing in it. After a run that was killed the file is
    /// repaired first, under the run lock; in memory, if it cannot be written.
    pub fn read(dir: &Path, path: &Path) -> Result<Option<Handle>, StoreError> {
        let started = Instant::now();
        let mut repaired = Ok(());
        loop {
            if is_blank(path)? {
                return Ok(None);
            }
            let opened = guard(|| Ok(builder().open_read_only(path)?));
            match opened.and_then(|database| Handle::follow(database, path)) {
                Ok(handle) => return Ok(Some(handle)),
                Err(StoreError::File { source, .. }) if matches!(*source, redb::Error::RepairAborted) => {}
                // The pages know better why.
                Err(error) => return Pages::open(path).and_then(|pages| admit(&pages)).and(Err(error)),
            }
            if repaired.is_err() || started.elapsed() > PATIENCE {
                return Handle::private(dir, path).map(Some);
            }
            repaired = repair(dir, path, started)?;
        }
    }

    /// A reader of a file that a run may be writing.
    fn follow(database: ReadOnlyDatabase, path: &Path) -> Result<Handle, StoreError> {
        guard(|| {
            // While a transaction is open its pages, and those of all later ones, stay as they are.
            let _still = database.begin_read()?;
            admit(&Pages::open(path)?)
        })?;
        Ok(Handle { opened: Some(Opened::Reader(database)) })
    }

    /// A reader that repairs the file in memory.
    fn private(dir: &Path, path: &Path) -> Result<Handle, StoreError> {
        let lock = RunLock::share(dir)?;
        admit(&Pages::open(path)?)?;
        Handle::in_memory(path, lock)
    }

    /// Opens the file as a run would, but changes it in memory only. Nobody writes it meanwhile.
    pub fn in_memory(path: &Path, lock: Option<RunLock>) -> Result<Handle, StoreError> {
        let file = File::open(path).and_then(Overlay::new).map_err(StoreError::io("open", path))?;
        let mut builder = builder();
        builder.set_concurrency_mode(ConcurrencyMode::ExclusiveWriter);
        let database = guard(|| Ok(builder.create_with_backend(file)?))?;
        Ok(Handle { opened: Some(Opened::Private { database, _lock: lock }) })
    }

    /// Begins a read transaction. Called within [`guard`].
    pub fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        Ok(match self.opened() {
            Opened::Writer(database, _) | Opened::Private { database, .. } => database.begin_read()?,
            Opened::Reader(database) => database.begin_read()?,
        })
    }

    pub fn writer(&self) -> Result<&Database, StoreError> {
        match self.opened() {
            Opened::Writer(database, _) => Ok(database),
            Opened::Reader(_) | Opened::Private { .. } => Err(StoreError::ReadOnly),
        }
    }

    /// Gives room that is free back to the file system. False: somebody has a transaction open. Called within [`guard`].
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        match self.opened.as_mut() {
            Some(Opened::Writer(database, _)) => match database.compact() {
                Ok(_) => Ok(true),
                Err(redb::CompactionError::TransactionInProgress) => Ok(false),
                Err(error) => Err(redb::Error::from(error).into()),
            },
            _ => Err(StoreError::ReadOnly),
        }
    }

    fn opened(&self) -> &Opened {
        self.opened.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(Opened::Writer(_, syncs)) = &self.opened {
            syncs.end();
        }
        // What cannot be closed well is repaired by the next who opens it.
        let _ = guard(|| {
            drop(self.opened.take());
            Ok(())
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "this room is redb's")]
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

/// Opens the file for writing and closes it again; the inner error says that this cannot be done. A run that is
/// alive does it itself: it is waited for.
fn repair(dir: &Path, path: &Path, started: Instant) -> Result<Result<(), StoreError>, StoreError> {
    match RunLock::take(dir, "repairing the store") {
        Ok(_lock) => Ok(Handle::write(path).map(drop)),
        Err(StoreError::Locked(_)) if started.elapsed() < PATIENCE => {
            std::thread::sleep(Duration::from_millis(10));
            Ok(Ok(()))
        }
        Err(error @ StoreError::Locked(_)) => Err(error),
        Err(error) => Ok(Err(error)),
    }
}

/// That this program knows the format of a file, and that redb can be let loose on it. Changes nothing.
pub(super) fn admit(pages: &Pages) -> Result<(), StoreError> {
    check_format(pages)?;
    pages.check(&BLOBS)
}

pub(super) fn check_format(pages: &Pages) -> Result<(), StoreError> {
    match pages.fact(FORMAT_FACT) {
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
