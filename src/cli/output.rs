//! Where rows are printed to: standard output, or a file that is there whole or not at all.

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use crate::data::export::{Sink, WholeFile};

use super::error::{CliError, Context};

/// Bytes that are written together.
const BUFFER: usize = 1 << 16;

/// A place for rows.
pub(super) enum Output {
    Stdout,
    File(WholeFile, PathBuf),
}

impl Output {
    /// A file, or standard output where none is named.
    pub(super) fn open(path: Option<&Path>) -> Result<Output, CliError> {
        match path {
            None => Ok(Output::Stdout),
            Some(path) => match WholeFile::create(path) {
                Ok(file) => Ok(Output::File(file, path.to_path_buf())),
                Err(error) => Err(unwritable(path, error)),
            },
        }
    }

    /// Where to write; to be flushed before [`Output::finish`].
    pub(super) fn sink(&self) -> Result<Sink, CliError> {
        match self {
            Output::Stdout => Ok(Box::new(BufWriter::with_capacity(BUFFER, io::stdout()))),
            Output::File(file, path) => {
                let sink = file.sink().map_err(|error| unwritable(path, error))?;
                Ok(Box::new(BufWriter::with_capacity(BUFFER, sink)))
            }
        }
    }

    /// Everything was written and flushed: the file appears.
    pub(super) fn finish(self) -> Result<(), CliError> {
        match self {
            Output::Stdout => Ok(()),
            Output::File(file, path) => file.commit().map_err(|error| unwritable(&path, error)),
        }
    }
}

fn unwritable(path: &Path, error: io::Error) -> CliError {
    CliError::failed(Context { doing: format!("cannot write {}", path.display()), source: error.into() })
}
