//! Tables written as files (csv, tsv, jsonl, parquet, arrow), and as tables of databases ([`database`]).
//!
//! Two passes over the same tables. The first unites the columns' types: [`Schema::observe`] each table, then
//! [`Schema::finish`], which tells every clash (`csv` and the typed formats need one type a column; `jsonl`
//! holds cells as they are). The second writes: [`Writer::new`], [`Writer::write`] each table,
//! [`Writer::finish`]. [`WholeFile`] makes the file appear whole or not at all.
//!
//! | cell | csv, tsv | jsonl | parquet, arrow |
//! |---|---|---|---|
//! | null, absent | empty | `null` | null |
//! | integer | digits | digits | Int64, else Decimal128/256 |
//! | float | shortest text that reads back the same; `nan`, `inf` | the same; `NaN`, `Infinity` as Python writes them | Float64 |
//! | bytes | base 16 | base 16 | Binary |
//! | date, time | ISO 8601 | ISO 8601 | Date32, Time64, Timestamp (microseconds; UTC where all have an offset) |
//! | duration | seconds | seconds | Duration (microseconds) |
//! | list, mapping | JSON | JSON | List, Struct with the union of the keys |

mod arrays;
mod database;
mod schema;
mod text;
mod whole_file;

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::table::Table;
use crate::spec::model::Format;

pub use database::{TableMode, TableTarget, TableWriter};
pub use schema::{OutputSchema, Schema};
pub use whole_file::WholeFile;

/// Rows cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Cells of one column have no common type.
    #[error(
        "column {column:?} holds {} in row {} and {} in row {}, which have no common type: make them one in the \
         stage, leave the column out with `columns:`, or export as jsonl",
        .first.1, .first.0, .second.1, .second.0
    )]
    Clash { column: String, first: (u64, String), second: (u64, String) },
    /// A cell does not fit the format.
    #[error("column {column:?} holds {what}: leave it out with `columns:`, or export as jsonl")]
    Cell { column: String, what: String },
    /// A column that was asked for is nowhere.
    #[error("there is no column {column:?} to export{}", nearest.as_ref().map_or(String::new(), |n| format!("; did you mean {n:?}?")))]
    NoColumn { column: String, nearest: Option<String> },
    /// The database says no.
    #[error(transparent)]
    Database(#[from] super::sql::SqlError),
    /// The file cannot be written.
    #[error("cannot write the rows")]
    Io(#[from] std::io::Error),
    /// The columns cannot be encoded.
    #[error("cannot encode the rows")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// The Parquet file cannot be encoded.
    #[error("cannot encode the rows as parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
}

/// A form in which rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    Csv,
    Tsv,
    Jsonl,
    Parquet,
    Arrow,
    /// Arrow, not compressed: to be memory-mapped.
    MappedArrow,
}

impl From<Format> for ExportFormat {
    fn from(format: Format) -> ExportFormat {
        match format {
            Format::Csv => ExportFormat::Csv,
            Format::Tsv => ExportFormat::Tsv,
            Format::Jsonl => ExportFormat::Jsonl,
            Format::Parquet => ExportFormat::Parquet,
            Format::Arrow => ExportFormat::Arrow,
        }
    }
}

impl ExportFormat {
    /// The formats' names, as the command line takes them.
    pub const NAMES: [(&'static str, ExportFormat); 5] = [
        ("csv", ExportFormat::Csv),
        ("tsv", ExportFormat::Tsv),
        ("jsonl", ExportFormat::Jsonl),
        ("parquet", ExportFormat::Parquet),
        ("arrow", ExportFormat::Arrow),
    ];

    /// The format of that name.
    pub fn named(name: &str) -> Option<ExportFormat> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, format)| *format)
    }

    /// The format that a file's ending stands for.
    pub fn of_path(path: &Path) -> Option<ExportFormat> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "ndjson" => Some(ExportFormat::Jsonl),
            "feather" | "ipc" => Some(ExportFormat::Arrow),
            ending => ExportFormat::named(ending),
        }
    }

    /// Whether a column must have one type.
    fn needs_types(self) -> bool {
        self != ExportFormat::Jsonl
    }

    /// Whether cells become Arrow arrays.
    fn is_columnar(self) -> bool {
        matches!(self, ExportFormat::Parquet | ExportFormat::Arrow | ExportFormat::MappedArrow)
    }
}

