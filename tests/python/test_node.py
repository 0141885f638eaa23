"""What a keeper does with tasks, and that nothing outlives it."""

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

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from keeping import (  # noqa: E402
    BROKEN, COMMANDS_JOB, DIED, DONE, HOME, LOST, PYTHON, REFUSED, SERVE, SILENT, TIMED_OUT, Hub, command, eventually, group_body,
    is_running, job, number_in, pool, rows_body, runtime, started, task, tree,
)

sys.path.insert(0, HOME)

MODULE = """
import os, signal, subprocess, sys, time

def plus(row):
    return {"y": row["x"] + 1}

def maybe(row):
    if row["x"] % 3 == 0:
        raise ValueError("no %d" % row["x"])
    return {"y": row["x"] * 2}

def total(rows, **args):
    return {"sum": sum(row["x"] for row in rows), **args}

def die(row):
    if row["x"] == row.get("at", 5):
        print("last words", flush=True)
        os.kill(os.getpid(), row.get("signal", signal.SIGKILL))
        time.sleep(9)
    return {"y": row["x"]}

def leave(row):
    os._exit(3)

def slow(row):
    time.sleep(row["s"])
    return {"y": row["s"]}

def mark(row):
    with open("pid", "w") as file:
        file.write("%d\\n" % os.getpid())
    time.sleep(row.get("s", 60))
    return {"y": 1}

def family(row):
    stray = subprocess.Popen(["sleep", "60"], start_new_session=True)
    with open("pid", "w") as file:
        file.write("%d\\n" % stray.pid)
    time.sleep(row.get("s", 60))
    return {"y": stray.pid}

def hold(row):
    data = bytearray(row["mib"] << 20)
    time.sleep(3)
    return {"y": len(data)}

def whoami(row):
    return {"pid": os.getpid(), "env": os.environ.get("WHO"), "cwd": os.getcwd()}

def garble(row):
    os.write(3, b"\\xff" * 64)
    time.sleep(60)

def large(row):
    return {"y": "x" * row["n"]}

def deaf(row):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
"""


class Case(unittest.TestCase):
    local = False

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="bpp-node-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        with open(os.path.join(self.folder, "m.py"), "w") as file:
            file.write(MODULE)
        self.seq = 100
        self.hub, self.process = started(self.local)
        self.addCleanup(self.close)
        self.hub.begin(runtime())
        self.prepare(1)
        self.hub.pool(2, pool(self.folder, python=None))
        self.hub.job(20, 2, COMMANDS_JOB)

    def prepare(self, number, **more):
        """A pool, and a job of each function: the pool's number times 1000 and up."""
        self.hub.pool(number, pool(self.folder, **more))
        self.jobs = {}
        names = [line[4:line.index("(")] for line in MODULE.splitlines() if line.startswith("def ")]
        for n, name in enumerate(names, number * 1000):
            self.hub.job(n, number, job(n, self.folder, name))
            self.jobs[name] = n
        self.pool_number = number

    def close(self):
        self.hub.socket.close()
        pids = tree(self.process.pid)
        self.process.wait(10)
        self.assertTrue(eventually(lambda: not any(map(is_running, pids))), "processes are left")

    def send_rows(self, name, rows, timeout=0):
        self.seq += 1
        self.hub.rows(self.seq, self.jobs[name], self.pool_number, rows, timeout)
        return self.seq

    def rows(self, name, rows, timeout=0):
        return self.hub.outcome(self.send_rows(name, rows, timeout))

    def commands(self, *items, timeout=0, pool=2, job=20):
        self.seq += 1
        self.hub.commands(self.seq, job, pool, list(items), timeout)
        return self.hub.outcome(self.seq)


