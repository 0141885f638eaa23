//! Where rows are printed to: standard output, or a file that is there whole or not at all.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use super::error::{CliError, Context};
use super::pending::export::WholeFile;

/// A place for rows.
pub(super) enum Output {
    Stdout(BufWriter<StdoutLock<'static>>),
    File(BufWriter<WholeFile>, PathBuf),
}

impl Output {
    /// A file, or standard output where none is named.
    pub(super) fn open(path: Option<&Path>) -> Result<Output, CliError> {
        let Some(path) = path else { return Ok(Output::Stdout(BufWriter::new(io::stdout().lock()))) };
        match WholeFile::create(path) {
            Ok(file) => Ok(Output::File(BufWriter::new(file), path.to_path_buf())),
            Err(error) => Err(unwritable(path, error)),
        }
    }

    /// Everything was written: the file appears.
    pub(super) fn finish(self) -> Result<(), CliError> {
        match self {
            Output::Stdout(mut out) => Ok(out.flush()?),
            Output::File(out, path) => {
                let written = out.into_inner().map_err(io::IntoInnerError::into_error).and_then(WholeFile::commit);
                written.map_err(|error| unwritable(&path, error))
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Stdout(out) => out.write(bytes),
            Output::File(out, _) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Stdout(out) => out.flush(),
            Output::File(out, _) => out.flush(),
        }
    }
}

fn unwritable(path: &Path, error: io::Error) -> CliError {
    CliError::failed(Context { doing: format!("cannot write {}", path.display()), source: error.into() })
}
