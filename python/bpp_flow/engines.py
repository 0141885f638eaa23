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
import pickle
import socket
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
# Private folders, and who removes them if the bridge is killed.
folders = []
remove_later = None


def scratch():
    """A private folder that goes when the bridge goes."""
    # Not in a folder with a long name: paths of sockets have at most about 100 characters.
    folder = tempfile.mkdtemp(prefix="bpp-", dir="/tmp")
    folders.append(folder)
    if remove_later:
        remove_later(folder)
    return folder


def clear():
    """Removes what lies in private folders, once nothing uses it any more."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


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


def trouble(error):
    """Why a backend cannot be used."""
    told = words(error)
    return told.partition(": ")[2] if isinstance(error, Unusable) else told


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
        self.cluster = self.jobs = None
        self.workers = 0
        self.label = "bpp-flow"
        address, told = options.get("scheduler"), {}
        tried = "the Dask scheduler"
        try:
            if options.get("cluster"):
                tried = "a Dask cluster of jobs"
                self.cluster, self.jobs = jobs_cluster(options)
                address = self.cluster
            elif options.get("scheduler_file"):
                tried = "the Dask scheduler of %s" % options["scheduler_file"]
                told["scheduler_file"] = options["scheduler_file"]
                wait_for_file(options["scheduler_file"])
            elif not address and not options.get("mpi"):
                tried = "a Dask cluster on this machine"
                address = self.cluster = local_cluster(self.distributed, options)
            elif address:
                tried = "the Dask scheduler at %s" % address
                reach(address)
            self.client = self.distributed.Client(
                address, **told, security=tls(self.distributed, options), timeout=CONNECT, set_as_default=False,
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
        if self.jobs is not None:
            self.jobs.look(self.client.sync(self.names))
        threads = self.client.nthreads().values()
        self.workers = len(threads)
        return max(sum(threads), self.jobs.most_slots if self.jobs else 0)

    async def names(self):
        told = await self.client.scheduler.identity(n_workers=-1)
        return {str(worker["name"]) for worker in told["workers"].values()}

    def info(self):
        if self.client.status != "running":
            return {"workers": 0, "note": "the connection to the Dask scheduler is lost; it is tried again"}
        note = self.jobs.note if self.jobs else None
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


QUEUES = {
    "slurm": "SLURMCluster", "sge": "SGECluster", "pbs": "PBSCluster", "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
}


def jobs_cluster(options):
    """A Dask cluster whose workers are jobs, and what replaces those that are gone."""
    (queue, told), = options["cluster"].items()
    if queue not in QUEUES:
        raise Unusable("there is no cluster '%s': one of %s" % (queue, ", ".join(QUEUES)))
    make_cluster = getattr(load("dask_jobqueue"), QUEUES[queue])
    with load("dask").config.set({"distributed.scheduler.allowed-failures": 0}):
        # Not among the user's files, but where nodes that share these can write.
        logs = os.path.abspath(os.path.join(".bpp-flow", "jobs"))
        ours = {"scheduler_options": {"dashboard_address": ":0"}, "log_directory": logs}
        cluster = make_cluster(**{**ours, **(told or {})})
    return cluster, Jobs(cluster, options)


class Jobs:
    """Replaces jobs that are gone: dask-jobqueue goes on to count on them."""

    GRACE = 5  # seconds in which a worker may come back by itself
    LOSSES = 3  # jobs that may be lost for each that is wanted

    def __init__(self, cluster, options):
        self.cluster = cluster
        self.refused = []
        cluster.new_spec["cls"] = telling(cluster.new_spec["cls"], self.refused)
        self.seen = set()
        self.missing = {}
        self.lost = 0
        self.note = None
        self.most_slots = 0
        if options.get("adapt"):
            low, high = options["adapt"]
            self.jobs = None
            self.most_lost = self.LOSSES * high
            # Tasks must wait for a cluster that starts workers only then.
            job = cluster._dummy_job
            self.most_slots = high * job.worker_processes * job.worker_process_threads
            cluster.adapt(minimum_jobs=low, maximum_jobs=high)
        else:
            self.jobs = options.get("jobs") or 1
            self.most_lost = self.LOSSES * self.jobs
            cluster.scale(jobs=self.jobs)

    def look(self, connected):
        """`connected`: the names of the workers that the scheduler has."""
        if self.refused:
            if not connected:
                raise Unusable("a job could not be submitted: %s" % words(self.refused[-1]))
            self.note = "a job could not be submitted: %s" % words(self.refused[-1])
        now = time.monotonic()
        wanted = list(self.cluster.worker_spec)
        # The workers of a job with several processes are called after it.
        there = {job for job in wanted for name in connected if name == str(job) or name.startswith("%s-" % job)}
        self.seen = (self.seen | there) & set(wanted)
        gone = self.seen - there
        self.missing = {job: self.missing.get(job, now) for job in gone}
        dead = [job for job, since in self.missing.items() if now - since > self.GRACE]
        if not dead:
            return
        self.lost += len(dead)
        self.note = "%d of its jobs ended before they should" % self.lost
        if self.lost > self.most_lost:
            if not there:
                raise Unusable("its jobs end again and again (%d did): see their logs" % self.lost)
            self.seen -= set(dead)
            return
        self.cluster.sync(self.cluster.scale_down, dead)
        if self.jobs:
            self.cluster.scale(jobs=self.jobs)


def telling(job, refused):
    """The class of a cluster's jobs, which tells of submissions that fail: dask-jobqueue only logs them."""

    class Job(job):
        async def _submit_job(self, script):
            try:
                return await super()._submit_job(script)
            except Exception as error:
                refused.append(error)
                raise

    return Job


