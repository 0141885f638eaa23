"""The bridge on real engines, each where it is installed (`PYTHON` names the interpreter)."""

import os
import shutil
import subprocess
import tempfile
import time
import unittest

from hub import LOST, MPI_ENV, MPIEXEC, PYTHON, Hub


def installed(module):
    find = "import importlib.util, sys; sys.exit(importlib.util.find_spec(%r) is None)" % module
    return subprocess.run([PYTHON, "-c", find], stderr=subprocess.DEVNULL).returncode == 0


class Case(unittest.TestCase):
    def hub(self, kind, options, start=True, **more):
        hub = Hub(kind, options, **more)
        self.addCleanup(hub.close)
        if start:
            hub.greeting = hub.hello()
        return hub

    def comes_back(self, hub):
        seqs = [hub.task("echo", n) for n in range(200)]
        values, bad = hub.until(200)
        self.assertEqual(bad, {})
        self.assertEqual([values[seq][1] for seq in seqs], list(range(200)))
        return {pid for pid, _ in values.values()}

    def loses_one(self, hub, name):
        """A worker that dies is told of; what was not in its hands, or is sent again, comes back."""
        killer = hub.task("kill")
        others = [hub.task("sleep", 0.01) for _ in range(50)]
        values, bad = hub.until(51)
        self.assertEqual({how for how, _ in bad.values()}, {LOST})
        self.assertIn(name, bad[killer][1])
        self.assertLess(len(bad), 10)
        self.assertEqual(len(values) + len(bad), 51)
        again = [hub.task("echo", seq) for seq in others if seq in bad]
        self.assertEqual(hub.until(len(again))[1], {})

    def leaves_nothing(self, hub):
        for _ in range(4):
            hub.task("sleep", 60)
        time.sleep(1)
        hub.cut()
        self.assertEqual(hub.gone(), [])


