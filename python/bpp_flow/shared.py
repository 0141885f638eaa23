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
        self.broken = None

    def load(self, told):
        """The objects by name; raises (what, error) the same way each time."""
        if self.objects is None and self.broken is None:
            objects = {}
            for name, shown, form, path, *stamp in told:
                try:
                    objects[name] = unchanged(form, path, [int(number) for number in stamp])
                except BaseException as error:
                    self.broken = ("share.%s: %s" % (name, shown), error)
                    break
            else:
                self.objects = objects
        return self.objects


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


LOADERS = {
    "npy": npy,
    "npz": npz,
    "arrow": arrow,
    "parquet": parquet,
    "pickle": pickled,
    "json": json,
    "rows": rows,
}