class Ray:
    """Tasks of a Ray cluster, which is connected to, or started on this machine."""

    LOOK = 0.02  # seconds after which tasks that came meanwhile are waited for too

    def __init__(self, options):
        address = options.get("address")
        where = "Ray at %s" % address if address else "Ray on this machine"
        secrets.update(filter(None, [os.environ.get("RAY_AUTH_TOKEN")]))
        if not address:
            self.keep_local()
        elif address.partition("://")[2].startswith("127.") or address.startswith("127."):
            # Or Ray replaces it by the host's first address.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self.ray = load("ray")
        told = {"log_to_driver": False, "logging_level": "critical"}
        if address:
            told["address"] = address
        else:
            told.update(
                address="local", num_cpus=workers_of(options), include_dashboard=False,
                _temp_dir=self.folder, _node_ip_address="127.0.0.1",
            )
        try:
            reach(address)
            context = self.ray.init(**told)
        except Exception as error:
            raise Unusable(
                "%s cannot be used: %s. Is it running, is its version that of this client (%s), and is its token, if it "
                "wants one, in RAY_AUTH_TOKEN_PATH, with RAY_AUTH_MODE=token?" % (where, words(error), self.ray.__version__)
            ) from None
        self.dashboard = getattr(context, "dashboard_url", None)
        wanted = options.get("resources") or {}
        self.needs = {"CPU": wanted.get("cpus", 1), "GPU": wanted.get("gpus", 0), "memory": wanted.get("memory", 0)}
        self.remote = self.ray.remote(
            lambda call: (lambda function, args: function(*args))(*__import__("pickle").loads(call))
        )
        self.named = {}
        self.name_next("bpp-flow")
        self.pending = {}
        self.some = threading.Event()
        threading.Thread(target=self.collect, daemon=True).start()

    def keep_local(self):
        """Ray's files in a private folder, its token too, its ports on the loopback only."""
        self.folder = scratch()
        path = os.path.join(self.folder, "token")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(os.urandom(32).hex())
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=path, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
        os.environ.pop("RAY_AUTH_TOKEN", None)
        os.environ.pop("RAY_ADDRESS", None)

    def name_next(self, label):
        if label not in self.named:
            needs = self.needs
            self.named[label] = self.remote.options(
                name=label, num_cpus=needs["CPU"], num_gpus=needs["GPU"] or None, memory=needs["memory"] or None,
                max_retries=0,
            )
        self.next = self.named[label]

    def submit(self, function, *args):
        # Not cancelled: Ray would interrupt a task that has begun.
        result = Result(lambda _: False)
        # As bytes: Ray takes many times as long for each argument of another kind.
        self.pending[self.next.remote(pickle.dumps((function, args)))] = result
        self.some.set()
        return result

    def collect(self):
        """Passes on what becomes of tasks: asked for together, which costs less than a call back for each."""
        wait = self.ray.wait
        while True:
            self.some.wait()
            refs = list(self.pending)
            try:
                done, _ = wait(refs, num_returns=1, timeout=self.LOOK)
                if done:
                    done, _ = wait(refs, num_returns=len(refs), timeout=0)
            except Exception as error:
                done, outcome = refs, lambda _: error
            else:
                outcome = self.outcome
            for ref in done:
                value = outcome(ref)
                result = self.pending.pop(ref)
                (result.set_exception if isinstance(value, Exception) else result.set_result)(value)
            if not self.pending:
                self.some.clear()
                if self.pending:
                    self.some.set()

    def outcome(self, ref):
        try:
            return self.ray.get(ref)
        except Exception as error:
            return error

    def slots(self):
        there = self.ray.cluster_resources()
        return int(min(there.get(name, 0) // need for name, need in self.needs.items() if need))

    def info(self):
        workers = sum(node["Alive"] for node in self.ray.nodes())
        return {"workers": workers, "dashboard": "http://%s" % self.dashboard if self.dashboard else None}

    def shutdown(self, wait=True):
        self.ray.shutdown()


class Mpi:
    """The other processes of `mpiexec -n N python -m mpi4py.futures`, or processes that MPI starts."""

    def __init__(self, options):
        # Where an MPI that was installed with pip has its programs.
        os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
        futures = load("mpi4py.futures")
        world = load("mpi4py.MPI").COMM_WORLD.Get_size()
        launched = "BPP_FLOW_BRIDGE" in os.environ
        if launched and world == 1:
            raise Unusable("the launcher started one process only: ask for one more than are to work (mpiexec -n 5)")
        workers = None if launched else workers_of(options)
        # Not what the main module holds: workers need nothing of it.
        self.pool = futures.MPIPoolExecutor(workers, main=False)
        self.boot()
        self.submit = self.pool.submit
        self.workers = self.pool.num_workers
        self.spawned = set() if launched else spawned()

    def boot(self):
        """Waits for the processes. What goes wrong goes wrong in a thread of the pool's, and would be waited for."""
        errors = []
        before, threading.excepthook = threading.excepthook, lambda told: errors.append(told.exc_value)
        starter = threading.Thread(target=self.pool.bootup, daemon=True)
        starter.start()
        end = time.monotonic() + CONNECT
        while starter.is_alive():
            starter.join(0.05)
            if errors or time.monotonic() > end:
                raise Unusable(
                    "MPI did not start the processes of the pool: %s. With `launch: [mpiexec, -n, \"5\"]` they are "
                    "started by its own launcher" % (words(errors[0]) if errors else "%d seconds went by" % CONNECT)
                )
        threading.excepthook = before

    def slots(self):
        gone = self.spawned - spawned()
        if gone:
            raise Unusable("%d of its processes ended, and MPI cannot go on without them" % len(gone))
        return self.workers

    def shutdown(self, wait=True):
        self.pool.shutdown(wait=not self.spawned - spawned(), cancel_futures=True)


def wait_for_file(path):
    """Raises OSError if the file is not there, or not soon: what writes it may have been started just now."""
    end = time.monotonic() + CONNECT / 3
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.2)
    os.stat(path)


def reach(address):
    """Raises OSError where nothing listens: clients try for a long time."""
    host, _, port = (address or "").rpartition("//")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), 10).close()


