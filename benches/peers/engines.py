"""What the bridge costs on top of an engine's own client: no-op tasks through either, one after the other in one run.

    python benches/peers/engines.py [--tasks N] [--rounds R] [ENGINE...]

ENGINE: pool (ProcessPoolExecutor), dask, ray, ipyparallel, mpi. The interpreter is the engines' too. MPI is measured
where an mpiexec is found beside it or in PATH. Each round starts the engine twice: under the plain client, and under a
bridge to whom a stand-in for bpp-flow sends the same tasks. The best of the rounds is told.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "python"))

from hub import MPI_ENV, MPIEXEC, Hub  # noqa: E402

WORKERS = 3
SETTLE = 8  # seconds
WINDOW = 4  # tasks in hand for each that can run
# A runtime that does nothing: the frames come back at once.
NOOP = """
import struct, sys
from types import ModuleType

def install(runtime):
    module = sys.modules["_bpp_flow_remote_" + runtime["name"]] = ModuleType("remote")
    module.run = run
    return module

def run(payload):
    task = payload["task"]
    seq, items = struct.unpack_from("<Q8xI", task)
    return (struct.pack("<IBQB", 9 + 24 + 20 * items, 112, seq, 80) + bytes(24 + 20 * items)
            + struct.pack("<IBQBIiIBI", 26, 101, seq, 0, items, 0, 0, 0, 0))
"""
OWN = "import concurrent.futures\ndef pool(options): return concurrent.futures.ProcessPoolExecutor(options['workers'])\n"
OPTIONS = {
    "pool": ("bridge", {"workers": WORKERS, "python": "own:pool"}),
    "dask": ("dask", {"workers": WORKERS}),
    "ray": ("ray", {"workers": WORKERS}),
    "ipyparallel": ("ipyparallel", {"engines": WORKERS}),
    "mpi": ("mpi", {}),
}


def noop(items):
    return items


class Plain:
    """An engine's own client."""

    def __init__(self, submit, wait=lambda futures: [future.result() for future in futures]):
        self.submit, self.wait = submit, wait


def plain(engine):
    if engine == "pool":
        import concurrent.futures

        pool = concurrent.futures.ProcessPoolExecutor(WORKERS)
        return Plain(lambda items: pool.submit(noop, items))
    if engine == "mpi":
        from mpi4py.futures import MPIPoolExecutor

        pool = MPIPoolExecutor()
        return Plain(lambda items: pool.submit(noop, items))
    if engine == "dask":
        from distributed import Client, LocalCluster

        cluster = LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
        pool = Client(cluster).get_executor(pure=False)
        return Plain(lambda items: pool.submit(noop, items))
    if engine == "ray":
        import ray

        ray.init(num_cpus=WORKERS, log_to_driver=False, include_dashboard=False, _node_ip_address="127.0.0.1")
        remote = ray.remote(noop)
        return Plain(remote.remote, ray.get)
    import ipyparallel

    client = ipyparallel.Cluster(n=WORKERS, log_level=50).start_and_connect_sync()
    view = client.load_balanced_view()
    return Plain(lambda items: view.apply_async(noop, items), lambda results: [result.get() for result in results])


def measure_plain(engine, tasks):
    """Prints the seconds of single tasks and of 100 tasks of 100 items. Under mpiexec in a process of its own."""
    client = plain(engine)
    client.wait([client.submit([0]) for _ in range(50)])
    begin = time.perf_counter()
    client.wait([client.submit([n]) for n in range(tasks)])
    single = time.perf_counter() - begin
    begin = time.perf_counter()
    client.wait([client.submit(list(range(100))) for _ in range(100)])
    print(json.dumps([single, time.perf_counter() - begin]), flush=True)


def run_plain(engine, tasks, folder):
    own = [os.path.abspath(__file__), "--plain", engine, "--tasks", str(tasks)]
    launch = [MPIEXEC, "-n", str(WORKERS + 1), sys.executable, "-m", "mpi4py.futures"] if engine == "mpi" else [sys.executable]
    env = {**os.environ, **MPI_ENV, "IPYTHONDIR": folder, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    told = subprocess.run(
        launch + own, env=env, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )
    if told.returncode:
        raise RuntimeError(told.stderr)
    # What the client started takes its time to end, and takes part in the next measurement until then.
    time.sleep(SETTLE)
    return json.loads(told.stdout.splitlines()[-1])


def through(hub, tasks, items):
    """Seconds in which a hub has so many tasks done, with no more in hand than keeps the workers busy."""
    body = b"x" * 40 * items
    begin = time.perf_counter()
    sent = done = 0
    window = WINDOW * hub.slots
    while done < tasks:
        while sent < tasks and sent - done < window:
            hub.socket_frames.append(hub.frame(items, body))
            sent += 1
        hub.flush()
        kind, _ = hub.receive()
        done += kind == b"e"
    return time.perf_counter() - begin


class Fast(Hub):
    """A hub that writes several frames at a time."""

    socket_frames = ()

    def frame(self, items, body):
        import struct

        self.seq += 1
        head = struct.pack("<QIIIIB", self.seq, 1, 1, items, 0, 0)
        return struct.pack("<IB", len(head) + len(body), ord("T")) + head + body

    def flush(self):
        if self.socket_frames:
            self.socket.sendall(b"".join(self.socket_frames))
            self.socket_frames = []


def run_bridge(engine, tasks, folder):
    kind, options = OPTIONS[engine]
    with open(os.path.join(folder, "own.py"), "w") as file:
        file.write(OWN)
    launch = [MPIEXEC, "-n", str(WORKERS + 1), sys.executable, "-m", "mpi4py.futures", "SCRIPT"] if engine == "mpi" else None
    hub = Fast(kind, options, folder, env=MPI_ENV, remote=NOOP, launch=launch, python=sys.executable)
    hub.socket_frames = []
    try:
        hub.hello()
        through(hub, 50, 1)
        return through(hub, tasks, 1), through(hub, 100, 100)
    finally:
        hub.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", default=list(OPTIONS))
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.plain:
        measure_plain(told.engines[0], told.tasks)
        # Some clients take seconds to close, and some keep the process; an MPI pool ends as its launcher wants it.
        if told.engines[0] in ("dask", "ray"):
            os._exit(0)
        return
    print("%d tasks of one item; 100 tasks of 100 items; %d workers; best of %d" % (told.tasks, WORKERS, told.rounds))
    print("%-12s %12s %12s %10s %9s %14s %14s" % (
        "engine", "client us", "bridge us", "more us", "more %", "client 100x100", "bridge 100x100"))
    for engine in told.engines:
        rounds = []
        for _ in range(told.rounds):
            with tempfile.TemporaryDirectory(prefix="bpp-bench-") as folder:
                alone = run_plain(engine, told.tasks, folder)
                os.mkdir(os.path.join(folder, "hub"))
                rounds.append((alone, run_bridge(engine, told.tasks, os.path.join(folder, "hub"))))
        client, bridge = (min(r[side][0] for r in rounds) / told.tasks * 1e6 for side in (0, 1))
        many, bridged = (min(r[side][1] for r in rounds) for side in (0, 1))
        print("%-12s %12.0f %12.0f %10.0f %8.1f%% %12.3f s %12.3f s" % (
            engine, client, bridge, bridge - client, (bridge / client - 1) * 100, many, bridged), flush=True)


if __name__ == "__main__":
    main()