/// Where rows are written to.
pub type Sink = Box<dyn Write + Send>;

/// Writes tables in one format.
pub struct Writer {
    schema: OutputSchema,
    form: Form,
}

enum Form {
    Csv(Box<text::CsvWriter>),
    Jsonl(text::JsonlWriter),
    Parquet(Box<ArrowWriter<Sink>>),
    Arrow(Box<FileWriter<BufWriter<Sink>>>),
}

impl Writer {
    /// Begins a file.
    pub fn new(format: ExportFormat, schema: &OutputSchema, sink: Sink) -> Result<Writer, ExportError> {
        let form = match format {
            ExportFormat::Csv => Form::Csv(Box::new(text::CsvWriter::new(b',', schema, sink)?)),
            ExportFormat::Tsv => Form::Csv(Box::new(text::CsvWriter::new(b'\t', schema, sink)?)),
            ExportFormat::Jsonl => Form::Jsonl(text::JsonlWriter::new(schema, sink)),
            ExportFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_bytes(Some(64 << 20))
                    .build();
                Form::Parquet(Box::new(ArrowWriter::try_new(sink, schema.arrow(), Some(properties))?))
            }
            ExportFormat::Arrow | ExportFormat::MappedArrow => {
                let compression = (format == ExportFormat::Arrow).then_some(arrow_ipc::CompressionType::LZ4_FRAME);
                let options = IpcWriteOptions::default().try_with_compression(compression)?;
                let sink = BufWriter::with_capacity(1 << 20, sink);
                Form::Arrow(Box::new(FileWriter::try_new_with_options(sink, &schema.arrow(), options)?))
            }
        };
        Ok(Writer { schema: schema.clone(), form })
    }

    /// Appends the rows of a table that the schema has seen.
    pub fn write(&mut self, table: &Table) -> Result<(), ExportError> {
        match &mut self.form {
            Form::Csv(writer) => writer.write(table)?,
            Form::Jsonl(writer) => writer.write(table)?,
            Form::Parquet(writer) => writer.write(&record_batch(&self.schema, table)?)?,
            Form::Arrow(writer) => writer.write(&record_batch(&self.schema, table)?)?,
        }
        Ok(())
    }

    /// Ends the file.
    pub fn finish(self) -> Result<(), ExportError> {
        match self.form {
            Form::Csv(writer) => writer.finish()?,
            Form::Jsonl(writer) => writer.finish()?,
            Form::Parquet(writer) => writer.into_inner()?.flush()?,
            Form::Arrow(mut writer) => {
                writer.finish()?;
                writer.get_mut().flush()?;
            }
        }
        Ok(())
    }
}

fn record_batch(schema: &OutputSchema, table: &Table) -> Result<RecordBatch, ExportError> {
    let columns = schema.columns().iter().map(|c| arrays::build(&c.name, &c.kind, table.column(&c.name), table.rows()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(table.rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(&schema.arrow()), columns, &options)?)
}

/// Writes tables that lie in memory.
pub fn write_all(format: ExportFormat, tables: &[Table], sink: Sink) -> Result<(), ExportError> {
    let mut schema = Schema::default();
    tables.iter().for_each(|t| schema.observe(t));
    let schema = schema.finish(format)?;
    let mut writer = Writer::new(format, &schema, sink)?;
    tables.iter().try_for_each(|t| writer.write(t))?;
    writer.finish()
}

#[cfg(test)]
mod tests;
