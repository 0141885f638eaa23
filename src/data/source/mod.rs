//! Sources: files and other things that give rows, read as a stream of batches.
//!
//! [`open`] gives a [`SourceReader`], an iterator of [`ReadBatch`]es. Memory is constant: one batch at a time is
//! held. A row that cannot be read is a *bad row*, told with file and line; what stops the whole source is a
//! [`SourceError`]. Rows are numbered from 0 over all files of the source, bad ones included. The types of columns
//! of text are settled before the first batch ([`infer`]) and never change within a source.

mod columnar;
mod content;
mod convert;
mod csv;
mod digest;
mod draft;
mod error;
mod files;
mod glob;
mod infer;
mod input;
mod inputs;
mod jsonl;
mod lines;
mod pattern;
mod sql;
mod sweep;
mod written;

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use content::content_in;
pub use digest::{Digests, FileStamp, KeptDigests, Known, digest_unless, file_digest, file_digests};
pub use draft::Draft;
pub use error::SourceError;
pub(crate) use error::nearest;
pub use glob::COLUMNS as GLOB_COLUMNS;
pub use inputs::Inputs;

use super::failure::{Failure, FailureKind};
use super::item::Hash;
use super::table::Table;
use crate::spec::model::{Format, Program, Reader, Source};

/// Rows as they come from a source.
#[derive(Debug, Clone)]
pub struct ReadBatch {
    /// The number of each row of `table` in the source, ascending.
    pub rows: Vec<u64>,
    /// The rows that could be read.
    pub table: Table,
    /// The rows that could not, by number, ascending.
    pub bad: Vec<(u64, Failure)>,
    /// Bytes taken from the source's files (as they lie on disk) since the batch before; for progress.
    pub bytes: u64,
}

impl ReadBatch {
    /// The number of rows, bad ones included.
    pub fn len(&self) -> usize {
        self.rows.len() + self.bad.len()
    }

    /// Whether it has no rows at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The stream of a source's batches; see [`open`].
pub struct SourceReader {
    batches: Box<dyn Iterator<Item = Result<ReadBatch, SourceError>> + Send>,
    total_bytes: Option<u64>,
    failed: bool,
}

impl SourceReader {
    pub(crate) fn new(batches: impl Iterator<Item = Result<ReadBatch, SourceError>> + Send + 'static) -> SourceReader {
        SourceReader { batches: Box::new(batches), total_bytes: None, failed: false }
    }

    /// Bytes of the source's files, which [`ReadBatch::bytes`] add up to; where that is known.
    pub fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }
}

impl Iterator for SourceReader {
    type Item = Result<ReadBatch, SourceError>;

    /// The next batch; never an empty one. Nothing follows an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.batches.find(|b| b.as_ref().map_or(true, |b| !b.is_empty()));
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

/// How large a batch may get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A true maximum.
    rows: usize,
    /// A batch ends after the row that passes this.
    bytes: usize,
}

impl Limits {
    fn new(batch_rows: Option<usize>) -> Limits {
        match batch_rows {
            Some(rows) => Limits { rows: rows.max(1), bytes: 16 << 20 },
            None => Limits { rows: 8000, bytes: 4 << 20 },
        }
    }
}

/// Bytes read, shared by the input that counts them and the reader that tells them.
#[derive(Debug, Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// A row that cannot be read.
fn bad_row(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Input, message)
}

/// What a source is read in.
#[derive(Clone)]
pub struct Surroundings {
    /// The workflow's folder, to which paths are relative.
    pub dir: PathBuf,
    /// Absolute paths that no pattern matches: the workflow's own outputs, and its state with all that is in it.
    pub excluded: Arc<HashSet<PathBuf>>,
    /// Remembers the digests of files.
    pub digests: Option<Arc<Digests>>,
    /// The workflow's sources, whose columns sweeps name.
    pub sources: Arc<[Source]>,
    /// Runs the programs of `python` and `command` sources.
    pub programs: Option<Arc<dyn Programs>>,
    /// Where batches ended when the source was last read: row numbers, ascending. Only programs look at it.
    pub cuts: Arc<[u64]>,
}

/// Runs programs that give rows. (Processes are the executor's; this room only names what it wants of them.)
pub trait Programs: Send + Sync {
    /// Starts a program; its rows are to go into `draft`.
    ///
    /// # Errors
    /// When it cannot be started.
    fn read(&self, source_name: &str, program: &Program, draft: Draft) -> Result<SourceReader, SourceError>;

