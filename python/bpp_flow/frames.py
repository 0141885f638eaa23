"""Frames on a stream that never blocks: a u32 length, a u8 kind, the payload; a plain socket's or TLS."""

import struct
from collections import deque

try:
    from ssl import SSLWantReadError, SSLWantWriteError
except ImportError:  # built without it: on one machine it is not needed
    SSLWantReadError = SSLWantWriteError = BlockingIOError

HEAD = struct.Struct("<IB")
MAX_FRAME = 1 << 30
# What is read at once, and written at once.
PIECE = 256 << 10
# Reads before others get their turn.
RECORD = 16384
ROUNDS = 64
LATER = (BlockingIOError, SSLWantReadError, SSLWantWriteError)


class Damaged(Exception):
    """What was read is no frame."""


class Stream:
    """One end of a connection."""

    space = memoryview(bytearray(PIECE))

    def __init__(self, sock, received=b""):
        sock.setblocking(False)
        self.socket = sock
        # A read that gives less has found all there is; of TLS it is a record at most.
        self.pending = getattr(sock, "pending", None)
        self.enough = PIECE if self.pending is None else RECORD
        self.received = bytearray(received)
        self.at = 0
        # A large frame, being read in place: (kind, payload), and how much of it is there.
        self.large = None
        self.filled = 0
        self.unsent = deque()
        # The piece that is being written: TLS wants the same again after it had to wait.
        self.piece = None
        self.backlog = 0
        self.ended = False
        # Whether there may be more to read that `poll` knows nothing of.
        self.more = bool(received)

    def fileno(self):
        return self.socket.fileno()

    def fill(self):
        """Reads what there is, or a good part of it: `poll` knows of the rest, or `more` tells."""
        self.more = False
        try:
            for _ in range(ROUNDS):
                size = self.read()
                if not size:
                    self.ended = True
                if size < self.enough or not self.has_room():
                    break
            else:
                self.more = True
        except LATER:
            pass
        except OSError:
            self.ended = True
        if self.pending is not None and self.pending():
            self.more = True

    def read(self):
        if self.large is None:
            size = self.socket.recv_into(self.space)
            self.received += self.space[:size]
            return size
        rest = memoryview(self.large[1])[self.filled:]
        size = self.socket.recv_into(rest[:8 * PIECE])
        self.filled += size
        return size

    def has_room(self):
        """Whether more is to be read before what is here was taken."""
        if self.large is not None:
            return self.filled < len(self.large[1])
        return len(self.received) - self.at < 4 * PIECE

    def frames(self):
        """The frames that are there: kinds and payloads."""
        received, at = self.received, self.at
        if self.large is not None:
            if self.filled < len(self.large[1]):
                return
            found, self.large = self.large, None
            self.more = True
            yield found
        have = len(received)
        while have - at >= HEAD.size:
            size, kind = HEAD.unpack_from(received, at)
            end = at + HEAD.size + size
            if end > have:
                self.at = at
                return self.expect(kind, size, have - at - HEAD.size)
            self.at = end
            yield kind, received[at + HEAD.size:end]
            at = end
        self.compact()

    def expect(self, kind, size, have):
        """The next frame is not whole: a large one is read in place."""
        if size > MAX_FRAME:
            raise Damaged("a frame of %d bytes" % size)
        if size > PIECE:
            payload = bytearray(size)
            payload[:have] = self.received[self.at + HEAD.size:]
            self.large, self.filled = (kind, payload), have
            self.at = len(self.received)
            self.more = True
        self.compact()

    def compact(self):
        if self.at:
            del self.received[:self.at]
            self.at = 0

    def send(self, kind, *parts):
        """Takes a frame; it is written by `flush`."""
        size = 0
        for part in parts:
            size += len(part)
        self.unsent.append(HEAD.pack(size, kind))
        self.unsent += parts
        self.backlog += HEAD.size + size

    def put(self, *parts):
        """Takes bytes that are frames already."""
        self.unsent += parts
        self.backlog += sum(map(len, parts))

    def flush(self):
        """Writes what can be written."""
        try:
            while self.backlog:
                piece = self.piece
                if piece is None:
                    piece = self.piece = self.gather()
                size = self.socket.send(piece[:PIECE])
                self.backlog -= size
                self.piece = piece[size:] if size < len(piece) else None
        except LATER:
            pass
        except OSError:
            self.ended = True
            self.unsent.clear()
            self.piece = None
            self.backlog = 0

    def gather(self):
        """The next bytes, small ones together."""
        if self.backlog <= PIECE:
            parts, self.unsent = self.unsent, deque()
            return memoryview(b"".join(parts))
        parts, size = [self.unsent.popleft()], 0
        while self.unsent and len(parts[0]) < PIECE and size < PIECE:
            parts.append(self.unsent.popleft())
            size += len(parts[-1])
        return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self):
        self.socket.close()
