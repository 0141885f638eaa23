//! `lines:`: a row per line of a text file or of standard input.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::error::SourceError;
use super::{Counter, Limits, ReadBatch, SourceReader, bad_row, files, input};
use crate::data::table::{Column, Table};

/// Opens a source of lines; without a path `stdin` is read.
pub(super) fn open(
    source_name: &str,
    path: Option<&str>,
    dir: &Path,
    stdin: Option<Box<dyn Read + Send>>,
    limits: Limits,
) -> Result<SourceReader, SourceError> {
    let counter = Counter::default();
    let (bytes, shown, total) = match path {
        Some(path) => {
            let file = files::named(source_name, path, dir)?;
            (input::open_text(source_name, &file, &counter)?, file.shown, Some(file.size))
        }
        None => {
            let what = "standard input cannot be read here".to_string();
            let stdin = stdin.ok_or(SourceError::Definition { source_name: source_name.into(), what })?;
            let bytes = input::without_mark(input::Counted { inner: stdin, counter: counter.clone() });
            let io = |cause| SourceError::Io { source_name: source_name.into(), path: "stdin".into(), cause };
            (bytes.map_err(io)?, "stdin".to_string(), None)
        }
    };
    let reader = BufReader::with_capacity(256 << 10, bytes);
    let lines = Lines { reader, source_name: source_name.into(), shown, next_row: 0, limits, counter };
    Ok(SourceReader { total_bytes: total, ..SourceReader::new(lines) })
}

struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    source_name: String,
    shown: String,
    next_row: u64,
    limits: Limits,
    counter: Counter,
}

impl Lines {
    fn read_batch(&mut self) -> std::io::Result<Option<ReadBatch>> {
        let mut lines = arrow_array::builder::StringBuilder::new();
        let (mut rows, mut bad, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut line = Vec::new();
        while rows.len() + bad.len() < self.limits.rows && bytes < self.limits.bytes {
            line.clear();
            if self.reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            bytes += line.len();
            match std::str::from_utf8(without_end(&line)) {
                Ok(text) => {
                    lines.append_value(text);
                    rows.push(self.next_row);
                }
                Err(_) => {
                    let message = format!("{}:{}: not valid UTF-8", self.shown, self.next_row + 1);
                    bad.push((self.next_row, bad_row(message)));
                }
            }
            self.next_row += 1;
        }
        if rows.is_empty() && bad.is_empty() {
            return Ok(None);
        }
        let table = Table::new(["line".into()].into(), vec![Column::Text(lines.finish())], rows.len());
        Ok(Some(ReadBatch { rows, table, bad, bytes: self.counter.take() }))
    }
}

/// A line without the `\n` or `\r\n` at its end.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    match line {
        [body @ .., b'\r', b'\n'] | [body @ .., b'\n'] => body,
        body => body,
    }
}

impl Iterator for Lines {
    type Item = Result<ReadBatch, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (source_name, path) = (self.source_name.clone(), self.shown.clone());
        self.read_batch().map_err(|cause| SourceError::Io { source_name, path, cause }).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::testing::{all_rows, messages};

    #[test]
    fn ends_are_cut_and_bad_lines_told() {
        let stdin: &'static [u8] = b"\xef\xbb\xbfone\r\n\n tw\ro \n\xff\nlast";
        let limits = Limits { rows: 2, bytes: 1 << 20 };
        let reader = open("l", None, Path::new(""), Some(Box::new(stdin)), limits).expect("opens");
        let batches: Vec<_> = reader.map(|b| b.expect("reads")).collect();
        let lines: Vec<_> = all_rows(&batches).into_iter().map(|r| r[0].1.to_string()).collect();
        assert_eq!(lines, ["one", "", " tw\ro ", "last"]);
        assert_eq!(messages(&batches), [(3, "stdin:4: not valid UTF-8".to_string())]);
        assert_eq!(batches.iter().map(|b| b.rows.len() + b.bad.len()).collect::<Vec<_>>(), [2, 2, 1]);
    }
}
