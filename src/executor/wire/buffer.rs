//! Cuts the bytes that a worker sends into frames.

use std::io::{self, Read};

use super::WireError;

/// The longest payload of a frame; the worker keeps to it too (a result beyond it fails its item).
pub const MAX_FRAME: u32 = 1 << 30;

/// Length and kind.
const HEAD: usize = 5;

/// Gathers bytes and gives out whole frames.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
}

impl FrameBuffer {
    /// Appends bytes as they arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.compact();
        self.bytes.extend_from_slice(bytes);
    }

    /// Reads once from `source`, at most `limit` bytes; gives the number read, 0 at the end.
    pub fn fill(&mut self, source: &mut impl Read, limit: usize) -> io::Result<usize> {
        self.compact();
        let before = self.bytes.len();
        self.bytes.resize(before + limit, 0);
        let read = source.read(&mut self.bytes[before..]);
        self.bytes.truncate(before + *read.as_ref().unwrap_or(&0));
        read
    }

    /// The next frame's kind and payload, once it is here as a whole.
    pub fn next_frame(&mut self) -> Result<Option<(u8, &[u8])>, WireError> {
        let Some((head, rest)) = self.bytes[self.start..].split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [a, b, c, d, kind] = *head;
        let length = u32::from_le_bytes([a, b, c, d]);
        if length > MAX_FRAME {
            return Err(WireError::Length(length));
        }
        let length = length as usize;
        if rest.len() < length {
            return Ok(None);
        }
        let from = self.start + HEAD;
        self.start = from + length;
        Ok(Some((kind, &self.bytes[from..from + length])))
    }

    /// Whether a frame has begun and not ended.
    pub fn is_partial(&self) -> bool {
        self.start < self.bytes.len()
    }

    /// Drops what was given out, when that is most of what is held.
    fn compact(&mut self) {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}
