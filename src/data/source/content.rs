//! What a source is, as one hash: its definition and all the bytes it would read.

use super::digest::file_digests;
use super::error::SourceError;
use super::{Surroundings, files, glob, sql};
use crate::data::item::Hash;
use crate::spec::model::{Reader, Source, SweepValues};

/// Goes up whenever the same bytes are read as other rows than before.
const READER_VERSION: u32 = 1;

/// The hash of a source's definition and content; `None` where only the rows themselves tell: standard input, servers,
/// programs.
pub fn content_in(source: &Source, around: &Surroundings) -> Result<Option<Hash>, SourceError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{READER_VERSION} {:?} {}", source.key, definition(source)).as_bytes());
    let named = match &source.reader {
        Reader::Sweep(sweep) => {
            for other in sweep.sources() {
                let Some(content) = content_in(&around.sources[other], around)? else { return Ok(None) };
                hasher.update(&content.0);
            }
            Vec::new()
        }
        Reader::Lines { path: None } | Reader::Program(_) => return Ok(None),
        Reader::Sql { database, query } => match sql::decided_by_file(database, query, &around.dir) {
            Some(path) => vec![path],
            None => return Ok(None),
        },
        Reader::Values { .. } | Reader::Range { .. } => Vec::new(),
        Reader::Lines { path: Some(path) } => vec![files::named(&source.name, path, &around.dir)?.shown],
        Reader::Files { paths, .. } => {
            files::expand(&source.name, paths, around)?.into_iter().map(|f| f.shown).collect()
        }
        Reader::Glob { pattern } => {
            glob::find_files(&source.name, pattern, around)?.1.into_iter().map(|m| m.path).collect()
        }
    };
    let paths: Vec<_> = named.iter().map(|shown| around.dir.join(shown)).collect();
    let digests = file_digests(&paths, around.digests.as_deref());
    for (shown, digest) in named.iter().zip(digests) {
        hasher.update(&(shown.len() as u64).to_le_bytes());
        hasher.update(shown.as_bytes());
        match digest {
            Ok((_, digest)) => hasher.update(&digest),
            // A file that cannot be read is a bad row of a glob, and told by the readers of the others.
            Err(cause) if matches!(source.reader, Reader::Glob { .. }) => hasher.update(cause.to_string().as_bytes()),
            Err(cause) => return Err(SourceError::open(&source.name, shown, around.dir.join(shown), cause)),
        };
    }
    Ok(Some(Hash::from(&hasher.finalize())))
}

/// How a source reads, as text. A sweep's other sources count by their content, not by their place in the file.
fn definition(source: &Source) -> String {
    let Reader::Sweep(sweep) = &source.reader else { return format!("{:?}", source.reader) };
    let columns = sweep.columns.iter().map(|(name, values)| match values {
        SweepValues::Column { column, .. } => format!("{name:?}: column {column:?}"),
        values => format!("{name:?}: {values:?}"),
    });
    format!("sweep {} {:?} {:?}", sweep.in_step, columns.collect::<Vec<_>>(), sweep.filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::testing::Folder;
    use crate::diagnostic::Span;
    use crate::spec::model::{Format, TextOptions};

    #[test]
    fn it_changes_with_definition_names_and_bytes() {
        let folder = Folder::with(&[("a.csv", b"x\n1\n"), ("b.csv", b"x\n2\n")]);
        let hash = |paths: &[&str], key: &[&str]| {
            let paths = paths.iter().map(|p| p.to_string()).collect();
            let reader = Reader::Files { format: Format::Csv, paths, text: TextOptions::default() };
            let key = key.iter().map(|k| k.to_string()).collect();
            let source = Source { name: "s".into(), reader, key, span: Span::default() };
            content_in(&source, &Surroundings::new(folder.path())).expect("readable").expect("some")
        };
        let first = hash(&["*.csv"], &[]);
        assert_eq!(first, hash(&["*.csv"], &[]));
        assert_ne!(first, hash(&["*.csv"], &["x"]));
        assert_ne!(first, hash(&["a.csv", "b.csv"], &[]));
        assert_ne!(hash(&["a.csv", "b.csv"], &[]), hash(&["b.csv", "a.csv"], &[]));
        folder.write("b.csv", b"x\n3\n");
        assert_ne!(first, hash(&["*.csv"], &[]));
        folder.write("b.csv", b"x\n2\n");
        assert_eq!(first, hash(&["*.csv"], &[]));
        folder.write("c.csv", b"");
        assert_ne!(first, hash(&["*.csv"], &[]));
    }
}
