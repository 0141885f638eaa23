//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

use super::lock::Owner;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another run holds the state.
    #[error("the state is in use by {0}")]
    Locked(Owner),
    /// File locks and syncs cannot be relied on there.
    #[error("{} lies on a network file system ({kind})", dir.display())]
    NetworkFileSystem { dir: PathBuf, kind: &'static str },
    /// Written by a later bpp-flow.
    #[error("the store has format {found}, this bpp-flow knows formats up to {known}")]
    Newer { found: u64, known: u64 },
    /// Bytes are not what was written.
    #[error("{} is damaged: {what} in {place}", file.display())]
    Damaged { what: String, place: String, file: PathBuf },
    /// Something that a reader looked at is gone: a later run has replaced it.
    #[error("{0} was replaced while it was being read")]
    Replaced(String),
    /// A commit failed before; nothing more is written through this handle.
    #[error("an earlier write to the store failed")]
    Spent,
    /// A store that was opened for reading was asked to write.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// The system said no.
    #[error("cannot {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// The file could not be read or written.
    #[error("cannot read or write {}", file.display())]
    File { file: PathBuf, source: Box<redb::Error> },
}

/// A file that is not yet known by its name.
const STORE: &str = "the store";

impl StoreError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_path_buf();
        move |source| StoreError::Io { what, path, source }
    }

    pub(super) fn damaged(what: impl Into<String>, place: impl Into<String>) -> StoreError {
        StoreError::Damaged { what: what.into(), place: place.into(), file: PathBuf::from(STORE) }
    }

    /// Says which file it is about.
    pub(super) fn of(mut self, path: &Path) -> StoreError {
        if let StoreError::Damaged { file, .. } | StoreError::File { file, .. } = &mut self {
            *file = path.to_path_buf();
        }
        self
    }

    /// What the system said, if it said no.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            StoreError::Io { source, .. } => Some(source.kind()),
            StoreError::File { source, .. } => match &**source {
                redb::Error::Io(error) => Some(error.kind()),
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> StoreError {
        match error {
            redb::Error::Corrupted(what) => StoreError::damaged(what, "its pages"),
            // A lock is poisoned by a panic over a damaged page.
            redb::Error::LockPoisoned(_) => StoreError::damaged("an inconsistency", "its pages"),
            redb::Error::TableTypeMismatch { table, .. } => {
                StoreError::damaged("a type", format!("the table of {table}"))
            }
            other => StoreError::File { file: PathBuf::from(STORE), source: Box::new(other) },
        }
    }
}

macro_rules! from_redb {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for StoreError {
            fn from(error: redb::$kind) -> StoreError {
                redb::Error::from(error).into()
            }
        }
    )*};
}
from_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError);
