"""The engines: an adapter each over what they share with `concurrent.futures`.

An adapter is a function that is called with the backend's options and gives an executor: `submit(fn, *args)` gives a
future with `add_done_callback`, `result` and `cancel` (True only if the task will certainly not run). What it may
have besides: `slots()`, how many tasks can run at once now; `info()`, a dict with "workers", "dashboard" and "note";
`name_next(label)`, what the next task is called; `shutdown(wait)`. What raises `Unusable` in any of them ends the
backend. A new engine is a new adapter: `kind: bridge` takes it from the user's own module.
"""

import concurrent.futures
import contextlib
import glob
import importlib
import os
import shutil
import sys
import tempfile
import threading
import time
import uuid

CONNECT = 30  # seconds until an engine must have answered
LONGEST = 2000  # characters of an engine's words that are told
PACKAGES = {
    "distributed": "dask distributed", "dask_jobqueue": "dask-jobqueue", "dask_mpi": "dask-mpi", "ray": "ray",
    "mpi4py": "mpi4py", "ipyparallel": "ipyparallel",
}


class Unusable(Exception):
    """The engine cannot be used; the text says what was tried, what it said, and what to do."""


# What must not stand in a message.
secrets = set()


def make(kind, options, folder):
    """The executor of a backend."""
    if kind == "bridge":
        return users(options, folder)
    if kind not in ADAPTERS:
        raise Unusable("there is no engine '%s'" % kind)
    return ADAPTERS[kind](options)


def words(error):
    """What an exception says, in one line or some."""
    text = str(error).strip()
    for secret in secrets:
        text = text.replace(secret, "***")
    name = type(error).__name__
    return ("%s: %s" % (name, text) if text else name)[:LONGEST]


def trouble(name, error):
    """Why a backend cannot be used."""
    told = words(error)
    if isinstance(error, Unusable):
        told = told.partition(": ")[2]
    return "backend '%s': %s" % (name, told)


def capacity(executor):
    """How many tasks an executor can run at once now, and what is to be told of it."""
    slots = executor.slots() if hasattr(executor, "slots") else getattr(executor, "_max_workers", None) or os.cpu_count()
    told = {"slots": slots, "workers": slots, "dashboard": None, "note": None}
    if hasattr(executor, "info"):
        told.update(executor.info())
    return told


def close(executor):
    """Ends an executor, and what was started for it."""
    with contextlib.suppress(Exception):
        executor.shutdown(wait=False)


def load(module):
    """A package of the engine's."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = PACKAGES[module.partition(".")[0]]
        raise Unusable(
            "%s cannot be imported (%s). Install it for the interpreter that runs the bridge: %s -m pip install %s"
            % (module.partition(".")[0], error, sys.executable, package)
        ) from None


def users(options, folder):
    """What the user's own function makes."""
    name, _, function = options["python"].partition(":")
    sys.path.insert(0, folder)
    try:
        make_executor = getattr(importlib.import_module(name), function)
    except (ImportError, AttributeError) as error:
        raise Unusable("%s is not found (beside the workflow first): %s" % (options["python"], words(error))) from None
    executor = make_executor(options)
    if not hasattr(executor, "submit"):
        raise Unusable("%s gave a %s, which has no submit" % (options["python"], type(executor).__name__))
    return executor


def workers_of(options):
    return options.get("workers") or os.cpu_count()


class Result(concurrent.futures.Future):
    """A task of an engine whose own future is of another kind."""

    def __init__(self, withdraw):
        super().__init__()
        self.withdraw = withdraw

    def cancel(self):
        return not self.done() and self.withdraw(self) and super().cancel()