    /// Has all programs end, and no other start.
    fn stop(&self);

    /// Returns when all are gone.
    fn wait(&self);
}

impl Surroundings {
    /// A folder, with nothing excluded, nothing remembered and no other source.
    pub fn new(dir: impl Into<PathBuf>) -> Surroundings {
        Surroundings {
            dir: dir.into(),
            excluded: Arc::default(),
            digests: None,
            sources: Arc::default(),
            programs: None,
            cuts: Arc::default(),
        }
    }
}

/// Opens a source; paths are relative to `dir`. `batch_rows` is a true maximum of rows in a batch; without it a
/// batch has up to 8000 rows or about 4 MiB.
pub fn open(
    source: &Source,
    dir: &Path,
    batch_rows: Option<usize>,
    stdin: Option<Box<dyn Read + Send>>,
) -> Result<SourceReader, SourceError> {
    open_in(source, &Surroundings::new(dir), batch_rows, stdin)
}

/// As [`open`], in given surroundings.
pub fn open_in(
    source: &Source,
    around: &Surroundings,
    batch_rows: Option<usize>,
    stdin: Option<Box<dyn Read + Send>>,
) -> Result<SourceReader, SourceError> {
    let limits = Limits::new(batch_rows);
    match &source.reader {
        Reader::Files { format: format @ (Format::Csv | Format::Tsv), paths, text } => {
            csv::open(&source.name, *format, paths, text, around, limits)
        }
        Reader::Files { format: Format::Jsonl, paths, text } => jsonl::open(&source.name, paths, text, around, limits),
        Reader::Files { format, paths, .. } => columnar::open(&source.name, *format, paths, around, limits),
        Reader::Glob { pattern } => glob::open(&source.name, pattern, around, limits),
        Reader::Lines { path } => lines::open(&source.name, path.as_deref(), &around.dir, stdin, limits),
        Reader::Values { rows } => Ok(written::values(rows.clone(), limits)),
        Reader::Sql { database, query } => sql::open(&source.name, database, query, &around.dir, limits),
        Reader::Range { start, stop, step } => written::range(&source.name, start, stop, step, limits),
        Reader::Sweep(sweep) => sweep::open(&source.name, sweep, around, limits),
        Reader::Program(program) => {
            let what = "programs cannot be run here".to_string();
            let wrong = SourceError::Definition { source_name: source.name.clone(), what };
            let programs = around.programs.as_ref().ok_or(wrong)?;
            programs.read(&source.name, program, Draft::new(limits, around.cuts.clone()))
        }
    }
}

/// The hash of a source's definition and of all the bytes that it would read; `None` for standard input and programs.
pub fn content(source: &Source, dir: &Path) -> Result<Option<Hash>, SourceError> {
    content_in(source, &Surroundings::new(dir))
}

/// The files that a path or pattern names, sorted.
///
/// # Errors
/// When the pattern is wrong or a folder cannot be read.
pub fn matching_files(dir: &Path, pattern: &str) -> std::io::Result<Vec<PathBuf>> {
    let parsed = pattern::Pattern::parse(pattern)
        .map_err(|problem| std::io::Error::new(std::io::ErrorKind::InvalidInput, problem))?;
    let found = parsed.find(dir, &std::collections::HashSet::new())?;
    Ok(found.into_iter().map(|found| dir.join(found.path)).collect())
}

#[cfg(test)]
pub(crate) mod testing {
    use std::path::Path;

    use super::ReadBatch;
    use crate::data::value::Value;

    /// A temporary folder with files.
    pub struct Folder(tempfile::TempDir);

    impl Folder {
        pub fn with(files: &[(&str, &[u8])]) -> Folder {
            let folder = Folder(tempfile::tempdir().expect("a temporary folder"));
            files.iter().for_each(|(name, content)| folder.write(name, content));
            folder
        }

        pub fn write(&self, name: &str, content: &[u8]) {
            let path = self.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has a folder")).expect("can be made");
            std::fs::write(path, content).expect("can be written");
        }

        pub fn path(&self) -> &Path {
            self.0.path()
        }
    }

    pub fn all_rows(batches: &[ReadBatch]) -> Vec<Vec<(String, Value)>> {
        batches.iter().flat_map(|b| (0..b.table.rows()).map(|r| b.table.row(r))).collect()
    }

    pub fn messages(batches: &[ReadBatch]) -> Vec<(u64, String)> {
        batches.iter().flat_map(|b| b.bad.iter().map(|(row, failure)| (*row, failure.message.clone()))).collect()
    }
}
