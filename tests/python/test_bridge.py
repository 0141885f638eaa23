"""The bridge from outside, over executors of the standard library."""

import hashlib
import marshal
import os
import signal
import struct
import tempfile
import time
import unittest

from hub import LOST, REFUSED, Hub

POOL = """
import concurrent.futures

def make_executor(options):
    return concurrent.futures.ProcessPoolExecutor(options["workers"])
"""


class Case(unittest.TestCase):
    def hub(self, source=POOL, function="make_executor", start=True, **options):
        folder = tempfile.mkdtemp(prefix="bpp-bridge-")
        with open(os.path.join(folder, "own.py"), "w", encoding="utf-8") as file:
            file.write(source)
        hub = Hub("bridge", {"workers": 3, "python": "own:" + function, **options}, folder)
        self.addCleanup(hub.close)
        if start:
            hub.greeting = hub.hello()
        return hub


class Tasks(Case):
    def test_hello(self):
        hub = self.hub()
        self.assertEqual(hub.greeting["role"], "bridge")
        self.assertEqual(hub.greeting["protocol"], 1)
        self.assertEqual(hub.greeting["slots"], 3)
        self.assertEqual(hub.greeting["pid"], hub.process.pid)
        self.assertEqual(hub.greeting["token"], "")

    def test_all_tasks_come_back(self):
        hub = self.hub()
        seqs = [hub.task("echo", n) for n in range(200)]
        values, bad = hub.until(200)
        self.assertEqual(bad, {})
        self.assertEqual([values[seq][1] for seq in seqs], list(range(200)))
        self.assertLessEqual(len({pid for pid, _ in values.values()}), 3)

    def test_pool_and_job_travel(self):
        hub = self.hub()
        seq = hub.task("told")
        pool, job = hub.until(1)[0][seq][1]
        self.assertEqual(pool["env"], [("A", "b")])
        self.assertEqual(job["keep_stdout"], False)

    def test_body_in_several_frames(self):
        hub = self.hub()
        body = marshal.dumps(("echo", b"x" * 3_000_000), 2)
        hub.send(b"B", struct.pack("<Q", 1) + body[:1_000_000])
        hub.send(b"B", struct.pack("<Q", 1) + body[1_000_000:2_000_000])
        seq = hub.task(body=body[2_000_000:])
        self.assertEqual(hub.until(1)[0][seq][1], b"x" * 3_000_000)

    def test_blobs_are_asked_for_once(self):
        hub = self.hub()
        blob = b"content" * 1000
        digest = hashlib.sha256(blob).hexdigest()
        seqs = [hub.task("blob", digest) for _ in range(20)]
        values, bad = hub.until(20, {digest: blob})
        self.assertEqual(bad, {})
        self.assertEqual({values[seq][1] for seq in seqs}, {blob})
        self.assertEqual(hub.needed, [digest])

    def test_what_an_engine_raises_is_told(self):
        hub = self.hub()
        bad, good = hub.task("raise", "no memory left"), hub.task("echo", 1)
        values, ends = hub.until(2)
        self.assertEqual(ends, {bad: (LOST, "ValueError: no memory left")})
        self.assertIn(good, values)

    def test_stop_refuses_what_has_not_begun(self):
        hub = self.hub(workers=1)
        first = hub.task("sleep", 1)
        time.sleep(0.5)
        waiting = [hub.task("echo") for _ in range(20)]
        hub.send(b"S")
        after = hub.task("echo")
        values, bad = hub.until(22)
        self.assertIn(first, values)
        self.assertEqual(bad[after], (REFUSED, ""))
        self.assertEqual({how for how, _ in bad.values()}, {REFUSED})
        # A process pool hands one or two tasks to its worker ahead of time.
        self.assertGreaterEqual(len(bad), len(waiting) - 2)

    def test_cancelled_tasks_are_not_answered(self):
        hub = self.hub(workers=1)
        hub.task("sleep", 0.5)
        time.sleep(0.2)
        waiting = [hub.task("echo", n) for n in range(10)]
        for seq in waiting[:9]:
            hub.send(b"C", struct.pack("<Q", seq))
        values, bad = hub.until(2)
        self.assertEqual(bad, {})
        self.assertEqual(set(values), {1, waiting[9]})

    def test_beats_when_nothing_else_is_said(self):
        hub = self.hub()
        begun = time.monotonic()
        kind, _ = hub.receive()
        while kind == b"c":
            begun = time.monotonic()
            hub.socket.settimeout(11)
            head = hub.reader.read(5)
            kind = head[4:5]
        self.assertEqual(kind, b"b")
        self.assertLess(time.monotonic() - begun, 10.5)


