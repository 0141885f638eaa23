"""What happens inside an engine's worker process: keepers are started, used again, and go."""

import marshal
import os
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from keeping import (  # noqa: E402
    COMMANDS_JOB, DONE, LOST, PYTHON, Hub, Outcome, certificate, command, eventually, is_running, job, number_in, pool, rows_body,
    runtime, task, tree,
)
from test_node import MODULE  # noqa: E402

CALL = '(lambda m: m.run(p) if m else ("need", "runtime"))(__import__("sys").modules.get("_bpp_flow_remote_" + p["runtime"]))'
INSTALL = (
    '(lambda g: (exec(compile(r["remote"], "<bpp-flow>", "exec"), g), g["install"](r).run(p))[1])'
    '({"__name__": "_bpp_flow_remote"})'
)


class Case(unittest.TestCase):
    number = 0

    def setUp(self):
        Case.number += 1
        self.folder = tempfile.mkdtemp(prefix="bpp-remote-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        with open(os.path.join(self.folder, "m.py"), "w") as file:
            file.write(MODULE)
        self.runtime = runtime(self.leash(), "test%d" % Case.number)
        self.addCleanup(self.uninstall)
        self.seq = 0

    def leash(self):
        return None

    def uninstall(self):
        module = sys.modules.pop("_bpp_flow_remote_" + self.runtime["name"], None)
        keepers = list(module.run.__self__.all) if module else []
        pids = [pid for keeper in keepers for pid in tree(keeper.process.pid)]
        for keeper in keepers:
            keeper.end()
        self.assertTrue(eventually(lambda: not any(map(is_running, pids)), 3), "processes are left")
        for keeper in keepers:
            keeper.process.wait()

    def keepers(self):
        return list(sys.modules["_bpp_flow_remote_" + self.runtime["name"]].run.__self__.all)

    def payload(self, body, items, form=0, function="plus", timeout=0, told_pool=None, pool_number=1, blobs=None):
        names = [line[4:line.index("(")] for line in MODULE.splitlines() if line.startswith("def ")]
        number = 100 * pool_number + (names.index(function) if form != 1 else 99)
        told_job = job(number, self.folder, function) if form != 1 else COMMANDS_JOB
        self.seq += 1
        seq = self.seq
        return seq, {
            "runtime": self.runtime["name"],
            "pool": (pool_number, told_pool or pool(self.folder)),
            "job": (number, told_job),
            "task": task(seq, number, pool_number, items, form, timeout, body(seq, number)),
            "body": [],
            "blobs": blobs or {},
        }

    def evaluate(self, payload):
        """As the bridge has an engine do it."""
        answer = eval(CALL, {"p": payload})
        if answer == ("need", "runtime"):
            answer = eval(INSTALL, {"p": payload, "r": self.runtime})
        return answer

    def outcome(self, seq, answer):
        outcome = Outcome()
        while answer:
            self.assertIsNone(outcome.how, "frames after the end")
            size, kind = struct.unpack_from("<IB", answer)
            payload, answer = answer[5:5 + size], answer[5 + size:]
            self.assertEqual(payload[:8], struct.pack("<Q", seq))
            outcome.take(payload) if kind == ord("p") else outcome.end(payload)
        return outcome

    def rows(self, function, rows, **more):
        seq, payload = self.payload(lambda seq, job: rows_body(seq, job, rows), len(rows), function=function, **more)
        return self.outcome(seq, self.evaluate(payload))

    def commands(self, *items, **more):
        told = pool(self.folder, python=None)
        seq, payload = self.payload(lambda *_: marshal.dumps(list(items), 2), len(items), 1, told_pool=told, pool_number=9, **more)
        return self.outcome(seq, self.evaluate(payload))


class Runs(Case):
    def test_tasks_run_one_after_the_other_in_one_keeper(self):
        for x in range(20):
            self.assertEqual(self.rows("plus", [{"x": x}]).done, {0: {"y": x + 1}})
        self.assertEqual(self.commands(command("echo", "hi")).results[0][4], b"hi\n")
        self.assertEqual(len(self.keepers()), 1)

    def test_a_runtime_is_installed_once(self):
        first = self.rows("whoami", [{}]).done
        eval(INSTALL, {"p": self.payload(lambda s, j: rows_body(s, j, [{}]), 1, function="whoami")[1], "r": self.runtime})
        self.assertEqual(self.rows("whoami", [{}]).done, first)
        self.assertEqual(len(self.keepers()), 1)

    def test_large_tasks_pass(self):
        self.assertEqual(self.rows("plus", [{"x": 1, "filler": "z" * (40 << 20)}]).done, {0: {"y": 2}})
        outcome = self.rows("large", [{"n": 20 << 20}] * 9)
        self.assertTrue(outcome.how == DONE and 3 < outcome.begun < 6 and len(outcome.done) == outcome.begun)

    def test_bodies_in_parts_are_put_together(self):
        seq, payload = self.payload(lambda seq, job: rows_body(seq, job, [{"x": 1}] * 1000), 1000)
        head, body = payload["task"][:25], payload["task"][25:]
        payload["body"] = [body[:500], body[500:7000]]
        payload["task"] = head + body[7000:]
        self.assertEqual(len(self.outcome(seq, self.evaluate(payload)).done), 1000)

    def test_an_item_that_kills_its_worker_hurts_nobody_else(self):
        for _ in range(3):
            outcome = self.rows("die", [{"x": x} for x in range(9)])
            self.assertEqual((outcome.how, outcome.word, outcome.status), (2, 6, 9))
        self.assertEqual(self.rows("slow", [{"s": 60}], timeout=0.3).how, 3)
        self.assertEqual(self.rows("plus", [{"x": 1}]).done, {0: {"y": 2}})
        self.assertEqual(len(self.keepers()), 1)

    def test_a_keeper_that_dies_is_told_and_replaced(self):
        self.rows("plus", [{"x": 1}])
        (keeper,) = self.keepers()
        victims = [keeper.process.pid, tree(keeper.process.pid)[1]]
        for victim in victims:
            (keeper,) = self.keepers()
            victim = tree(keeper.process.pid)[victims.index(victim)]
            threading.Timer(0.5, os.kill, (victim, signal.SIGKILL)).start()
            outcome = self.rows("slow", [{"s": 0}, {"s": 60}])
            self.assertEqual((outcome.how, outcome.text), (LOST, "its keeper was killed by signal 9"))
            self.assertEqual(self.rows("plus", [{"x": 1}]).done, {0: {"y": 2}})
            self.assertEqual(len(self.keepers()), 1)

    def test_one_that_died_while_idle_is_not_noticed(self):
        self.rows("plus", [{"x": 1}])
        (keeper,) = self.keepers()
        os.kill(keeper.process.pid, signal.SIGKILL)
        keeper.process.wait()
        self.assertEqual(self.rows("plus", [{"x": 1}]).done, {0: {"y": 2}})

    def test_the_keeper_with_the_same_pool_is_taken(self):
        first, second = pool(self.folder, env=[("WHO", "one")]), pool(self.folder, env=[("WHO", "two")])
        threads = [threading.Thread(target=self.rows, args=("slow", [{"s": 0.5}]), kwargs={"told_pool": told, "pool_number": n})
                   for n, told in ((1, first), (2, second))]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        for thread in threads:
            thread.join()
        pids = {(n, tuple(sorted(self.rows("whoami", [{}], told_pool=told, pool_number=n).done[0].items())))
                for _ in range(5) for n, told in ((1, first), (2, second))}
        self.assertEqual(len(pids), 2)
        self.assertEqual(len(self.keepers()), 2)

    def test_a_number_that_means_something_else_now_is_another_keepers(self):
        one = self.rows("whoami", [{}], told_pool=pool(self.folder, env=[("WHO", "one")])).done[0]
        two = self.rows("whoami", [{}], told_pool=pool(self.folder, env=[("WHO", "two")])).done[0]
        self.assertEqual((one["env"], two["env"]), ("one", "two"))

    def test_what_is_missing_is_asked_for(self):
        cache = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, cache)
        digest = "%064x" % 5
        told = pool("/no/such/folder", env=[], upload=[digest])
        with unittest.mock.patch.dict(os.environ, TMPDIR=cache):
            seq, payload = self.payload(lambda seq, job: rows_body(seq, job, [{"x": 1}]), 1, told_pool=told)
            self.assertEqual(self.evaluate(payload), ("need", digest))
            self.assertEqual(self.evaluate(payload), ("need", digest))
            payload["blobs"] = {digest: marshal.dumps([("m.py", MODULE.encode(), 0o644)], 2)}
            self.assertEqual(self.outcome(seq, self.evaluate(payload)).done, {0: {"y": 2}})
            payload["blobs"] = {}
            self.assertEqual(self.outcome(seq, self.evaluate(payload)).done, {0: {"y": 2}})
        self.assertEqual(len(self.keepers()), 1)

    def test_threads_run_at_once(self):
        answers = {}

        def work(number):
            rng = random.Random(number)
            for n in range(15):
                xs = [rng.randrange(100) for _ in range(rng.randrange(1, 30))]
                if rng.random() < 0.2:
                    outcome = self.locked("die", [{"x": x, "at": xs[-1]} for x in xs])
                    answers[number, n] = outcome.word == xs.index(xs[-1]) + 1
                else:
                    outcome = self.locked("plus", [{"x": x} for x in xs])
                    answers[number, n] = outcome.done == {i: {"y": x + 1} for i, x in enumerate(xs)}

        self.lock = threading.Lock()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), 90)
        self.assertTrue(all(answers.values()))
        self.assertLessEqual(len(self.keepers()), 6)

    def locked(self, function, rows):
        with self.lock:
            seq, payload = self.payload(lambda seq, job: rows_body(seq, job, rows), len(rows), function=function)
        return self.outcome(seq, self.evaluate(payload))

    def test_a_forked_process_has_keepers_of_its_own(self):
        own = self.rows("whoami", [{}]).done[0]["pid"]
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                answer = self.rows("whoami", [{}]).done[0]["pid"]
                os.write(writing, b"%d" % answer)
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading) as file:
            other = int(file.read())
        os.waitpid(pid, 0)
        self.assertNotEqual(own, other)
        self.assertTrue(eventually(lambda: not is_running(other), 2))
        self.assertEqual(self.rows("whoami", [{}]).done[0]["pid"], own)


