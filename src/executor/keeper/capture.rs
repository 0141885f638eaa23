//! What is kept of a command's output.

/// The beginning and the end of a stream; what lies between is counted and dropped.
#[derive(Default)]
pub(super) struct HeadTail {
    head: Vec<u8>,
    /// The end, as a ring: the oldest byte at `at` once it is full.
    tail: Vec<u8>,
    at: usize,
    dropped: u64,
}

impl HeadTail {
    /// Bytes kept of each end.
    const PART: usize = 32 << 10;

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(bytes.len().min(Self::PART - self.head.len()));
        self.head.extend_from_slice(first);
        for &byte in rest {
            if self.tail.len() < Self::PART {
                self.tail.push(byte);
            } else {
                self.tail[self.at] = byte;
                self.at = (self.at + 1) % Self::PART;
                self.dropped += 1;
            }
        }
    }

    /// Both ends, with a word on what was between.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut whole = std::mem::take(&mut self.head);
        if self.dropped > 0 {
            whole.extend_from_slice(format!("\n… {} bytes left out …\n", self.dropped).as_bytes());
        }
        self.tail.rotate_left(self.at);
        whole.append(&mut self.tail);
        *self = HeadTail::default();
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_output_is_kept_whole() {
        let mut kept = HeadTail::default();
        kept.push(b"one ");
        kept.push(b"two");
        assert_eq!(kept.take(), b"one two");
        assert_eq!(kept.take(), b"");
    }

    #[test]
    fn long_output_loses_its_middle() {
        let mut kept = HeadTail::default();
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        bytes.chunks(1777).for_each(|c| kept.push(c));
        let whole = kept.take();
        let note = format!("\n… {} bytes left out …\n", 200_000 - 2 * HeadTail::PART);
        let expected = [&bytes[..HeadTail::PART], note.as_bytes(), &bytes[200_000 - HeadTail::PART..]].concat();
        assert_eq!(whole, expected);
    }
}
