//! Files made durable, those of a commit together.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::EngineError;

/// From so many files on, whole file systems are synced: one flush instead of one for each file.
const MANY: usize = 8;

/// Makes the contents of files durable. Their names need not be: a file without its name is missing, and its item due.
///
/// # Errors
/// When the disk fails.
pub fn sync(files: &[PathBuf]) -> Result<(), EngineError> {
    let synced = match files.len() < MANY {
        true => files.iter().try_for_each(|path| sync_one(path)),
        false => sync_file_systems(files),
    };
    synced.map_err(|(path, source)| EngineError::Sync { path: path.display().to_string(), source })
}

type Trouble<'a> = (&'a Path, io::Error);

/// One that is gone again is missing, and so found.
fn sync_one(path: &Path) -> Result<(), Trouble<'_>> {
    match File::open(path).and_then(|file| file.sync_data()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err((path, error)),
        _ => Ok(()),
    }
}

fn sync_file_systems(files: &[PathBuf]) -> Result<(), Trouble<'_>> {
    let mut seen = HashSet::new();
    for path in files {
        let Ok(file) = File::open(path) else { continue };
        let device = file.metadata().map_err(|e| (path.as_path(), e))?.dev();
        if seen.insert(device) {
            rustix::fs::syncfs(&file).map_err(|e| (path.as_path(), e.into()))?;
        }
    }
    Ok(())
}
