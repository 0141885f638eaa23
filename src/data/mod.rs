//! Rows: values, tables, items; how they are read and written.

pub mod codec;
pub mod export;
pub mod failure;
pub mod identify;
pub mod item;
pub mod json;
pub mod secrets;
pub mod source;
pub mod sql;
pub mod table;
mod time;
mod usage;
pub mod value;

pub use failure::{Failure, FailureKind};
pub use item::{Batch, Hash, Items, Origin, Uses, mix, row_hashes};
pub use secrets::Secrets;
pub use table::{Column, ColumnBuilder, Table, TableBuilder};
pub use usage::{Usage, bytes_in_words};
pub use value::{DamagedCell, TimeKind, Value};
