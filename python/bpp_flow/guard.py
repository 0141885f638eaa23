"""The guard: the parent of keepers, which ends what they leave behind, however they end."""

import os
import select
import signal
import socket
import sys
import time

from .processes import adopt_orphans, children, kill

# How often a keeper that died is replaced.
MOST_LOSSES = 3
# How long keepers may take to end when their guard has to.
PATIENCE = 0.7


class Guarded:
    """A keeper, and the socket to it: its end tells either of them of the other's."""

    def __init__(self, pid, sock):
        self.pid = pid
        self.socket = sock
        self.groups = set()
        self.received = b""

    def hear(self):
        """Process groups (`+12`, `-12`), and words for people (`!…`)."""
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        *lines, self.received = (self.received + data).split(b"\n")
        words = []
        for line in lines:
            if line[:1] == b"+":
                self.groups.add(int(line))
            elif line[:1] == b"-":
                self.groups.discard(-int(line))
            else:
                words.append(line[1:].decode("utf-8", "replace"))
        return words


def guard(body, count=1, losses=0, release=None):
    """Runs `body` (called with the number, and the socket to its guard; gives an exit code) in `count` processes.

    Returns how they ended: an exit code, or minus the signal. Those that are killed are replaced, so often in all.
    `release` lets go of what is the keepers' alone.
    """
    keepers = {}
    parent = os.getpid()
    awake, wake = socket.socketpair()
    for end in (awake, wake):
        end.setblocking(False)
    asked = []

    def start(number):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid:
            theirs.close()
            keepers[number] = Guarded(pid, ours)
            return
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            for end in (ours, awake, wake, *(other.socket for other in keepers.values())):
                end.close()
            os.setsid()
            code = body(number, theirs)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    adopt_orphans()
    for number in range(count):
        start(number)
    if release is not None:
        release()
    said, worst = set(), 0
    while keepers and not asked:
        ready, _, _ = select.select([awake, *(keeper.socket for keeper in keepers.values())], [], [])
        if awake in ready:
            awake.recv(4096)
        for keeper in keepers.values():
            if keeper.socket in ready:
                for words in keeper.hear():
                    if words not in said:
                        said.add(words)
                        print("bpp-flow: %s" % words, file=sys.stderr, flush=True)
        for number, code in ended(keepers):
            if code not in (0, 1) and losses > 0 and os.getpid() == parent:
                losses -= 1
                start(number)
            elif code:
                worst = worst or code
    end_all(keepers)
    return worst


def ended(keepers):
    """The keepers that have ended, with what they left behind ended too: (number, code)."""
    found = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if not pid:
            break
        for number, keeper in list(keepers.items()):
            if keeper.pid == pid:
                del keepers[number]
                clean_up(keeper)
                code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                found.append((number, code))
    if found:
        sweep_orphans(keepers)
    return found


def clean_up(keeper):
    keeper.hear()
    keeper.socket.close()
    for group in keeper.groups:
        kill(-group, signal.SIGKILL)


def sweep_orphans(keepers):
    """Ends every child that is no keeper: a dead keeper's."""
    own = {keeper.pid for keeper in keepers.values()}
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        left = [pid for pid in children(os.getpid()) if pid not in own]
        if not left:
            return
        for pid in left:
            kill(pid, signal.SIGKILL)
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        time.sleep(0.002)


def end_all(keepers):
    """Ends the keepers, which end what they look after; and what is left then."""
    for keeper in keepers.values():
        kill(keeper.pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while keepers and time.monotonic() < deadline:
        ended(keepers)
        time.sleep(0.005)
    for keeper in keepers.values():
        kill(keeper.pid, signal.SIGKILL)
    while keepers:
        ended(keepers)
        time.sleep(0.005)
