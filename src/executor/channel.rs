//! A stream socket that carries frames, read and written without ever blocking the thread that also watches others.
//!
//! Two sorts of sockets: a Unix socket to a process of this machine, and TCP under TLS to one of another. Who connects
//! from elsewhere is a *guest* until he has said who he is: he must do so soon, and in few bytes.

mod tls;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, SendFlags};

use super::codec::HEAD;
use super::wire::MAX_FRAME;
pub(super) use tls::Tls;

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 256 << 10;
/// How long a guest may take to say who he is.
const GUEST_TIME: Duration = Duration::from_secs(10);
/// How many bytes that may be.
const GUEST_BYTES: u32 = 64 << 10;

/// One end of a frame socket.
pub(super) struct Channel {
    transport: Transport,
    /// Received; frames begin at `read`.
    incoming: Vec<u8>,
    read: usize,
    /// Frames to be sent; of the first, `sent` bytes are gone.
    outgoing: VecDeque<Vec<u8>>,
    sent: usize,
    ended: bool,
    guest: Option<Guest>,
}

/// Someone from elsewhere who has not yet said who he is.
struct Guest {
    since: Instant,
    /// Counted by the listener while it lasts.
    _place: Arc<()>,
}

/// What the bytes of frames travel over.
enum Transport {
    Plain(UnixStream),
    Tls(Box<Tls>),
}

impl Transport {
    /// Adds what was received, without waiting, to `incoming`; `Ok(0)`: the other end is gone.
    fn receive(&mut self, incoming: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => {
                incoming.reserve(READ_BYTES);
                Ok(rustix::net::recv(socket, spare_capacity(incoming), RecvFlags::DONTWAIT)?.1)
            }
            Transport::Tls(tls) => tls.receive(incoming),
        }
    }

    /// Sends some of these bytes, without waiting.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(rustix::io::retry_on_intr(|| rustix::net::send(&*socket, bytes, flags))?)
            }
            Transport::Tls(tls) => tls.send(bytes),
        }
    }

    /// Sends what was taken but is held back.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Plain(_) => Ok(()),
            Transport::Tls(tls) => tls.flush(),
        }
    }
}

impl Channel {
    /// To a process of this machine.
    pub(super) fn new(socket: UnixStream) -> Channel {
        Channel::over(Transport::Plain(socket), None)
    }

    /// To whoever has connected from elsewhere. `place` is dropped once the guest is welcome or gone.
    pub(super) fn to_guest(tls: Tls, place: Arc<()>) -> Channel {
        Channel::over(Transport::Tls(Box::new(tls)), Some(Guest { since: Instant::now(), _place: place }))
    }

    fn over(transport: Transport, guest: Option<Guest>) -> Channel {
        let (incoming, outgoing) = (Vec::new(), VecDeque::new());
        Channel { transport, incoming, read: 0, outgoing, sent: 0, ended: false, guest }
    }

    /// The guest has said who he is: the limits of guests are his no more.
    pub(super) fn welcome(&mut self) {
        self.guest = None;
    }

    /// The socket, to be polled: for reading, and for writing where [`Channel::is_sending`].
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        match &self.transport {
            Transport::Plain(socket) => socket.as_fd(),
            Transport::Tls(tls) => tls.socket(),
        }
    }

    /// Whether the other end is gone and everything it sent was read, or a guest's time is over.
    pub(super) fn ended(&self) -> bool {
        self.ended || self.guest.as_ref().is_some_and(|guest| guest.since.elapsed() >= GUEST_TIME)
    }

    /// Reads once, if there is anything to read; false when there was nothing (now, or ever again).
    pub(super) fn fill(&mut self) -> bool {
        self.compact();
        let result = self.transport.receive(&mut self.incoming);
        match &result {
            Ok(n) => self.ended |= *n == 0,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.ended = true,
        }
        if let Transport::Tls(tls) = &self.transport {
            self.ended |= tls.is_closed();
        }
        if self.guest.is_some() && self.incoming.len() > GUEST_BYTES as usize + HEAD {
            self.give_up();
        }
        result.is_ok_and(|n| n > 0)
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

    /// Nothing that follows is a frame, and nobody waits for it.
    fn give_up(&mut self) {
        self.ended = true;
        self.incoming.clear();
        self.read = 0;
    }

    /// The next whole frame received: its kind and payload.
    pub(super) fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let rest = &self.incoming[self.read..];
        let head = rest.get(..HEAD)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if len > if self.guest.is_some() { GUEST_BYTES } else { MAX_FRAME } {
            // A function wrote into the socket of its worker, or a guest speaks another language.
            self.give_up();
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

    /// Whether something waits for the socket to take it.
    pub(super) fn is_sending(&self) -> bool {
        match &self.transport {
            Transport::Plain(_) => !self.outgoing.is_empty(),
            Transport::Tls(tls) => tls.is_sending() || (tls.is_open() && !self.outgoing.is_empty()),
        }
    }

    /// Sends what the socket takes at once. A broken connection drops everything: its reader will see the end.
    pub(super) fn flush(&mut self) {
        match self.send() {
            Err(e) if e.kind() != ErrorKind::WouldBlock => {
                self.outgoing.clear();
                self.sent = 0;
            }
            _ => {}
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some(frame) = self.outgoing.front() {
            self.sent += self.transport.send(&frame[self.sent..])?;
            if self.sent == frame.len() {
                self.outgoing.pop_front();
                self.sent = 0;
            }
        }
        self.transport.flush()
    }

    /// Sends a frame at once, however long that takes: to processes of this machine only.
    pub(super) fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        match &mut self.transport {
            Transport::Plain(socket) => socket.write_all(frame),
            Transport::Tls(_) => Err(ErrorKind::Unsupported.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::{FrameReader, FrameWriter};
    use super::super::remote::listener::Listener;
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

    #[test]
    fn a_guest_who_does_not_say_who_he_is_is_gone_in_time() {
        let mut listener = Listener::open(Some("127.0.0.1")).unwrap();
        let client = std::net::TcpStream::connect(("127.0.0.1", listener.invitation().port)).unwrap();
        let mut channel = std::iter::repeat_with(|| listener.accept()).flatten().next().unwrap();
        assert!(!channel.fill() && !channel.ended() && !channel.is_sending());
        let guest = channel.guest.as_mut().unwrap();
        guest.since = guest.since.checked_sub(GUEST_TIME).unwrap();
        assert!(channel.ended());
        channel.welcome();
        assert!(!channel.ended());
        drop(client);
    }
}
