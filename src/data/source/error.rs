//! What stops a source as a whole. A row that cannot be read is no error: it is a bad row.

use std::path::PathBuf;

/// A source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No such file.
    #[error("source {source_name}: there is no file {path}{}", nearby.as_ref().map_or(String::new(), |n| format!("; there is {n}")))]
    Missing { source_name: String, path: String, nearby: Option<String> },
    /// A pattern that names no file.
    #[error("source {source_name}: no file matches {pattern}")]
    NoMatch { source_name: String, pattern: String },
    /// The file is there but reading it fails.
    #[error("source {source_name}: cannot read {path}")]
    Io {
        source_name: String,
        path: String,
        #[source]
        cause: std::io::Error,
    },
    /// The file is there but is not what it should be.
    #[error("source {source_name}: {path}: {what}")]
    Content { source_name: String, path: String, what: String },
    /// The definition makes no sense together with the data.
    #[error("source {source_name}: {what}")]
    Definition { source_name: String, what: String },
    /// A database says no.
    #[error("source {source_name}: {cause}")]
    Database { source_name: String, cause: crate::data::sql::SqlError },
    /// A program did not start, or ended badly.
    #[error("source {source_name}: {what}")]
    Program { source_name: String, what: String },
    /// A column that the definition names is not in the data.
    #[error("source {source_name}: there is no column {column:?}{}", nearest.as_ref().map_or(String::new(), |n| format!("; did you mean {n:?}?")))]
    NoColumn { source_name: String, column: String, nearest: Option<String> },
}

impl SourceError {
    /// A file that cannot be opened: missing ones are told with what is there under a similar name.
    pub(crate) fn open(source_name: &str, shown: &str, path: PathBuf, cause: std::io::Error) -> SourceError {
        let (source_name, shown_path) = (source_name.to_string(), shown.to_string());
        if cause.kind() == std::io::ErrorKind::NotFound {
            return SourceError::Missing { source_name, path: shown_path, nearby: nearby(shown, &path) };
        }
        SourceError::Io { source_name, path: shown_path, cause }
    }

    /// A missing column, with the nearest of those that are there.
    pub(crate) fn no_column<'a>(
        source_name: &str,
        column: &str,
        there: impl IntoIterator<Item = &'a str>,
    ) -> SourceError {
        SourceError::NoColumn {
            source_name: source_name.to_string(),
            column: column.to_string(),
            nearest: nearest(column, there),
        }
    }
}

/// The most similar of some names, if any is similar at all.
pub(crate) fn nearest<'a>(name: &str, there: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let scored = there.into_iter().map(|n| (strsim::jaro_winkler(&name.to_lowercase(), &n.to_lowercase()), n));
    scored.filter(|(s, _)| *s > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, n)| n.to_string())
}

/// A file of a similar name in the same folder, or in the deepest folder of the path that is there.
fn nearby(shown: &str, path: &std::path::Path) -> Option<String> {
    let missing = path.ancestors().find(|p| p.parent().is_some_and(|parent| parent.is_dir()))?;
    let name = missing.file_name()?.to_str()?;
    let names: Vec<String> =
        missing.parent()?.read_dir().ok()?.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    let found = nearest(name, names.iter().map(String::as_str))?;
    let shown = std::path::Path::new(shown);
    let below = path.strip_prefix(missing).map_or(0, |p| p.components().count());
    let folder = shown.ancestors().nth(below + 1)?;
    Some(folder.join(found).display().to_string())
}
