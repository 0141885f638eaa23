"""The bridge on real engines, each where it is installed (`PYTHON` names the interpreter)."""

import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

from hub import LOST, Hub

PYTHON = os.environ.get("PYTHON", sys.executable)


def installed(*modules):
    return subprocess.run([PYTHON, "-c", "import " + ", ".join(modules)], stderr=subprocess.DEVNULL).returncode == 0


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

    def test_unreachable_scheduler(self):
        hub = self.hub("dask", {"scheduler": "tcp://127.0.0.1:9"}, start=False)
        text, seconds = hub.trouble()
        self.assertIn("the Dask scheduler at tcp://127.0.0.1:9 cannot be used", text)
        self.assertLess(seconds, 40)


if __name__ == "__main__":
    unittest.main()
