//! `parquet:` and `arrow:`: files that hold columns. Row groups and record batches of any size are given in pieces.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::error::SourceError;
use super::files::{self, SourceFile};
use super::{Limits, ReadBatch, SourceReader, Surroundings, bad_row, convert};
use crate::data::table::Table;
use crate::spec::model::Format;

type Records = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// Opens a source of Parquet or Arrow files.
pub(super) fn open(
    source_name: &str,
    format: Format,
    paths: &[String],
    around: &Surroundings,
    limits: Limits,
) -> Result<SourceReader, SourceError> {
    let files = files::expand(source_name, paths, around)?;
    let total = files.iter().map(|f| f.size).sum();
    let rows = Columnar {
        source_name: source_name.into(),
        format,
        files: files.into_iter(),
        current: None,
        next_row: 0,
        limits,
    };
    Ok(SourceReader { total_bytes: Some(total), ..SourceReader::new(rows) })
}

struct Columnar {
    source_name: String,
    format: Format,
    files: std::vec::IntoIter<SourceFile>,
    current: Option<ColumnarFile>,
    next_row: u64,
    limits: Limits,
}

struct ColumnarFile {
    shown: String,
    records: Records,
    /// Read, but not given yet.
    rest: Option<RecordBatch>,
    /// Rows given so far.
    rows: u64,
    /// Bytes of the file that its first batch answers for.
    bytes: u64,
}

impl Columnar {
    fn advance(&mut self) -> Result<bool, SourceError> {
        let Some(file) = self.files.next() else { return Ok(false) };
        let opened = file.open(&self.source_name)?;
        let records = match self.format {
            Format::Parquet => open_parquet(opened, self.limits),
            _ => open_arrow(opened),
        };
        let (schema, records) = records.map_err(|e| self.damaged(&file.shown, &e))?;
        let mut names: Vec<&String> = schema.fields().iter().map(|f| f.name()).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            let (source_name, what) = (self.source_name.clone(), format!("two columns are named {:?}", twice[0]));
            return Err(SourceError::Content { source_name, path: file.shown, what });
        }
        self.current = Some(ColumnarFile { shown: file.shown, records, rest: None, rows: 0, bytes: file.size });
        Ok(true)
    }

    fn damaged(&self, shown: &str, cause: &dyn std::fmt::Display) -> SourceError {
        let (source_name, path) = (self.source_name.clone(), shown.to_string());
        SourceError::Content { source_name, path, what: format!("cannot be read: {cause}") }
    }

    fn read_batch(&mut self) -> Result<Option<ReadBatch>, SourceError> {
        loop {
            if self.current.is_none() && !self.advance()? {
                return Ok(None);
            }
            let file = self.current.as_mut().expect("advanced");
            let next = file.rest.take().map(Ok).or_else(|| file.records.next()).transpose();
            let Some(mut records) = next.map_err(|e| self.damaged(&self.current_name(), &e))? else {
                self.current = None;
                continue;
            };
            let file = self.current.as_mut().expect("advanced");
            if records.num_rows() > self.limits.rows {
                let rest = records.num_rows() - self.limits.rows;
                file.rest = Some(records.slice(self.limits.rows, rest));
                records = records.slice(0, self.limits.rows);
            }
            let batch = convert_batch(&records, file, self.next_row);
            self.next_row += batch.len() as u64;
            return Ok(Some(batch));
        }
    }

    fn current_name(&self) -> String {
        self.current.as_ref().map(|f| f.shown.clone()).unwrap_or_default()
    }
}

impl Iterator for Columnar {
    type Item = Result<ReadBatch, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_batch().transpose()
    }
}

fn convert_batch(records: &RecordBatch, file: &mut ColumnarFile, first_row: u64) -> ReadBatch {
    let names = records.schema().fields().iter().map(|f| Arc::from(f.name().as_str())).collect();
    let (columns, spoilt) = convert::columns(records);
    let table = Table::new(names, columns, records.num_rows());
    let numbers = first_row..first_row + table.rows() as u64;
    let first_in_file = file.rows;
    file.rows += table.rows() as u64;
    let bytes = std::mem::take(&mut file.bytes);
    if spoilt.is_empty() {
        return ReadBatch { rows: numbers.collect(), table, bad: Vec::new(), bytes };
    }
    let mut wrong = spoilt.iter().peekable();
    let kept: Vec<u32> =
        (0..table.rows()).filter(|i| wrong.next_if(|(row, _)| row == i).is_none()).map(|i| i as u32).collect();
    let rows = kept.iter().map(|&i| first_row + u64::from(i)).collect();
    let bad = spoilt
        .into_iter()
        .map(|(i, what)| {
            let message = format!("{}: row {}: {what}", file.shown, first_in_file + i as u64);
            (first_row + i as u64, bad_row(message))
        })
        .collect();
    ReadBatch { rows, table: table.take(&kept), bad, bytes }
}

fn open_parquet(file: File, limits: Limits) -> Result<(Arc<Schema>, Records), ArrowError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = builder.schema().clone();
    let groups = builder.metadata().row_groups();
    let rows = groups.iter().map(|g| g.num_rows()).sum::<i64>().max(1) as usize;
    let bytes = groups.iter().map(|g| g.total_byte_size()).sum::<i64>().max(1) as usize;
    let batch = (limits.bytes / (bytes / rows).max(1)).clamp(1, limits.rows);
    Ok((schema, Box::new(builder.with_batch_size(batch).build()?)))
}

/// An IPC file or stream, whichever it is.
fn open_arrow(mut file: File) -> Result<(Arc<Schema>, Records), ArrowError> {
    let mut head = [0; 6];
    let read = file.read(&mut head)?;
    file.rewind()?;
    if &head[..read] == b"ARROW1" {
        let reader = arrow_ipc::reader::FileReader::try_new_buffered(file, None)?;
        return Ok((reader.schema(), Box::new(reader)));
    }
    let reader = arrow_ipc::reader::StreamReader::try_new(BufReader::with_capacity(1 << 20, file), None)?;
    Ok((reader.schema(), Box::new(reader)))
}