class Loss(Case):
    def test_broken_pool_is_made_anew(self):
        hub = self.hub()
        hub.task("kill")
        values, bad = hub.until(1)
        self.assertEqual(bad[1][0], LOST)
        self.assertIn("BrokenProcessPool", bad[1][1])
        for n in range(50):
            hub.task("echo", n)
        values, bad = hub.until(50)
        self.assertEqual(bad, {})
        self.assertEqual(len(values), 50)

    def test_pool_that_breaks_again_and_again(self):
        hub = self.hub()
        for _ in range(3):
            hub.task("kill")
            self.assertEqual(hub.until(1)[1][hub.seq][0], LOST)
        hub.task("kill")
        text, _ = hub.trouble()
        self.assertIn("its workers end again and again", text)
        self.assertEqual(hub.gone(), [])

    def test_executor_that_cannot_be_made(self):
        hub = self.hub("def make_executor(options): raise OSError('no licence')", start=False)
        self.assertEqual(hub.trouble()[0], "OSError: no licence")

    def test_module_that_is_not_there(self):
        hub = self.hub("", start=False)
        text, _ = hub.trouble()
        self.assertIn("own:make_executor is not found (beside the workflow first)", text)

    def test_engine_that_says_it_is_gone(self):
        hub = self.hub(
            POOL + "class Pool(concurrent.futures.ThreadPoolExecutor):\n"
            "    begun = __import__('time').monotonic()\n"
            "    def slots(self):\n"
            "        if __import__('time').monotonic() - self.begun > 1: raise RuntimeError('head node is down')\n"
            "        return 2\n"
            "def pool(options): return Pool(2)\n",
            "pool",
        )
        self.assertEqual(hub.trouble()[0], "RuntimeError: head node is down")


class End(Case):
    def test_end_of_the_stream_leaves_no_process(self):
        hub = self.hub()
        for _ in range(6):
            hub.task("sleep", 60)
        time.sleep(0.5)
        self.assertGreaterEqual(len(hub.left()), 4)
        hub.cut()
        self.assertEqual(hub.gone(), [])

    def test_quit_leaves_no_process(self):
        hub = self.hub()
        hub.task("echo")
        hub.until(1)
        hub.send(b"Q")
        self.assertEqual(hub.gone(), [])

    def test_killed_bridge_leaves_no_process(self):
        hub = self.hub()
        for _ in range(6):
            hub.task("sleep", 60)
        time.sleep(0.5)
        hub.process.kill()
        while hub.receive()[0] is not None:
            pass
        self.assertEqual(hub.gone(3), [])

    def test_client_that_hangs_is_not_waited_for(self):
        hub = self.hub(
            POOL + "class Pool(concurrent.futures.ThreadPoolExecutor):\n"
            "    def shutdown(self, wait=True): __import__('time').sleep(100)\n"
            "def pool(options): return Pool(2)\n",
            "pool",
        )
        begun = time.monotonic()
        hub.cut()
        self.assertEqual(hub.gone(), [])
        self.assertLess(time.monotonic() - begun, 7)

    def test_signals_of_the_terminal_are_not_for_it(self):
        hub = self.hub()
        os.kill(hub.process.pid, signal.SIGINT)
        hub.task("echo")
        self.assertEqual(hub.until(1)[1], {})


if __name__ == "__main__":
    unittest.main()