class Tasks(Case):
    def test_rows_come_back(self):
        outcome = self.rows("plus", [{"x": x} for x in range(100)])
        self.assertEqual((outcome.how, outcome.begun), (DONE, 100))
        self.assertEqual(outcome.done, {x: {"y": x + 1} for x in range(100)})
        self.assertEqual(self.hub.told, [(b"s", struct.pack("<Q", self.seq))])

    def test_failures_are_data(self):
        outcome = self.rows("maybe", [{"x": x} for x in range(9)])
        self.assertEqual(sorted(outcome.failed), [0, 3, 6])
        self.assertEqual(outcome.failed[3][:2], ("exception", "ValueError: no 3"))
        self.assertEqual((outcome.how, outcome.begun, len(outcome.done)), (DONE, 9, 6))

    def test_a_group_is_called_once(self):
        body = group_body(7, self.jobs["total"], [[{"x": 1}, {"x": 2}], [{"x": 3}]], {"z": 5})
        self.hub.task(7, self.jobs["total"], 1, 1, 2, body)
        outcome = self.hub.outcome(7)
        self.assertEqual((outcome.how, outcome.begun, outcome.done), (DONE, 1, {0: {"sum": 6, "z": 5}}))

    def test_a_body_may_come_in_parts(self):
        body = group_body(7, self.jobs["total"], [[{"x": x}] for x in range(500)])
        for at in range(0, len(body) - 10, 1000):
            self.hub.send(b"B", struct.pack("<Q", 7), body[at:at + 1000])
        self.hub.task(7, self.jobs["total"], 1, 1, 2, body[at + 1000:])
        self.assertEqual(self.hub.outcome(7).done, {0: {"sum": sum(range(500))}})

    def test_large_bodies_and_results_pass(self):
        rows = [{"x": 1, "filler": "z" * (40 << 20)}]
        self.assertEqual(self.rows("plus", rows).done, {0: {"y": 2}})
        outcome = self.rows("large", [{"n": 30 << 20}, {"n": 5}])
        self.assertEqual([len(outcome.done[item]["y"]) for item in (0, 1)], [30 << 20, 5])

    def test_tasks_that_come_early_wait(self):
        seqs = [self.send_rows("plus", [{"x": n}]) for n in range(50)]
        self.assertEqual([self.hub.outcome(seq).done[0]["y"] for seq in seqs], list(range(1, 51)))

    def test_a_job_that_cannot_be_loaded_is_broken(self):
        self.hub.job(5, 1, job(5, self.folder, "nowhere"))
        self.hub.rows(1, 5, 1, [{"x": 1}])
        outcome = self.hub.outcome(1)
        self.assertEqual(outcome.how, BROKEN)
        self.assertIn("has no function `nowhere`", outcome.text)
        self.assertEqual(self.rows("plus", [{"x": 1}]).done, {0: {"y": 2}})

    def test_a_pool_that_cannot_run_is_broken(self):
        for more, words in (
            ({"python": {"interpreter": "no-such-python", "path": self.folder}}, 'program "no-such-python" not found'),
            ({"cwd": self.folder + "/none"}, 'folder "%s/none" not found' % self.folder),
        ):
            self.prepare(9, **more)
            outcome = self.rows("plus", [{"x": 1}])
            self.assertEqual((outcome.how, outcome.text), (BROKEN, words))
        self.hub.pool(8, pool(self.folder + "/none", python=None))
        self.hub.job(8, 8, COMMANDS_JOB)
        outcome = self.commands(command("true"), pool=8, job=8)
        self.assertEqual((outcome.how, outcome.text), (BROKEN, 'folder "%s/none" not found' % self.folder))
        self.prepare(9)
        self.assertEqual(self.rows("plus", [{"x": 1}]).done, {0: {"y": 2}})

    def test_an_interpreter_that_is_not_here_is_the_keepers_own(self):
        self.prepare(3, python={"interpreter": "/no/such/python", "path": self.folder})
        self.assertEqual(self.rows("plus", [{"x": 1}]).how, DONE)

    def test_pools_have_processes_and_variables_of_their_own(self):
        first = self.rows("whoami", [{}]).done[0]
        self.assertEqual(self.rows("whoami", [{}]).done[0], first)
        self.prepare(3, env=[("WHO", "me")])
        second = self.rows("whoami", [{}]).done[0]
        self.assertEqual((second["env"], second["cwd"]), ("me", os.path.realpath(self.folder)))
        self.assertNotEqual(first["pid"], second["pid"])
        self.assertFalse(is_running(first["pid"]))

    def test_a_process_takes_no_more_than_its_most_items(self):
        self.prepare(3, most_items=3)
        pids = [self.rows("whoami", [{}] * count).done[0]["pid"] for count in (2, 1, 1, 5, 1)]
        self.assertEqual(pids[0], pids[1])
        self.assertEqual(len(set(pids)), 4)

    def test_results_are_sent_while_a_slow_item_runs(self):
        seq = self.send_rows("slow", [{"s": 0}] * 3 + [{"s": 20}])
        begun = time.monotonic()
        items = 0
        while items < 3:
            kind, payload = self.hub.receive(10)
            if kind == b"p":
                self.assertEqual(payload[:9], struct.pack("<Q", seq) + b"P")
                items += struct.unpack_from("<QII", payload, 9)[2]
        self.assertLess(time.monotonic() - begun, 5)

    def test_quit_lets_a_task_end(self):
        seq = self.send_rows("slow", [{"s": 0.3}])
        self.hub.send(b"Q")
        self.assertEqual(self.hub.outcome(seq).how, DONE)
        self.assertEqual(self.hub.receive()[0], None)
        self.assertEqual(self.process.wait(5), 0)

    def test_stop_ends_a_task_after_its_item(self):
        seq = self.send_rows("slow", [{"s": 0.3}] * 10)
        waiting = self.send_rows("plus", [{"x": 1}])
        time.sleep(0.5)
        self.hub.send(b"S")
        self.assertEqual(self.hub.outcome(waiting).how, REFUSED)
        outcome = self.hub.outcome(seq)
        self.assertEqual(outcome.how, DONE)
        self.assertLess(0, outcome.begun)
        self.assertLess(outcome.begun, 10)
        self.assertEqual(len(outcome.done), outcome.begun)
        self.assertEqual(self.rows("plus", [{"x": 1}]).how, REFUSED)

    def test_cancel_ends_a_task_with_all_it_started(self):
        seq = self.send_rows("family", [{}])
        waiting = [self.send_rows("plus", [{"x": n}]) for n in range(3)]
        pid = number_in(self.folder)
        self.hub.send(b"C", struct.pack("<Q", waiting[1]))
        self.hub.send(b"C", struct.pack("<Q", seq))
        self.assertEqual(self.hub.outcome(waiting[0]).done, {0: {"y": 1}})
        self.assertFalse(is_running(pid))
        self.assertEqual(self.hub.outcome(waiting[2]).done, {0: {"y": 3}})
        self.assertFalse({waiting[1], seq} & set(self.hub.outcomes))