@unittest.skipUnless(installed("distributed"), "Dask is not installed")
class Dask(Case):
    def test_local_cluster(self):
        hub = self.hub("dask", {"workers": 2})
        self.assertEqual(hub.greeting["slots"], 2)
        self.assertEqual(len(self.comes_back(hub)), 2)
        self.assertEqual(hub.capacities[0]["workers"], 2)
        self.assertTrue(hub.capacities[0]["dashboard"].startswith("http://127.0.0.1:"))
        self.leaves_nothing(hub)

    def test_killed_worker(self):
        hub = self.hub("dask", {"workers": 2})
        self.loses_one(hub, "KilledWorker")
        hub.await_slots(lambda slots: slots == 2)

    def test_scheduler_of_others_that_dies(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        file = folder + "/scheduler.json"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        local = ["--host", "127.0.0.1", "--scheduler-file", file, "--dashboard-address", "127.0.0.1:0"]
        scheduler, worker = (
            subprocess.Popen([PYTHON, "-m", "distributed.cli." + name, *local, *more], **quiet)
            for name, more in (("dask_scheduler", ["--port", "0"]), ("dask_worker", ["--nthreads", "2", "--no-nanny"]))
        )
        self.addCleanup(lambda: [process.kill() or process.wait() for process in (scheduler, worker)])
        while not os.path.exists(file):
            time.sleep(0.1)
        hub = self.hub("dask", {"scheduler_file": file})
        hub.await_slots(lambda slots: slots == 2)
        self.comes_back(hub)
        hub.task("sleep", 30)
        time.sleep(0.5)
        scheduler.kill()
        values, bad = hub.until(1)
        self.assertEqual(bad[hub.seq][0], LOST)
        self.assertIn("the connection to the Dask scheduler is lost", hub.trouble()[0])
        self.assertEqual(hub.gone(), [])

    @unittest.skipUnless(installed("dask_mpi") and MPIEXEC, "dask-mpi and an MPI are not installed")
    def test_cluster_that_mpi_starts(self):
        hub = self.hub("dask", {"mpi": True}, launch=[MPIEXEC, "-n", "4", PYTHON, "SCRIPT", "dask"], env=MPI_ENV)
        hub.await_slots(lambda slots: slots == 2)
        self.comes_back(hub)
        hub.send(b"Q")
        self.assertEqual(hub.gone(), [])
        self.assertEqual(hub.process.returncode, 0)

    def test_unreachable_scheduler(self):
        hub = self.hub("dask", {"scheduler": "tcp://127.0.0.1:9"}, start=False)
        text, seconds = hub.trouble()
        self.assertIn("the Dask scheduler at tcp://127.0.0.1:9 cannot be used", text)
        self.assertLess(seconds, 40)


@unittest.skipUnless(installed("dask_jobqueue") and shutil.which("sinfo"), "dask-jobqueue or Slurm is not installed")
@unittest.skipIf(subprocess.run("sinfo", shell=True, capture_output=True).returncode, "Slurm does not run")
class DaskOnSlurm(Case):
    def cluster(self, memory="300MB", **more):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        options = {
            "cores": 1, "processes": 1, "memory": memory, "interface": "lo", "log_directory": folder,
            "local_directory": folder, "walltime": "00:10:00", "job_directives_skip": ["--mem"],
        }
        return self.hub("dask", {"cluster": {"slurm": options}, **more})

    def jobs(self):
        told = subprocess.run(["squeue", "-h", "-n", "dask-worker", "-t", "R", "-o", "%i"], capture_output=True, text=True)
        return told.stdout.split()

    def test_job_that_is_gone_is_replaced(self):
        hub = self.cluster(jobs=2)
        hub.await_slots(lambda slots: slots == 2, 40)
        self.comes_back(hub)
        subprocess.run(["scancel", self.jobs()[0]], check=True)
        hub.await_slots(lambda slots: slots == 1)
        hub.await_slots(lambda slots: slots == 2, 40)
        self.comes_back(hub)
        self.leaves_nothing(hub)
        self.assertEqual(self.jobs(), [])

    def test_adaptive(self):
        hub = self.cluster(adapt=[0, 2])
        self.assertEqual(hub.greeting["slots"], 2)
        self.comes_back(hub)
        self.leaves_nothing(hub)
        self.assertEqual(self.jobs(), [])

    def test_job_that_is_refused(self):
        refused = {"cores": 1, "memory": "1GB", "queue": "nowhere"}
        hub = self.hub("dask", {"jobs": 1, "cluster": {"slurm": refused}}, start=False)
        self.assertIn("sbatch: error: ", hub.trouble()[0])


@unittest.skipUnless(installed("ray"), "Ray is not installed")
class Ray(Case):
    def test_local(self):
        hub = self.hub("ray", {"workers": 2})
        self.assertEqual(hub.greeting["slots"], 2)
        self.comes_back(hub)
        self.leaves_nothing(hub)

    def test_killed_worker(self):
        self.loses_one(self.hub("ray", {"workers": 2}), "WorkerCrashedError")

    def test_resources_of_a_task(self):
        self.assertEqual(self.hub("ray", {"workers": 5, "resources": {"cpus": 2}}).greeting["slots"], 2)

    def test_unreachable(self):
        hub = self.hub("ray", {"address": "127.0.0.1:9"}, start=False)
        text, seconds = hub.trouble()
        self.assertIn("Ray at 127.0.0.1:9 cannot be used", text)
        self.assertLess(seconds, 40)


@unittest.skipUnless(installed("ipyparallel"), "ipyparallel is not installed")
class IPyParallel(Case):
    def test_engines_of_our_own(self):
        hub = self.hub("ipyparallel", {"engines": 2})
        self.assertEqual(hub.greeting["slots"], 2)
        self.assertEqual(len(self.comes_back(hub)), 2)
        self.leaves_nothing(hub)

    def test_killed_engine(self):
        hub = self.hub("ipyparallel", {"engines": 3})
        self.loses_one(hub, "EngineError")
        hub.await_slots(lambda slots: slots == 2)

    def test_unreachable(self):
        hub = self.hub("ipyparallel", {"connection_file": "/nowhere/client.json"}, start=False)
        self.assertIn("the IPython cluster (/nowhere/client.json) cannot be used", hub.trouble()[0])


@unittest.skipUnless(installed("mpi4py") and MPIEXEC, "mpi4py and an MPI are not installed")
class Mpi(Case):
    def launched(self, processes, **more):
        launch = [MPIEXEC, "-n", str(processes), PYTHON, "-m", "mpi4py.futures", "SCRIPT"]
        return self.hub("mpi", {}, launch=launch, env=MPI_ENV, **more)

    def test_launched(self):
        hub = self.launched(3)
        self.assertEqual(hub.greeting["slots"], 2)
        self.assertEqual(len(self.comes_back(hub)), 2)
        self.leaves_nothing(hub)

    def test_launched_and_ended(self):
        hub = self.launched(3)
        self.comes_back(hub)
        hub.send(b"Q")
        self.assertEqual(hub.gone(), [])
        self.assertEqual(hub.process.returncode, 0, hub.told())

    def test_launched_with_nobody_to_work(self):
        hub = self.launched(1, start=False)
        self.assertIn("the launcher started one process only", hub.trouble()[0])

    def test_killed_process_ends_all(self):
        hub = self.launched(3)
        hub.task("kill")
        while hub.receive()[0] is not None:
            pass
        self.assertEqual(hub.gone(), [])

    def test_spawned(self):
        hub = self.hub("mpi", {"workers": 2}, env=MPI_ENV)
        self.assertEqual(hub.greeting["slots"], 2)
        self.assertEqual(len(self.comes_back(hub)), 2)
        self.leaves_nothing(hub)

    def test_spawned_and_killed(self):
        hub = self.hub("mpi", {"workers": 2}, env=MPI_ENV)
        hub.task("kill")
        while hub.receive()[0] not in (None, b"x"):
            pass
        self.assertEqual(hub.gone(), [])


if __name__ == "__main__":
    unittest.main()