SCRIPT = """
import sys, tempfile
sys.path.insert(0, %r)
import test_remote
tempfile.tempdir = sys.argv[1]
case = test_remote.Runs("test_threads_run_at_once")
case.setUp()
case.folder, case.runtime["name"] = sys.argv[1], "script"
print(case.rows("family", [{"s": 0.01}]).done[0]["y"], flush=True)
case.rows("mark", [{}])
"""


class Ends(unittest.TestCase):
    def test_nothing_outlives_the_engines_process(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        with open(os.path.join(folder, "m.py"), "w") as file:
            file.write(MODULE)
        for number in (signal.SIGKILL, signal.SIGTERM):
            argv = [PYTHON, "-c", SCRIPT % os.path.dirname(os.path.abspath(__file__)), folder]
            with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
                stray = int(process.stdout.readline())
                self.assertTrue(eventually(lambda: number_in(folder) not in (0, stray)))
                pids = tree(process.pid) + [stray]
                process.send_signal(number)
                process.wait()
            self.assertGreater(len(pids), 4)
            self.assertTrue(eventually(lambda: not any(map(is_running, pids)), 2), [p for p in pids if is_running(p)])
            os.unlink(folder + "/pid")


class Leash(Case):
    """A keeper tied to its bpp-flow: it stops, cancels and ends as that says."""

    def leash(self):
        certificate_file, key = certificate(self.folder)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate_file, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)
        self.addCleanup(self.listener.close)
        with open(certificate_file) as file:
            return {"addresses": ["127.0.0.1"], "port": self.listener.getsockname()[1], "certificate": file.read(), "token": "t0"}

    def accept(self):
        sock, _ = self.listener.accept()
        sock.settimeout(10)
        hub = Hub(self.context.wrap_socket(sock, server_side=True))
        self.addCleanup(hub.socket.close)
        kind, payload = hub.receive()
        hello = marshal.loads(payload)
        self.assertEqual((kind, hello["role"], hello["token"]), (b"h", "leash", "t0"))
        return hub

    def begin(self, *args, **more):
        self.found = []
        thread = threading.Thread(target=lambda: self.found.append(self.rows(*args, **more)))
        thread.start()
        self.addCleanup(thread.join)
        return thread, self.accept()

    def test_stop(self):
        thread, hub = self.begin("slow", [{"s": 0.3}] * 20)
        time.sleep(0.5)
        hub.send(b"S")
        thread.join(5)
        self.assertEqual(self.found[0].how, DONE)
        self.assertTrue(0 < self.found[0].begun < 20)

    def test_cancel(self):
        thread, hub = self.begin("family", [{}])
        pid = number_in(self.folder)
        hub.send(b"C", struct.pack("<Q", self.seq))
        thread.join(5)
        self.assertEqual((self.found[0].how, self.found[0].text), (LOST, "cancelled"))
        self.assertFalse(is_running(pid))

    def test_its_end(self):
        thread, hub = self.begin("family", [{}])
        pid = number_in(self.folder)
        hub.socket.close()
        thread.join(5)
        self.assertEqual(self.found[0].how, LOST)
        self.assertTrue(eventually(lambda: not is_running(pid), 1))

    def test_without_an_answer_tasks_run_all_the_same(self):
        self.listener.close()
        self.assertEqual(self.rows("plus", [{"x": 1}]).done, {0: {"y": 2}})
        self.assertEqual(self.rows("slow", [{"s": 4}]).how, DONE)


class Deserted(Leash):
    """On bpp-flow's own host, where nothing stands between."""

    def leash(self):
        with open("/proc/sys/kernel/random/boot_id") as file:
            place = "%s %d" % (file.read().strip(), os.stat("/proc/self/ns/net").st_ino)
        return {**super().leash(), "place": place}

    def test_without_an_answer_tasks_run_all_the_same(self):
        self.listener.close()
        begun = time.monotonic()
        self.assertEqual(self.rows("slow", [{"s": 60}]).how, LOST)
        self.assertLess(time.monotonic() - begun, 30)


if __name__ == "__main__":
    unittest.main()
