"""Jobs: which function is called, and how its arguments are made of a row."""

import importlib
import marshal
import os
import struct
import sys
import threading
from functools import partial

from . import failures
from .results import packer
from .shared import Shared
from .tables import builder
from .values import revive


class BrokenJob(Exception):
    """A job that cannot run at all."""


class Pool:
    """The jobs of the process, loaded as they are needed."""

    def __init__(self):
        self.announced = {}
        self.jobs = {}
        self.lock = threading.RLock()
        # None: not yet run; else what it failed with, or "".
        self.init = None
        self.shared = Shared()

    def announce(self, payload):
        (job_id,) = struct.unpack_from("<I", payload)
        self.announced[job_id] = payload[4:]

    def job(self, job_id, capture):
        """The job, ready to run; raises BrokenJob."""
        job = self.jobs.get(job_id)
        if job is None:
            with self.lock:
                job = self.jobs.get(job_id)
                if job is None:
                    job = self.jobs[job_id] = self.load(self.announced[job_id], capture)
        if isinstance(job, BrokenJob):
            raise job
        if self.share_has_changed():
            raise self.broken_share()
        return job

    def load(self, payload, capture):
        told = marshal.loads(payload)
        try:
            use_folder(told["path"])
            self.initialise(told, capture)
            job = Job(told, find(told["module"], told["function"], told["path"]), self.share(told))
        except BrokenJob as error:
            return with_output(error, capture)
        except BaseException as error:
            return with_output(broken("%s:%s" % (told["module"], told["function"]), error, told["path"]), capture)
        capture.end_item()
        return job

    def initialise(self, told, capture):
        """Runs `init`, once in the process."""
        if told["init"] is None:
            return
        if self.init is None:
            module, name, args = told["init"]
            try:
                find(module, name, told["path"])(**revive(args))
                self.init = ""
            except BrokenJob as error:
                self.init = "init: %s" % error
            except BaseException as error:
                self.init = str(broken("init: %s:%s" % (module, name), error, told["path"]))
        if self.init:
            raise BrokenJob(self.init)


    def share(self, told):
        """The shared objects, loaded once in the process."""
        objects = self.shared.load(told["share"])
        if objects is None:
            raise self.broken_share()
        return objects

    def share_has_changed(self):
        return bool(self.shared.mapped) and not self.shared.look_again()

    def broken_share(self):
        """What is wrong with a shared object, as what it is for its jobs."""
        what, error = self.shared.broken
        return BrokenJob("%s: %s" % (what, failures.message(error)))


def with_output(error, capture):
    output = capture.take().strip()
    return BrokenJob("%s\n\nits output:\n%s" % (error, output)) if output else error


def broken(what, error, folder):
    told, trace, _ = failures.story(error, folder)
    return BrokenJob("%s: %s\n%s" % (what, told, trace.rstrip()))


def use_folder(folder):
    """Makes the folder the first in which modules are found."""
    if folder and sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
        importlib.invalidate_caches()


def find(module, name, folder):
    """The function; raises BrokenJob where there is none."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            raise BrokenJob("there is no module `%s` in %s or on Python's path" % (module, folder)) from None
        raise
    check_shadow(found, module, folder)
    owner = found
    for part in name.split("."):
        if not hasattr(owner, part):
            raise BrokenJob("the module `%s` has no function `%s`%s" % (module, name, nearest(owner, part)))
        owner = getattr(owner, part)
    if not callable(owner):
        raise BrokenJob("`%s:%s` is no function but a value of type %s" % (module, name, type(owner).__name__))
    return owner


def check_shadow(found, module, folder):
    """Refuses another module of that name, loaded before the folder's own could be."""
    path = os.path.join(folder or "", *module.split("."))
    file = getattr(found, "__file__", None)
    own = next((own for own in (path + ".py", os.path.join(path, "__init__.py")) if os.path.exists(own)), None)
    if folder and own and (file is None or not os.path.samefile(own, file)):
        raise BrokenJob("%s cannot be imported: Python has a module `%s` of its own; rename the file" % (own, module))


def nearest(owner, name):
    import difflib

    names = [each for each in dir(owner) if not each.startswith("_") and callable(getattr(owner, each, None))]
    close = difflib.get_close_matches(name, names, 1)
    if close:
        return "; did you mean `%s`?" % close[0]
    return ""


class Job:
    """A function and how it is called."""

    def __init__(self, told, function, shared):
        self.path = told["path"]
        self.module, self.name = told["module"], told["function"]
        self.call = told["call"]
        self.chunk_format = told["chunk_format"]
        self.returns = told["returns"]
        self.args = {**revive(told["args"]), **shared}
        self.shape = told["shape"]
        self.pack = packer(self.shape, self.returns)
        # A returned dict is the result as it stands.
        self.is_direct = self.shape == "one"
        self.table = builder(self.chunk_format)
        self.function = awaited(function)
        self.pick = picker(function, self.args) if self.call == "kwargs" else None

    def caller(self, with_args, with_env):
        """The function of an item: of its row or, where there are any, (row, args, env)."""
        function, args, pick = self.function, self.args, self.pick
        if not (with_args or with_env):
            if pick:
                return lambda row: function(**pick(row), **args)
            return partial(function, **args) if args else function

        def call(row, extra):
            merged = {**args, **extra}
            return function(**{**pick(row), **merged}) if pick else function(row, **merged)

        if not with_env:
            return lambda item: call(*item)
        if not with_args:
            return lambda item: in_environment(item[1], call, item[0], {})
        return lambda item: in_environment(item[2], call, item[0], item[1])


def in_environment(env, call, row, extra):
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        return call(row, extra)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def awaited(function):
    """A coroutine function is run to its end, each call in a loop of its own."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None or not code.co_flags & 0x80:
        return function

    def run(*args, **kwargs):
        import asyncio

        return asyncio.run(function(*args, **kwargs))

    return run


def picker(function, args):
    """A function from a row to the keywords that the signature names."""
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        parameters = None
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters):
        if not args:
            return dict
        return lambda row: {name: value for name, value in row.items() if name not in args}
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in args]
    return lambda row: {name: row[name] for name in names if name in row}
