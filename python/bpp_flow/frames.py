"""Frames on a stream that never blocks: a u32 length, a u8 kind, the payload; a plain socket's or TLS."""

import ssl
import struct
from collections import deque

HEAD = struct.Struct("<IB")
MAX_FRAME = 1 << 30
# What is read at once, and written at once.
PIECE = 256 << 10
# Reads before others get their turn.
ROUNDS = 64
LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Damaged(Exception):
    """What was read is no frame."""


class Stream:
    """One end of a connection."""

    space = memoryview(bytearray(PIECE))

    def __init__(self, sock, received=b""):
        sock.setblocking(False)
        self.socket = sock
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
        self.more = False

    def fileno(self):
        return self.socket.fileno()

    def fill(self):
        """Reads what there is."""
        self.more = False
        try:
            for _ in range(ROUNDS):
                if not self.read():
                    self.ended = True
                    return
            self.more = True
        except LATER:
            pass
        except OSError:
            self.ended = True

    def read(self):
        if self.large is not None:
            rest = memoryview(self.large[1])[self.filled:]
            size = self.socket.recv_into(rest[:8 * PIECE])
            self.filled += size
            if size == len(rest):
                # It is taken before anything behind it is read.
                raise BlockingIOError
            return size
        size = self.socket.recv_into(self.space)
        self.received += self.space[:size]
        if len(self.received) - self.at > 4 * PIECE:
            raise BlockingIOError
        return size

    def frames(self):
        """The frames that are there: kinds and payloads."""
        while True:
            found = self.next()
            if found is None:
                return
            yield found

    def next(self):
        if self.large is not None:
            if self.filled < len(self.large[1]):
                return None
            found, self.large = self.large, None
            self.more = True
            return found
        received, at = self.received, self.at
        have = len(received) - at - HEAD.size
        if have < 0:
            return self.compact()
        size, kind = HEAD.unpack_from(received, at)
        if size > MAX_FRAME:
            raise Damaged("a frame of %d bytes" % size)
        at += HEAD.size
        if have < size:
            if size > PIECE:
                payload = bytearray(size)
                payload[:have] = received[at:]
                self.large, self.filled = (kind, payload), have
                received.clear()
                self.at = 0
                self.more = True
                return None
            return self.compact()
        self.at = at + size
        return kind, received[at:at + size]

    def compact(self):
        if self.at:
            del self.received[:self.at]
            self.at = 0
        return None

    def send(self, kind, *parts):
        """Takes a frame; it is written by `flush`."""
        size = sum(map(len, parts))
        self.put(HEAD.pack(size, kind), *parts)

    def put(self, *parts):
        """Takes bytes that are frames already."""
        self.unsent.extend(parts)
        self.backlog += sum(map(len, parts))

    def flush(self):
        """Writes what can be written."""
        try:
            while self.piece is not None or self.unsent:
                if self.piece is None:
                    self.piece = self.gather()
                size = self.socket.send(self.piece[:PIECE])
                self.backlog -= size
                self.piece = self.piece[size:] if size < len(self.piece) else None
        except LATER:
            pass
        except OSError:
            self.ended = True
            self.unsent.clear()
            self.piece = None
            self.backlog = 0

    def gather(self):
        """The next bytes, small ones together."""
        first = self.unsent.popleft()
        if len(first) >= PIECE or not self.unsent:
            return memoryview(first)
        parts, size = [first], len(first)
        while self.unsent and size + len(self.unsent[0]) <= PIECE:
            parts.append(self.unsent.popleft())
            size += len(parts[-1])
        return memoryview(b"".join(parts))

    def is_sending(self):
        return self.backlog > 0

    def close(self):
        self.socket.close()
