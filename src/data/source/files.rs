//! The files that a source reads: names, lists and globs made into paths.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::Surroundings;
use super::error::SourceError;
use super::pattern::{Match, Pattern};

/// A file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// The path as a person knows it: relative to the workflow where the definition is.
    pub shown: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

impl SourceFile {
    /// Opens it.
    pub fn open(&self, source_name: &str) -> Result<File, SourceError> {
        File::open(&self.path).map_err(|cause| SourceError::open(source_name, &self.shown, self.path.clone(), cause))
    }
}

/// The files that `paths` name, in that order; those of a pattern sorted. Every one exists.
pub(crate) fn expand(
    source_name: &str,
    paths: &[String],
    around: &Surroundings,
) -> Result<Vec<SourceFile>, SourceError> {
    let mut files = Vec::new();
    for path in paths {
        if !Pattern::is_wild(path) || around.dir.join(path).is_file() {
            files.push(named(source_name, path, &around.dir)?);
            continue;
        }
        let (_, matches) = find(source_name, path, around)?;
        if matches.is_empty() {
            return Err(SourceError::NoMatch { source_name: source_name.into(), pattern: path.clone() });
        }
        for found in matches {
            files.push(named(source_name, &found.path, &around.dir)?);
        }
    }
    Ok(files)
}

/// A pattern and what matches it.
pub(super) fn find(source_name: &str, text: &str, around: &Surroundings) -> Result<(Pattern, Vec<Match>), SourceError> {
    let pattern =
        Pattern::parse(text).map_err(|what| SourceError::Definition { source_name: source_name.into(), what })?;
    let matches = pattern.find(&around.dir, &around.excluded).map_err(|cause| SourceError::Io {
        source_name: source_name.into(),
        path: text.into(),
        cause,
    })?;
    Ok((pattern, matches))
}

/// The file of that name.
pub(crate) fn named(source_name: &str, shown: &str, dir: &Path) -> Result<SourceFile, SourceError> {
    let path = dir.join(shown);
    let meta = std::fs::metadata(&path).map_err(|cause| SourceError::open(source_name, shown, path.clone(), cause))?;
    if !meta.is_file() {
        let what = if meta.is_dir() { "is a folder" } else { "is no regular file" };
        return Err(SourceError::Content { source_name: source_name.into(), path: shown.into(), what: what.into() });
    }
    Ok(SourceFile { shown: shown.to_string(), path, size: meta.len() })
}
