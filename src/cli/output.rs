//! Where rows are printed to: standard output, or a file that is there whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use super::error::{CliError, Context};
use crate::data::export::{Sink, WholeFile};

/// A place for rows.
pub(super) struct Output(Option<(WholeFile, PathBuf)>);

impl Output {
    /// A file, or standard output where none is named.
    pub(super) fn open(path: Option<&Path>) -> Result<Output, CliError> {
        let Some(path) = path else { return Ok(Output(None)) };
        let file = WholeFile::create(path).map_err(|error| unwritable(path, error))?;
        Ok(Output(Some((file, path.to_path_buf()))))
    }

    /// Where to write.
    pub(super) fn sink(&self) -> Result<Sink, CliError> {
        match &self.0 {
            None => Ok(Box::new(io::stdout())),
            Some((file, path)) => file.sink().map_err(|error| unwritable(path, error)),
        }
    }

    /// Everything was written: the file appears.
    pub(super) fn finish(self) -> Result<(), CliError> {
        match self.0 {
            None => Ok(()),
            Some((file, path)) => file.commit().map_err(|error| unwritable(&path, error)),
        }
    }
}

fn unwritable(path: &Path, error: io::Error) -> CliError {
    CliError::failed(Context { doing: format!("cannot write {}", path.display()), source: error.into() })
}