class Dask:
    """Tasks of a Dask cluster, which is connected to, or started."""

    def __init__(self, options):
        self.distributed = load("distributed")
        self.cluster = self.keeper = None
        self.label = "bpp-flow"
        address = options.get("scheduler")
        tried = "the Dask scheduler"
        try:
            if options.get("cluster"):
                tried = "a Dask cluster of jobs"
                self.cluster, self.keeper = jobs_cluster(options)
                address = self.cluster
            elif options.get("scheduler_file"):
                tried = "the Dask scheduler of %s" % options["scheduler_file"]
                address = scheduler_of(options["scheduler_file"])
            elif not address and not options.get("mpi"):
                tried = "a Dask cluster on this machine"
                address = self.cluster = local_cluster(self.distributed, options)
            elif address:
                tried = "the Dask scheduler at %s" % address
            self.client = self.distributed.Client(
                address, security=tls(self.distributed, options), timeout=CONNECT, set_as_default=False,
                heartbeat_interval="5s",
            )
        except Unusable:
            raise
        except Exception as error:
            if self.cluster is not None:
                self.cluster.close(timeout=2)
            raise Unusable(
                "%s cannot be used: %s. Is it running, is it reached from this machine, and is its version that of "
                "this client (%s)?" % (tried, words(error), self.distributed.__version__)
            ) from None
        self.processing = frozenset()
        self.asked = 0.0

    def name_next(self, label):
        self.label = label

    def submit(self, function, *args):
        future = self.client.submit(
            function, *args, key="%s-%s" % (self.label, uuid.uuid4().hex), pure=False, retries=0,
        )
        result = Result(self.withdraw)
        result.task = future
        self.client.loop.add_callback(self.follow, future, result)
        return result

    async def follow(self, future, result):
        """Passes on what becomes of a task. In the client's event loop."""
        try:
            value = await future._result(raiseit=False)
            status = future.status
            if status == "finished":
                outcome = result.set_result, value
            elif status == "cancelled":
                outcome = result.set_exception, ConnectionError("the scheduler has dropped the task")
            else:
                outcome = result.set_exception, value[1]
        except Exception as error:
            outcome = result.set_exception, error
        del result.task
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            outcome[0](outcome[1])

    def withdraw(self, result):
        """Cancels a task unless a worker has it: Dask tells nobody that it has begun."""
        now = time.monotonic()
        if now - self.asked > 0.2:
            self.processing = {key for keys in self.client.processing().values() for key in keys}
            self.asked = now
        task = getattr(result, "task", None)
        if task is None or task.key in self.processing:
            return False
        task.cancel()
        return True

    def slots(self):
        if self.client.status == "closed":
            raise Unusable("the connection to the Dask scheduler is lost, and it was not to be reached again")
        if self.client.status != "running":
            return 0
        workers = self.client.sync(self.client.scheduler.identity, n_workers=-1)["workers"]
        self.workers = len(workers)
        if self.keeper is not None:
            self.keeper.look({str(worker["name"]) for worker in workers.values()})
        threads = sum(worker["nthreads"] for worker in workers.values())
        return max(threads, self.keeper.most_slots if self.keeper else 0)

    def info(self):
        if self.client.status != "running":
            return {"workers": 0, "note": "the connection to the Dask scheduler is lost; it is tried again"}
        note = self.keeper.note if self.keeper else None
        return {"workers": self.workers, "dashboard": self.client.dashboard_link or None, "note": note}

    def shutdown(self, wait=True):
        self.client.close(timeout=2)
        if self.cluster is not None:
            self.cluster.close(timeout=4)


def local_cluster(distributed, options):
    # A task that was on a worker that died is told at once, not run by the next worker: bpp-flow sees to that.
    with load("dask").config.set({"distributed.scheduler.allowed-failures": 0}):
        return distributed.LocalCluster(
            n_workers=workers_of(options), threads_per_worker=1, processes=True, host="127.0.0.1",
            dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0", silence_logs="CRITICAL",
        )


def tls(distributed, options):
    told = options.get("security")
    if not told:
        return None
    return distributed.Security(
        tls_ca_file=told.get("ca_file"), tls_client_cert=told.get("cert"), tls_client_key=told.get("key"),
        require_encryption=True,
    )


ADAPTERS = {"dask": Dask}
