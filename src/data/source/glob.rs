//! `glob:`: a row per file.

use std::path::Path;

use super::digest::{FileStamp, file_digests};
use super::error::SourceError;
use super::files::find;
use super::pattern::{Match, Pattern};
use super::{Limits, ReadBatch, SourceReader, Surroundings, bad_row};
use crate::data::table::{Table, TableBuilder};
use crate::data::time::timestamp_text;
use crate::data::value::{TimeKind, Value};

/// The columns that every file has, beside the named wildcards.
pub const COLUMNS: [&str; 6] = ["path", "name", "stem", "parent", "size", "modified"];

/// Opens a source of files; they are listed now, and their contents hashed batch by batch.
pub(super) fn open(
    source_name: &str,
    pattern: &str,
    around: &Surroundings,
    limits: Limits,
) -> Result<SourceReader, SourceError> {
    let (parsed, files) = find_files(source_name, pattern, around)?;
    let around = around.clone();
    let mut next_row = 0;
    let mut files = files.into_iter();
    Ok(SourceReader::new(std::iter::from_fn(move || {
        let files: Vec<Match> = files.by_ref().take(limits.rows).collect();
        let batch = read(&parsed.names, files, &around, next_row);
        next_row += batch.len() as u64;
        (!batch.is_empty()).then_some(Ok(batch))
    })))
}

/// The pattern and the files that match it now.
pub(super) fn find_files(
    source_name: &str,
    pattern: &str,
    around: &Surroundings,
) -> Result<(Pattern, Vec<Match>), SourceError> {
    let (parsed, files) = find(source_name, pattern, around)?;
    if let Some(name) = parsed.names.iter().find(|n| COLUMNS.contains(&n.as_str())) {
        let what = format!("the wildcard {{{name}}} has the name of a column that every file has");
        return Err(SourceError::Definition { source_name: source_name.into(), what });
    }
    Ok((parsed, files))
}

fn read(names: &[String], files: Vec<Match>, around: &Surroundings, first_row: u64) -> ReadBatch {
    let paths: Vec<_> = files.iter().map(|file| around.dir.join(&file.path)).collect();
    let digests = file_digests(&paths, around.digests.as_deref());
    let mut table = TableBuilder::default();
    let mut batch = ReadBatch { rows: Vec::new(), table: Table::empty(0), bad: Vec::new(), bytes: 0 };
    for (row, (file, digest)) in (first_row..).zip(files.into_iter().zip(digests)) {
        match digest {
            Ok((stamp, digest)) => {
                batch.rows.push(row);
                let cells = describe(file, names, &stamp, digest);
                table.push_row(cells.iter().map(|(n, v)| (*n, v)));
            }
            Err(_) if file.path.contains(char::REPLACEMENT_CHARACTER) => {
                batch.bad.push((row, bad_row(format!("{}: its name is not valid UTF-8: rename it", file.path))));
            }
            Err(e) => batch.bad.push((row, bad_row(format!("{}: cannot be read: {e}", file.path)))),
        }
    }
    batch.table = table.finish();
    batch
}

fn describe<'a>(file: Match, names: &'a [String], stamp: &FileStamp, digest: [u8; 32]) -> Vec<(&'a str, Value)> {
    let path = Path::new(&file.path);
    let part = |part: Option<&std::ffi::OsStr>| Value::Text(part.and_then(|p| p.to_str()).unwrap_or("").to_string());
    let parent = path.parent().and_then(Path::to_str).filter(|p| !p.is_empty()).unwrap_or(".");
    let modified = Value::Time(TimeKind::DateTime, timestamp_text(stamp.mtime_ns));
    let values = [
        part(path.file_name()),
        part(path.file_stem()),
        Value::Text(parent.to_string()),
        Value::Aside(Box::new(Value::Int(stamp.size as i64))),
        Value::Aside(Box::new(modified)),
    ];
    let mut cells = vec![(COLUMNS[0], Value::File { path: file.path.clone(), digest, size: None })];
    cells.extend(COLUMNS[1..].iter().copied().zip(values));
    cells.extend(names.iter().map(String::as_str).zip(file.texts.into_iter().map(Value::Text)));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::testing::{Folder, all_rows};

    fn read(folder: &Folder, pattern: &str, rows: usize) -> Vec<ReadBatch> {
        let reader = open("scans", pattern, &Surroundings::new(folder.path()), Limits { rows, bytes: 0 });
        reader.expect("opens").map(|b| b.expect("reads")).collect()
    }

    #[test]
    fn a_row_per_file() {
        let folder = Folder::with(&[("data/p1/a.tar.gz", b"one"), ("data/p2/b.gz", b"two")]);
        let batches = read(&folder, "data/{patient}/*.gz", 1);
        assert_eq!(batches.iter().map(|b| b.rows[0]).collect::<Vec<_>>(), [0, 1]);
        let row = &all_rows(&batches)[0];
        let names: Vec<_> = row.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["path", "name", "stem", "parent", "size", "modified", "patient"]);
        let digest = *blake3::hash(b"one").as_bytes();
        assert_eq!(row[0].1, Value::File { path: "data/p1/a.tar.gz".into(), digest, size: None });
        let texts: Vec<_> = row.iter().map(|(_, v)| v.to_string()).collect();
        assert_eq!(texts[1..5], ["a.tar.gz", "a.tar", "data/p1", "3"]);
        assert!(texts[5].ends_with("+00:00"), "{}", texts[5]);
        assert_eq!(texts[6], "p1");
    }

    #[test]
    fn no_file_is_no_rows() {
        assert!(read(&Folder::with(&[]), "*.gz", 10).is_empty());
    }
}