class Deaths(Case):
    def test_a_death_names_the_item_in_hand(self):
        for number, status in ((signal.SIGKILL, 9), (signal.SIGABRT, 6)):
            outcome = self.rows("die", [{"x": x, "signal": int(number)} for x in range(9)])
            self.assertEqual((outcome.how, outcome.word, outcome.begun), (DIED, 6, 6))
            self.assertEqual(outcome.status & 0x7F, status)
            self.assertIn("last words", outcome.text)
        outcome = self.rows("leave", [{}])
        self.assertEqual((outcome.how, outcome.word, outcome.status), (DIED, 1, 3 << 8))
        self.assertEqual(self.rows("plus", [{"x": 1}]).done, {0: {"y": 2}})

    def test_a_death_between_tasks_is_nobodys(self):
        pid = self.rows("whoami", [{}]).done[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(eventually(lambda: not is_running(pid)))
        self.assertEqual(self.rows("plus", [{"x": 1}]).done, {0: {"y": 2}})

    def test_a_timeout_is_told_with_its_item(self):
        begun = time.monotonic()
        outcome = self.rows("slow", [{"s": 0}, {"s": 0.2}, {"s": 60}, {"s": 0}], timeout=0.5)
        self.assertEqual((outcome.how, outcome.word, outcome.begun), (TIMED_OUT, 3, 3))
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual(sorted(outcome.done), [0, 1])

    def test_who_ignores_the_timeout_is_killed(self):
        begun = time.monotonic()
        outcome = self.rows("deaf", [{}], timeout=0.3)
        self.assertEqual((outcome.how, outcome.word, outcome.status), (TIMED_OUT, 1, 9))
        self.assertLess(time.monotonic() - begun, 6)

    def test_the_limit_holds_for_each_item(self):
        outcome = self.rows("slow", [{"s": 0.2}] * 8, timeout=0.6)
        self.assertEqual((outcome.how, outcome.begun), (DONE, 8))

    def test_too_much_memory_ends_the_worker(self):
        self.prepare(3, memory=120 << 20)
        outcome = self.rows("hold", [{"mib": 300}])
        self.assertEqual((outcome.how, outcome.word, outcome.over), (DIED, 1, 1))
        self.assertGreater(outcome.peak, 120 << 10)
        self.assertEqual(self.rows("plus", [{"x": 1}]).how, DONE)

    def test_garbage_is_told(self):
        outcome = self.rows("garble", [{}])
        self.assertEqual((outcome.how, outcome.word), (SILENT, 1))
        self.assertIn("a frame of", outcome.text)

    def test_what_an_item_started_goes_with_its_worker(self):
        outcome = self.rows("family", [{}], timeout=0.5)
        self.assertEqual(outcome.how, TIMED_OUT)
        self.assertFalse(is_running(number_in(self.folder)))

    def test_nothing_outlives_the_stream(self):
        self.send_rows("family", [{}])
        pids = [number_in(self.folder)] + tree(self.process.pid)
        self.hub.socket.close()
        self.assertEqual(self.process.wait(5), 0)
        self.assertTrue(eventually(lambda: not any(map(is_running, pids)), 2))


class Commands(Case):
    def test_endings(self):
        outcome = self.commands(
            command("echo", "hi"),
            command("no-such-program"),
            command("sh", "-c", "cat; echo err >&2; exit 3", stdin=b"abc"),
            command("sh", "-c", "kill -SEGV $$"),
            command("pwd", cwd="/"),
            command("pwd", cwd="/no/such"),
            command("sh", "-c", 'echo "$A"', env=[("A", "b")]),
            command("/"),
            command("echo", "a\0b"),
            command("cat"),
        )
        self.assertEqual((outcome.how, outcome.begun), (DONE, 10))
        told = [outcome.results[index][2:] for index in range(10)]
        self.assertEqual(told[:7], [
            (0, 0, b"hi\n", b""),
            (1, 0, b'program "no-such-program" not found', b""),
            (0, 3 << 8, b"abc", b"err\n"),
            (0, told[3][1], b"", b""),
            (0, 0, b"/\n", b""),
            (1, 0, b'folder "/no/such" not found', b""),
            (0, 0, b"b\n", b""),
        ])
        self.assertEqual(told[3][1] & 0x7F, signal.SIGSEGV)
        self.assertEqual(told[7][2], b'program "/" cannot be started: Permission denied (os error 13)')
        self.assertEqual(told[8][2], b'program "echo" cannot be started: Invalid argument (os error 22)')
        self.assertEqual(told[9], (0, 0, b"", b""))

    def test_a_script_without_a_first_line_is_the_shells(self):
        path = os.path.join(self.folder, "script")
        with open(path, "w") as file:
            file.write("echo script $1\n")
        os.chmod(path, 0o755)
        self.assertEqual(self.commands(command("./script", "x")).results[0][4], b"script x\n")

    def test_timeouts(self):
        begun = time.monotonic()
        outcome = self.commands(
            command("sleep", "60"),
            command("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"),
            command("echo", "after"),
            timeout=0.4,
        )
        self.assertEqual([outcome.results[index][2] for index in range(3)], [2, 2, 0])
        self.assertEqual(outcome.results[1][4], b"deaf\n")
        self.assertLess(time.monotonic() - begun, 6)

    def test_memory_and_output_have_limits(self):
        self.hub.pool(3, pool(self.folder, python=None, memory=100 << 20))
        self.hub.job(30, 3, COMMANDS_JOB)
        hog = command(sys.executable, "-c", "import time; a = bytearray(300 << 20); time.sleep(30)")
        outcome = self.commands(hog, command("echo", "ok"), pool=3, job=30)
        self.assertEqual([outcome.results[index][2] for index in (0, 1)], [4, 0])
        self.assertGreater(outcome.results[0][1], 100 << 10)
        outcome = self.commands(command("sh", "-c", "cat /dev/zero; sleep 60"), command("echo", "ok"))
        self.assertEqual([outcome.results[index][2:5:2] for index in (0, 1)], [(3, b""), (0, b"ok\n")])

    def test_peaks_are_told(self):
        outcome = self.commands(command(sys.executable, "-c", "bytearray(b'1' * (100 << 20))"))
        self.assertGreater(outcome.results[0][1], 100 << 10)
        self.assertGreater(outcome.results[0][0], 1000)

    def test_much_passes_through(self):
        data = random.Random(1).randbytes(5 << 20)
        outcome = self.commands(command("cat", stdin=data), command("true", stdin=data), command("sh", "-c", "cat >&2", stdin=data))
        self.assertEqual(outcome.results[0][4], data)
        self.assertEqual(outcome.results[1][3:5], (0, b""))
        note = b"\n\xe2\x80\xa6 %d bytes left out \xe2\x80\xa6\n" % (len(data) - (64 << 10))
        self.assertEqual(outcome.results[2][5], data[:32 << 10] + note + data[-(32 << 10):])

    def test_what_a_command_leaves_in_its_group_goes_with_it(self):
        outcome = self.commands(command("sh", "-c", "sleep 60 & echo $!"))
        pid = int(outcome.results[0][4])
        self.assertTrue(eventually(lambda: not is_running(pid), 2))

    def test_stop_and_cancel(self):
        self.hub.commands(1, 20, 2, [command("sleep", "0.3")] * 10)
        time.sleep(0.5)
        self.hub.send(b"S")
        outcome = self.hub.outcome(1)
        self.assertEqual(outcome.how, DONE)
        self.assertTrue(0 < outcome.begun < 10 and len(outcome.results) == outcome.begun)

    def test_cancel(self):
        self.hub.commands(1, 20, 2, [command("sh", "-c", "echo $$ > pid; setsid sleep 60")])
        number_in(self.folder)
        pids = tree(self.process.pid)[1:]
        self.hub.send(b"C", struct.pack("<Q", 1))
        self.assertEqual(self.commands(command("echo", "next")).results[0][4], b"next\n")
        self.assertFalse(any(map(is_running, pids)))

    def test_commands_and_functions_take_turns(self):
        for n in range(3):
            self.assertEqual(self.commands(command("echo", str(n))).results[0][4], b"%d\n" % n)
            self.assertEqual(self.rows("plus", [{"x": n}]).done, {0: {"y": n + 1}})


class Random(Case):
    """Tasks of all kinds, in any order, against what each must give."""

    def test_random_tasks(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        expected = {}
        for seq in range(1, 60):
            expected[seq] = getattr(self, "send_" + rng.choice(["sums", "mixed", "command_list", "death"]))(rng, seq)
        for seq in expected:
            outcome = self.hub.outcome(seq)
            with self.subTest(seed=seed, seq=seq):
                expected[seq](outcome)

    def send_sums(self, rng, seq):
        xs = [rng.randrange(1000) for _ in range(rng.randrange(40))]
        self.hub.rows(seq, self.jobs["plus"], 1, [{"x": x} for x in xs])
        return lambda outcome: self.assertEqual((outcome.how, outcome.done), (DONE, {n: {"y": x + 1} for n, x in enumerate(xs)}))

    def send_mixed(self, rng, seq):
        xs = [rng.randrange(1000) for _ in range(rng.randrange(1, 40))]
        self.hub.rows(seq, self.jobs["maybe"], 1, [{"x": x} for x in xs])

        def check(outcome):
            self.assertEqual(outcome.done, {n: {"y": 2 * x} for n, x in enumerate(xs) if x % 3})
            self.assertEqual(sorted(outcome.failed), [n for n, x in enumerate(xs) if x % 3 == 0])
        return check

    def send_command_list(self, rng, seq):
        codes = [rng.randrange(4) for _ in range(rng.randrange(6))]
        self.hub.commands(seq, 20, 2, [command("sh", "-c", "echo %d; exit %d" % (code, code)) for code in codes])

        def check(outcome):
            told = {n: result[2:5] for n, result in outcome.results.items()}
            self.assertEqual(told, {n: (0, code << 8, b"%d\n" % code) for n, code in enumerate(codes)})
        return check

    def send_death(self, rng, seq):
        items = rng.randrange(1, 20)
        at = rng.randrange(items + 3)
        self.hub.rows(seq, self.jobs["die"], 1, [{"x": x, "at": at} for x in range(items)])

        def check(outcome):
            if at >= items:
                return self.assertEqual((outcome.how, len(outcome.done)), (DONE, items))
            self.assertEqual((outcome.how, outcome.word, outcome.begun, outcome.status), (DIED, at + 1, at + 1, 9))
            self.assertLessEqual(set(outcome.done), set(range(at)))
        return check


class LocalTasks(Tasks):
    """The same in the way in which an engine's worker starts a keeper, which says less and answers a cancel."""

    local = True

    def test_rows_come_back(self):
        outcome = self.rows("plus", [{"x": x} for x in range(100)])
        self.assertEqual((outcome.how, len(outcome.done), self.hub.told), (DONE, 100, []))

    def test_cancel_ends_a_task_with_all_it_started(self):
        seq = self.send_rows("family", [{}])
        pid = number_in(self.folder)
        self.hub.send(b"C", struct.pack("<Q", seq))
        outcome = self.hub.outcome(seq)
        self.assertEqual((outcome.how, outcome.text), (LOST, "cancelled"))
        self.assertFalse(is_running(pid))

    def test_a_large_result_is_cut_between_items(self):
        outcome = self.rows("large", [{"n": 20 << 20}] * 9)
        self.assertEqual(outcome.how, DONE)
        self.assertEqual(sorted(outcome.done), list(range(outcome.begun)))
        self.assertIn(outcome.begun, (4, 5))
        self.assertEqual(self.rows("plus", [{"x": 1}] * 3).begun, 3)

    def test_a_keeper_that_is_killed_takes_everything_along(self):
        for victim in ("guard", "keeper", "both"):
            with self.subTest(victim=victim):
                if os.path.exists(self.folder + "/pid"):
                    os.unlink(self.folder + "/pid")
                    self.hub.socket.close()
                    self.hub, self.process = started(True)
                    self.hub.begin(runtime())
                    self.prepare(1)
                self.send_rows("family", [{}])
                stray = number_in(self.folder)
                guard, keeper, *rest = tree(self.process.pid)
                for pid in {"guard": [guard], "keeper": [keeper], "both": [guard, keeper]}[victim]:
                    os.kill(pid, signal.SIGKILL)
                self.process.wait(5)
                left = [stray] if victim != "both" else []
                self.assertTrue(eventually(lambda: not any(map(is_running, left + [keeper])), 3), (left, rest))
                for pid in [stray] + rest:
                    if victim == "both" and is_running(pid):
                        os.kill(pid, signal.SIGKILL)

    def test_sigterm_ends_everything_within_a_second(self):
        self.send_rows("family", [{}])
        pids = tree(self.process.pid) + [number_in(self.folder)]
        begun = time.monotonic()
        os.kill(self.process.pid, signal.SIGTERM)
        self.process.wait(5)
        self.assertLess(time.monotonic() - begun, 1.5)
        self.assertTrue(eventually(lambda: not any(map(is_running, pids)), 1))

    def test_slurms_sigterm_to_all_is_no_items_fault(self):
        self.send_rows("mark", [{}])
        number_in(self.folder)
        for pid in tree(self.process.pid)[::-1]:
            os.kill(pid, signal.SIGTERM)
        kind = b""
        while kind is not None:
            kind, payload = self.hub.receive(5)
            if kind == b"e":
                self.assertEqual(payload[8], LOST)


if __name__ == "__main__":
    unittest.main()
