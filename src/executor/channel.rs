//! A stream socket that carries frames, read and written without ever blocking the thread that also watches others.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, SendFlags};

use super::codec::HEAD;
use super::wire::MAX_FRAME;

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 256 << 10;

/// One end of a frame socket.
pub(super) struct Channel {
    socket: UnixStream,
    /// Received; frames begin at `read`.
    incoming: Vec<u8>,
    read: usize,
    /// Frames to be sent; of the first, `sent` bytes are gone.
    outgoing: VecDeque<Vec<u8>>,
    sent: usize,
    ended: bool,
}

impl Channel {
    pub(super) fn new(socket: UnixStream) -> Channel {
        Channel { socket, incoming: Vec::new(), read: 0, outgoing: VecDeque::new(), sent: 0, ended: false }
    }

    /// The socket, to be polled.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the other end is gone and everything it sent was read.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Reads once, if there is anything to read; false when there was nothing (now, or ever again).
    pub(super) fn fill(&mut self) -> bool {
        self.compact();
        let old = self.incoming.len();
        self.incoming.resize(old + READ_BYTES, 0);
        let result = rustix::net::recv(&self.socket, &mut self.incoming[old..], RecvFlags::DONTWAIT);
        let n = result.as_ref().map_or(0, |(_, n)| *n);
        self.incoming.truncate(old + n);
        match result {
            Ok(_) if n == 0 => self.ended = true,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) | Ok(_) => {}
            Err(_) => self.ended = true,
        }
        n > 0
    }

    fn compact(&mut self) {
        if self.read == self.incoming.len() {
            self.incoming.clear();
            self.incoming.shrink_to(4 * READ_BYTES);
        } else if self.read > READ_BYTES {
            self.incoming.drain(..self.read);
        } else {
            return;
        }
        self.read = 0;
    }

    /// The next whole frame received: its kind and payload.
    pub(super) fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let rest = &self.incoming[self.read..];
        let head = rest.get(..HEAD)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if len > MAX_FRAME {
            // A function wrote into the socket of its worker: nothing that follows is a frame.
            self.ended = true;
            self.incoming.clear();
            self.read = 0;
            return None;
        }
        let len = len as usize;
        let payload = rest.get(HEAD..HEAD + len)?.to_vec();
        let kind = head[4];
        self.read += HEAD + len;
        Some((kind, payload))
    }

    /// Queues a frame; [`Channel::flush`] sends.
    pub(super) fn push(&mut self, frame: Vec<u8>) {
        self.outgoing.push_back(frame);
    }

    /// Whether frames wait to be sent.
    pub(super) fn is_sending(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends what the socket takes at once. A broken connection drops everything: its reader will see the end.
    pub(super) fn flush(&mut self) {
        while let Some(frame) = self.outgoing.front() {
            let rest = &frame[self.sent..];
            match rustix::net::send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(n) if n == rest.len() => {
                    self.outgoing.pop_front();
                    self.sent = 0;
                }
                Ok(n) => self.sent += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.outgoing.clear();
                    self.sent = 0;
                }
            }
        }
    }

    /// Sends a frame at once, however long that takes.
    pub(super) fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.socket.write_all(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::{FrameReader, FrameWriter};
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut a, mut b) = (Channel::new(a), Channel::new(b));
        for n in 0..300u32 {
            let mut frame = FrameWriter::new(b'x');
            frame.u32(n).bytes(&vec![n as u8; n as usize * 37]);
            a.push(frame.finish());
        }
        let mut seen = 0u32;
        while seen < 300 {
            a.flush();
            b.fill();
            while let Some((kind, payload)) = b.next_frame() {
                let mut reader = FrameReader::new(&payload);
                assert_eq!((kind, reader.u32().unwrap()), (b'x', seen));
                assert_eq!(reader.bytes().unwrap(), vec![seen as u8; seen as usize * 37]);
                reader.end().unwrap();
                seen += 1;
            }
        }
        assert!(!a.is_sending() && !b.ended());
        drop(a);
        assert!(!b.fill() && b.ended());
    }

    #[test]
    fn what_is_no_frame_is_the_end() {
        let (mut a, b) = UnixStream::pair().unwrap();
        let mut b = Channel::new(b);
        a.write_all(b"hello, I am no frame").unwrap();
        b.fill();
        assert_eq!(b.next_frame(), None);
        assert!(b.ended(), "and nobody waits for the rest of it");
    }
}
