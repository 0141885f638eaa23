//! The server's end of TLS over TCP, driven by hand: nothing here waits, and no thread serves it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use rustls::{ServerConfig, ServerConnection};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes that are sealed ahead of what the socket takes.
const SEALED_BYTES: usize = 256 << 10;
/// How long a connection may be silent before the kernel asks whether there is still somebody, and then once more.
const QUIET: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(10);
const ASK: u32 = 3;

/// A connection of somebody elsewhere.
pub(in crate::executor) struct Tls {
    socket: TcpStream,
    connection: ServerConnection,
    /// The other end said that nothing follows.
    closed: bool,
    /// Nothing can be sent any more.
    broken: bool,
}

impl Tls {
    pub(in crate::executor) fn new(socket: TcpStream, config: &Arc<ServerConfig>) -> io::Result<Tls> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, QUIET)?;
        sockopt::set_tcp_keepintvl(&socket, AGAIN)?;
        sockopt::set_tcp_keepcnt(&socket, ASK)?;
        let mut connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        connection.set_buffer_limit(Some(SEALED_BYTES));
        Ok(Tls { socket, connection, closed: false, broken: false })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the handshake is over.
    pub(super) fn is_open(&self) -> bool {
        !self.connection.is_handshaking() && !self.broken
    }

    /// Whether the other end has said that nothing follows.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether sealed bytes, those of the handshake too, wait for the socket to take them.
    pub(super) fn is_sending(&self) -> bool {
        self.connection.wants_write() && !self.broken
    }

    /// Reads once and opens all that came: nothing stays behind that `poll` does not know of. Gives the number of
    /// bytes that came, which may be more than those that were in them.
    pub(super) fn receive(&mut self, incoming: &mut Vec<u8>) -> io::Result<usize> {
        let mut buffer = [0; READ_BYTES];
        let n = self.socket.read(&mut buffer)?;
        let mut sealed = &buffer[..n];
        while !sealed.is_empty() && !self.closed {
            self.connection.read_tls(&mut sealed)?;
            match self.connection.process_new_packets() {
                Ok(state) => {
                    let old = incoming.len();
                    incoming.resize(old + state.plaintext_bytes_to_read(), 0);
                    self.connection.reader().read_exact(&mut incoming[old..])?;
                    self.closed = state.peer_has_closed();
                }
                Err(e) => {
                    // The other end is told why, if it takes that at once.
                    let _ = self.flush();
                    return Err(io::Error::new(ErrorKind::InvalidData, e));
                }
            }
        }
        Ok(n)
    }

    /// Seals some of these bytes; they go off when enough have come together, or with [`Tls::flush`].
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.connection.is_handshaking() {
            self.flush()?;
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut taken = self.connection.writer().write(bytes)?;
        if taken == 0 {
            self.flush()?;
            taken = self.connection.writer().write(bytes)?;
        }
        if taken == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(taken) }
    }

    /// Sends what is sealed, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.is_sending() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    self.broken = e.kind() != ErrorKind::WouldBlock;
                    return Err(e);
                }
            }
        }
        if self.broken { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}
