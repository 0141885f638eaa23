"""What items print, kept for the failed ones.

Descriptors 1 and 2 of a worker are one file, which bpp-flow reads when the worker dies. Python's own prints go the
same way, but an item keeps only the head and the tail of them, so that a talkative one costs neither time nor memory.
"""

import io
import os
import sys
import threading

HEAD = 32 * 1024
TAIL = 32 * 1024
# Beyond the head, prints are gathered in pieces of this size.
PIECE = 4096


def shorten(head, tail, left_out):
    """The text of captured bytes of which `left_out` are missing in the middle."""
    if left_out > 0:
        head += b"\n[... %d bytes left out ...]\n" % left_out
    return (head + tail).decode("utf-8", "replace")


class FileCapture:
    """Everything that the process writes, for one item at a time."""

    def __init__(self, fd):
        self.fd = fd
        # Looked at after each item: whether there may be something to take or to drop.
        self.used = False
        # Something writes past Python: every item has to be looked after.
        self.noisy = False
        self.written = 0
        self.dropped = 0
        self.pending = bytearray()
        self.in_child = False

    def write(self, data):
        self.used = True
        if self.in_child:
            return self._put(data)
        if self.written < HEAD:
            self.written += len(data)
            if len(data) > HEAD + TAIL:
                self.dropped += len(data) - HEAD - TAIL
                self._put(data[:HEAD])
                data = data[-TAIL:]
            return self._put(data)
        if len(data) > TAIL:
            self.dropped += len(self.pending) + len(data) - TAIL
            self.pending = bytearray(data[-TAIL:])
        else:
            self.pending += data
        if len(self.pending) >= PIECE:
            self.flush()

    def flush(self):
        if self.pending:
            data, self.pending = self.pending, bytearray()
            self.written += len(data)
            self._put(data)
            if self.written > HEAD + 4 * TAIL:
                self._compact()

    def _put(self, data):
        try:
            while data:
                data = data[os.write(self.fd, data):]
        except OSError:
            self.dropped += len(data)

    def _compact(self):
        size = os.lseek(self.fd, 0, os.SEEK_END)
        if size > HEAD + TAIL:
            tail = os.pread(self.fd, TAIL, size - TAIL)
            os.ftruncate(self.fd, HEAD)
            self._put(tail)
            self.dropped += size - HEAD - TAIL
        self.written = HEAD + TAIL

    def trim(self):
        """Keeps a file that belongs to no one item from growing."""
        if os.lseek(self.fd, 0, os.SEEK_END) > HEAD + 32 * TAIL:
            self._compact()

    def take(self):
        """What the item in hand has written; nothing of it stays."""
        self.flush()
        size = os.lseek(self.fd, 0, os.SEEK_END)
        if not size:
            return ""
        if size <= HEAD + TAIL:
            text = shorten(os.pread(self.fd, size, 0), b"", self.dropped)
        else:
            head, tail = os.pread(self.fd, HEAD, 0), os.pread(self.fd, TAIL, size - TAIL)
            text = shorten(head, tail, self.dropped + size - HEAD - TAIL)
        self._empty()
        return text

    def end_item(self):
        """Drops what the item has written."""
        if os.lseek(self.fd, 0, os.SEEK_END):
            if not self.written:
                self.noisy = True
            self._empty()
        elif self.pending or self.written:
            self._empty()
        self.used = self.noisy

    def _empty(self):
        os.ftruncate(self.fd, 0)
        self.pending.clear()
        self.written = self.dropped = 0
        self.used = self.noisy

    def after_fork(self):
        self.in_child = True
        self.pending = bytearray()


class LaneCapture:
    """What one thread prints through Python; the process's file is not of any one item."""

    def __init__(self, shared):
        self.shared = shared
        self._empty()

    def _empty(self):
        self.used = False
        self.head = b""
        self.tail = bytearray()
        self.dropped = 0

    def write(self, data):
        self.used = True
        if len(self.head) < HEAD:
            room = HEAD - len(self.head)
            self.head += data[:room]
            data = data[room:]
        self.tail += data[-TAIL:]
        self.dropped += max(0, len(data) - TAIL)
        if len(self.tail) > 4 * TAIL:
            self.dropped += len(self.tail) - TAIL
            del self.tail[:-TAIL]

    def take(self):
        over = max(0, len(self.tail) - TAIL)
        text = shorten(self.head, bytes(self.tail[over:]), self.dropped + over)
        self._empty()
        return text

    def end_item(self):
        if self.used:
            self._empty()
        self.shared.trim()


class NoCapture:
    """The terminal is the item's own."""

    used = False

    def take(self):
        return ""

    def end_item(self):
        pass

    def trim(self):
        pass

    def after_fork(self):
        pass


class Tap(io.RawIOBase):
    """Where `sys.stdout` and `sys.stderr` end: in the capture of the thread, or of the process."""

    def __init__(self, fd, fallback):
        self._fd = fd
        self.fallback = fallback

    def writable(self):
        return True

    def fileno(self):
        return self._fd

    def isatty(self):
        return False

    def write(self, data):
        data = bytes(data)
        (getattr(current, "capture", None) or self.fallback).write(data)
        return len(data)


# The capture of a thread that runs items, where there are several.
current = threading.local()


def install(terminal):
    """Puts the capture in place of the standard streams and gives it."""
    try:
        os.lseek(1, 0, os.SEEK_CUR)
    except OSError:
        terminal = True
    if terminal:
        return NoCapture()
    capture = FileCapture(1)
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = io.TextIOWrapper(Tap(fd, capture), "utf-8", "backslashreplace", newline="\n", write_through=True)
        stream.mode = "w"
        setattr(sys, name, stream)
        setattr(sys, "__%s__" % name, stream)
    return capture
