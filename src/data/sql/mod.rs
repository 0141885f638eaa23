//! Databases that rows are read from and written to: SQLite files and PostgreSQL servers.
//!
//! A [`Database`] is what a URL names; nothing is opened before rows are read ([`super::source`]) or written
//! ([`super::export`]). Its `Debug` and [`Database::shown`] never hold a password.

mod cells;
mod connect;
mod table;
mod url;

pub(super) use cells::Decoder;
pub(super) use connect::{open_postgres, open_sqlite, server_error, sqlite_error};
pub(super) use table::quoted;
pub use table::{LONGEST_NAME, TableName};
pub use url::{Database, Lookup, Server};

/// A database said no, or could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{database}: {what}")]
pub struct SqlError {
    /// As [`Database::shown`].
    pub database: String,
    /// In the database's words, with the place in the query where it tells one.
    pub what: String,
}