def spawned():
    """The processes that MPI started for this one, where the system tells: it says nothing when one dies."""
    mark = os.environ.get("BPP_FLOW_BRIDGE_MARK", "").encode()
    found = set()
    for path in glob.glob("/proc/[0-9]*/environ"):
        with contextlib.suppress(OSError):
            with open(path, "rb") as environ, open(os.path.dirname(path) + "/cmdline", "rb") as command:
                if b"mpi4py.futures.server" in command.read() and mark in environ.read():
                    found.add(path)
    return found


class IPyParallel:
    """The engines of an IPython cluster, which is connected to, or started on this machine."""

    PURGE = 500  # tasks after which the client is made to forget them

    def __init__(self, options):
        parallel = load("ipyparallel")
        self.cluster = None
        engines = options.get("engines")
        file, profile = options.get("connection_file"), options.get("profile")
        where = file or (profile and "profile '%s'" % profile) or "%d engines on this machine" % (engines or 0)
        try:
            if file or (profile and not engines):
                told = {"connection_info": file} if file else {"profile": profile}
                self.client = parallel.Client(timeout=CONNECT, **told)
            else:
                self.start(parallel, engines or workers_of(options))
        except Exception as error:
            raise Unusable(
                "the IPython cluster (%s) cannot be used: %s. Is its controller running, and is it reached from this "
                "machine?" % (where, words(error))
            ) from None
        self.view = self.client.load_balanced_view()
        self.done = []

    def start(self, parallel, engines):
        folder = scratch()
        os.environ["IPYTHONDIR"] = folder
        self.cluster = parallel.Cluster(
            n=engines, profile_dir=os.path.join(folder, "profile"), controller_ip="127.0.0.1", delay=0,
            load_profile=False, log_level=50,
        )
        self.client = self.cluster.start_and_connect_sync()

    def submit(self, function, *args):
        if len(self.done) >= self.PURGE:
            self.purge()
        task = self.view.apply_async(function, *args)
        task.cancel = lambda: False
        task.add_done_callback(self.done.append)
        return task

    def purge(self):
        """The client remembers every task."""
        done, self.done = self.done, []
        for history in (self.client.history, self.view.history):
            del history[:-1]
        for task in done:
            for number in task.msg_ids:
                for kept in (self.client.metadata, self.client._futures, self.client._output_futures, self.view.results):
                    kept.pop(number, None)

    def slots(self):
        # Waits for ever if the controller is gone, which the client does not see by itself.
        self.client.queue_status()
        return len(self.client.ids)

    def shutdown(self, wait=True):
        if self.cluster is not None:
            self.cluster.stop_cluster_sync()
        self.client.close()


ADAPTERS = {"dask": Dask, "ray": Ray, "mpi": Mpi, "ipyparallel": IPyParallel}
