//! Text files as streams of bytes: decompressed by their names' endings, without a byte order mark, counted.

use std::io::{self, BufReader, Cursor, Read};

use super::Counter;
use super::error::SourceError;
use super::files::SourceFile;

const BUFFER: usize = 256 << 10;

/// The decompressed bytes of a file. What `read` adds to `counter` are the bytes on disk.
pub(super) fn open_text(
    source_name: &str,
    file: &SourceFile,
    counter: &Counter,
) -> Result<Box<dyn Read + Send>, SourceError> {
    let io = |cause| SourceError::Io { source_name: source_name.into(), path: file.shown.clone(), cause };
    let raw = Counted { inner: file.open(source_name)?, counter: counter.clone() };
    if file.size == 0 {
        return Ok(Box::new(io::empty()));
    }
    let name = file.shown.to_ascii_lowercase();
    if name.ends_with(".gz") {
        without_mark(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, raw))).map_err(io)
    } else if name.ends_with(".zst") {
        without_mark(zstd::stream::read::Decoder::new(raw).map_err(io)?).map_err(io)
    } else {
        without_mark(raw).map_err(io)
    }
}

/// `inner` without a UTF-8 byte order mark at its start.
pub(super) fn without_mark(mut inner: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::with_capacity(3);
    inner.by_ref().take(3).read_to_end(&mut head)?;
    if head == b"\xef\xbb\xbf" {
        return Ok(Box::new(inner));
    }
    Ok(Box::new(Cursor::new(head).chain(inner)))
}

/// Counts what is read.
pub(super) struct Counted<R> {
    pub inner: R,
    pub counter: Counter,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.counter.add(n as u64);
        Ok(n)
    }
}
