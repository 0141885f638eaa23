"""Files that came over the wire, kept on the node under their digests."""

import marshal
import os
import shutil
import stat
import tempfile


class Cache:
    """A folder of this user's alone. What is in it is whole, and does not change."""

    def __init__(self):
        self.folder = None
        # A folder of this keeper's alone.
        self.temporary = None

    def root(self):
        if self.folder is None or not is_own(self.folder):
            above = os.environ.get("TMPDIR") or "/tmp"
            self.folder = os.path.join(above, "bpp-flow-%d" % os.getuid())
            try:
                os.mkdir(self.folder, 0o700)
            except FileExistsError:
                if not is_own(self.folder):
                    # Somebody else's: nothing is read from there.
                    self.folder = self.temporary = tempfile.mkdtemp(prefix="bpp-flow-", dir=above)
        return self.folder

    def close(self):
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def path(self, digest):
        if not digest or set(digest) - set("0123456789abcdef"):
            raise ValueError("%r is no digest" % digest)
        return os.path.join(self.root(), digest)

    def has(self, digest):
        return os.path.lexists(self.path(digest))

    def keep_file(self, digest, content):
        """Keeps a shared object's file."""
        handle, temporary = tempfile.mkstemp(prefix=".", dir=self.root())
        try:
            with open(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o400)
            os.rename(temporary, self.path(digest))
        except BaseException:
            os.unlink(temporary)
            raise

    def keep_folder(self, digest, content):
        """Unpacks an upload: a marshal list of (relative path, bytes, mode)."""
        temporary = tempfile.mkdtemp(prefix=".", dir=self.root())
        try:
            for path, data, mode in marshal.loads(content):
                unpack(temporary, path, data, mode)
            try:
                os.rename(temporary, self.path(digest))
            except OSError:
                # Another keeper was faster.
                if not self.has(digest):
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def link(self, digest, name):
        """Puts a file beside the others, under a name of its own."""
        place = os.path.join(self.root(), name)
        if not os.path.lexists(place):
            try:
                os.symlink(digest, place)
            except FileExistsError:
                pass


def is_own(folder):
    """Whether it is a folder of this user, into which nobody else can write."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def unpack(folder, path, data, mode):
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError("an upload holds the path %r" % path)
    place = os.path.join(folder, *parts)
    os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
    # Nothing that is unpacked is a link: no path leads out of the folder.
    with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    os.chmod(place, mode & 0o700 | 0o600)
