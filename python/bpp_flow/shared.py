"""Objects that the worker loads once, and passes to functions by name."""

import marshal
import os
import struct

from .values import revive


class Changed(Exception):
    """A file is not what it was when the run was planned."""


class Shared:
    """The objects of the process, as its first job tells them: all its jobs share the same."""

    def __init__(self):
        self.objects = None
        # What is wrong with one of them, for good: (what, error).
        self.broken = None
        self.mapped = []

    def load(self, told):
        """The objects by name; None where one is broken."""
        if self.objects is None and self.broken is None:
            objects = {}
            for name, shown, form, path, *stamp in told:
                what, stamp = "share.%s: %s" % (name, shown), [int(number) for number in stamp]
                try:
                    objects[name] = unchanged(form, path, stamp)
                except BaseException as error:
                    self.broken = (what, error)
                    return None
                if form in MAPPED:
                    self.mapped.append((what, path, stamp))
            self.objects = objects
        return self.objects

    def look_again(self):
        """Whether what is mapped is still what it was: a file may be written to under its map."""
        for what, path, stamp in self.mapped:
            try:
                check(path, stamp)
            except (Changed, OSError) as error:
                self.broken = (what, error)
        return self.broken is None


def unchanged(form, path, stamp):
    """The object, of a file that was the same all the time."""
    check(path, stamp)
    loaded = LOADERS[form](path)
    check(path, stamp)
    return loaded


def check(path, stamp):
    now = os.stat(path)
    if [now.st_size, now.st_mtime_ns, now.st_ino] != stamp:
        raise Changed("the file has changed since the run began; run again")


def npy(path):
    import numpy

    return numpy.load(path, mmap_mode="r")


def npz(path):
    import numpy

    with numpy.load(path) as arrays:
        loaded = {name: arrays[name] for name in arrays.files}
    for array in loaded.values():
        array.flags.writeable = False
    return loaded


def arrow(path):
    import pyarrow

    source = pyarrow.memory_map(path)
    try:
        return pyarrow.ipc.open_file(source).read_all()
    except pyarrow.ArrowInvalid:
        source.seek(0)
        return pyarrow.ipc.open_stream(source).read_all()


def parquet(path):
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path)


def pickled(path):
    import pickle

    with open(path, "rb") as file:
        return pickle.load(file)


def json(path):
    from json import load

    with open(path, encoding="utf-8") as file:
        return load(file)


def rows(path):
    """The rows of a stage: a table, or without pyarrow a list of dicts."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return dicts(path + ".rows")
    return arrow(path)


def dicts(path):
    loaded = []
    with open(path, "rb") as file:
        while head := file.read(5):
            (size,) = struct.unpack("<I", head[:4])
            part, marks = marshal.loads(file.read(size))
            for mark in marks or ():
                part[mark] = revive(part[mark])
            loaded.extend(part)
    return loaded


MAPPED = ("npy", "arrow")
LOADERS = {
    "npy": npy,
    "npz": npz,
    "arrow": arrow,
    "parquet": parquet,
    "pickle": pickled,
    "json": json,
    "rows": rows,
}
