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
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from keeping import (  # noqa: E402
    BROKEN, COMMANDS_JOB, DIED, DONE, HOME, LOST, PYTHON, REFUSED, SERVE, SILENT, TIMED_OUT, Hub, certificate, command, eventually,
    group_body, is_running, job, number_in, pool, runtime, started, tree,
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

def doom(row):
    import threading
    threading.Timer(row["s"], os.kill, (os.getpid(), signal.SIGKILL)).start()
    return {"y": 1}

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


    def test_a_task_that_waits_can_be_cancelled(self):
        seqs = [self.send_rows("slow", [{"s": 0.3}])] + [self.send_rows("slow", [{"s": 0.01}]) for _ in range(4)]
        time.sleep(0.1)
        for seq in (seqs[1], seqs[3]):
            self.hub.send(b"C", struct.pack("<Q", seq))
        for seq in (seqs[0], seqs[2], seqs[4]):
            self.assertEqual((self.hub.outcome(seq).how, seq), (DONE, seq))
        self.assertEqual(set(self.hub.outcomes), {seqs[1], seqs[3]} if self.local else set())


class Deaths(Case):
    def test_a_death_names_the_item_in_hand(self):
        for number, status in ((signal.SIGKILL, 9), (signal.SIGABRT, 6), (signal.SIGTERM, 15)):
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

    def test_a_death_is_that_of_the_task_that_was_at_work(self):
        for s in (0, 0.001, 0.1):
            seqs = [self.send_rows("doom", [{"s": s}])] + [self.send_rows("slow", [{"s": 0.05}] * 4) for _ in range(3)]
            self.assertIn(self.hub.outcome(seqs[0]).how, (DONE, DIED))
            hows = []
            for seq in seqs[1:]:
                outcome = self.hub.outcome(seq)
                hows.append(outcome.how)
                if outcome.how == DIED:
                    # It was killed at an item, or between two.
                    self.assertEqual(outcome.status, 9)
                    self.assertIn(outcome.word, (0, len(outcome.done) + 1, 0xFFFFFFFF))
                else:
                    self.assertEqual((outcome.how, len(outcome.done)), (DONE, 4))
            self.assertLessEqual(hows.count(DIED), 1)

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


class Files(Case):
    """Uploads and shared objects, on a node that does not share bpp-flow's file system."""

    def setUp(self):
        self.cache = tempfile.mkdtemp(prefix="bpp-cache-")
        self.addCleanup(shutil.rmtree, self.cache, True)
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = self.cache
        self.addCleanup(lambda: os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before))
        super().setUp()
        self.own = os.path.join(self.cache, "bpp-flow-%d" % os.getuid())

    def digest(self, n):
        return "%064x" % n

    def run_uploaded(self, files, pool_number=5, folder="/no/such/workflow", digest=1, function="where"):
        blobs = {self.digest(digest): marshal.dumps(files, 2)}
        self.hub.pool(pool_number, pool(folder, upload=list(blobs)))
        self.hub.job(pool_number, pool_number, job(pool_number, folder, function))
        self.seq += 1
        self.hub.rows(self.seq, pool_number, pool_number, [{}])
        return self.hub.outcome(self.seq, blobs)

    def test_uploads_stand_for_the_workflows_folder(self):
        source = b"import os\nfrom lib import b\ndef where(row):\n    return {'at': os.getcwd(), 'b': b.B, 'file': __file__}\n"
        files = [("m.py", source, 0o644), ("lib/__init__.py", b"", 0o644), ("lib/b.py", b"B = 7\n", 0o600)]
        folder = os.path.realpath(os.path.join(self.own, self.digest(1)))
        for _ in range(2):
            outcome = self.run_uploaded(files)
            self.assertEqual(outcome.done, {0: {"at": folder, "b": 7, "file": os.path.join(self.own, self.digest(1), "m.py")}})
        self.assertEqual(os.stat(self.own).st_mode & 0o777, 0o700)
        self.assertEqual(os.listdir(self.own), [self.digest(1)])
        self.assertEqual(sum(kind == b"n" for kind, _ in self.hub.told), 0)

    def test_what_was_uploaded_wins(self):
        with open(os.path.join(self.folder, "other.py"), "w") as file:
            file.write("O = 1\n")
        source = b"import other, os\ndef where(row):\n    return {'o': other.O, 'at': os.getcwd()}\n"
        outcome = self.run_uploaded([("m.py", source, 0o644)], folder=self.folder)
        self.assertEqual(outcome.done, {0: {"o": 1, "at": os.path.realpath(self.folder)}})

    def test_commands_find_uploads(self):
        digest = self.digest(4)
        blobs = {digest: marshal.dumps([("bin/hi", b"#!/bin/sh\necho hi\n", 0o755)], 2)}
        self.hub.pool(6, pool("/no/such/workflow", python=None, upload=[digest]))
        self.hub.job(6, 6, COMMANDS_JOB)
        self.hub.commands(1, 6, 6, [command("bin/hi")])
        self.assertEqual(self.hub.outcome(1, blobs).results[0][4], b"hi\n")

    def test_paths_do_not_lead_out(self):
        for number, path in enumerate(("../evil", "/evil", "a/../../evil", "a//b", ".", "a\0b", ""), 10):
            outcome = self.run_uploaded([(path, b"x", 0o644)], pool_number=number, digest=number)
            self.assertEqual(outcome.how, BROKEN, path)
            self.assertIn("an upload holds the path", outcome.text)
        self.assertEqual(os.listdir(self.own), [])
        outcome = self.run_uploaded([("m.py", b"", 0), ("m.py", b"twice", 0)], pool_number=30, digest=30)
        self.assertEqual(outcome.how, BROKEN)
        self.assertEqual(self.rows("plus", [{"x": 1}]).how, DONE)

    def test_somebody_elses_folder_is_not_used(self):
        for make in (lambda: os.mkdir(self.own, 0o777) or os.chmod(self.own, 0o777), lambda: os.symlink(self.folder, self.own)):
            make()
            outcome = self.run_uploaded([("m.py", b"def where(row):\n    return {'f': __file__}\n", 0o644)])
            self.assertFalse(outcome.done[0]["f"].startswith(self.own))
            self.assertEqual(os.listdir(self.own), os.listdir(self.folder) if os.path.islink(self.own) else [])
            os.unlink(self.own) if os.path.islink(self.own) else os.rmdir(self.own)

    def share(self, number, path, stamp, content):
        entry = {"name": "t", "path": path, "size": stamp[0], "mtime_ns": stamp[1], "digest": self.digest(50 + number)}
        told = ("t", "t.json", "json", path, str(stamp[0]), str(stamp[1]), "12345")
        with open(os.path.join(self.folder, "sh.py"), "w") as file:
            file.write("def look(row, t):\n    return {'t': t}\n")
        self.hub.pool(number, pool(self.folder, share=[entry]))
        self.hub.job(number, number, job(number, self.folder, "look", share=[told], module="sh"))
        self.seq += 1
        self.hub.rows(self.seq, number, number, [{}])
        return self.hub.outcome(self.seq, {entry["digest"]: content})

    def test_shared_objects_come_over_the_wire(self):
        outcome = self.share(7, "/no/such/t.json", (3, 5), b"[1]")
        self.assertEqual(outcome.done, {0: {"t": [1]}})
        path = os.path.join(self.own, self.digest(57))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o400)

    def test_shared_objects_that_are_here_are_used(self):
        path = os.path.join(self.folder, "t.json")
        with open(path, "w") as file:
            file.write("[2]")
        found = os.stat(path)
        outcome = self.share(7, path, (found.st_size, found.st_mtime_ns), b"[1]")
        self.assertEqual(outcome.done, {0: {"t": [2]}})
        self.assertFalse(os.path.exists(self.own))
        outcome = self.share(8, path, (found.st_size, found.st_mtime_ns + 1), b"[1]")
        self.assertEqual(outcome.done, {0: {"t": [1]}}, "the node has another file of that name")

    def test_rows_of_a_stage_lie_side_by_side(self):
        digests = [self.digest(70), self.digest(71)]
        blobs = dict(zip(digests, (b"arrow", b"rows")))
        share = [{"name": "t", "path": "/no/such/x.arrow" + more, "size": 5, "mtime_ns": 1, "digest": digest}
                 for more, digest in zip(("", ".rows"), digests)]
        self.hub.pool(7, pool(self.folder, python=None, share=share))
        self.hub.job(7, 7, COMMANDS_JOB)
        self.hub.commands(1, 7, 7, [command("true")])
        self.assertEqual(self.hub.outcome(1, blobs).how, DONE)
        with open(os.path.join(self.own, digests[0] + ".rows"), "rb") as file:
            self.assertEqual(file.read(), b"rows")


PATCHED = SERVE.replace("keeper =", "node.BEAT, node.SILENCE = 0.1, 0.6\nkeeper =")


class Beats(unittest.TestCase):
    def setUp(self):
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        with theirs:
            self.process = subprocess.Popen([PYTHON, "-c", PATCHED % HOME, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        self.addCleanup(self.process.kill)
        self.hub = Hub(ours)

    def test_a_silent_bpp_flow_is_gone(self):
        self.assertEqual(self.hub.receive(5)[0], None)
        self.assertEqual(self.process.wait(5), 0)
        self.assertGreater(self.hub.beats, 2)

    def test_one_that_beats_is_not(self):
        for _ in range(10):
            self.hub.send(b"b")
            time.sleep(0.2)
        self.assertIsNone(self.process.poll())
        self.hub.send(b"Q")
        self.process.wait(5)


JOB = """
import marshal, sys
sys.path.insert(0, %r)
from bpp_flow import node
settings = marshal.loads(sys.stdin.buffer.read())
node.PATIENCE = 1
node.main_job(settings)
"""


class Jobs(unittest.TestCase):
    """What a job of Slurm or ssh runs, over TLS."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="bpp-job-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        with open(os.path.join(cls.folder, "m.py"), "w") as file:
            file.write(MODULE)
        cls.certificates = [certificate(cls.folder, name) for name in ("one", "two")]

    def setUp(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)
        self.addCleanup(lambda: self.listener.close())
        self.hubs = []

    def start(self, workers=1, certificate=0, addresses=("127.0.0.1",), port=None, **more):
        with open(self.certificates[certificate][0]) as file:
            pem = file.read()
        invitation = {"addresses": list(addresses), "port": port or self.listener.getsockname()[1], "certificate": pem, "token": "t0ken"}
        settings = {"invitation": invitation, "workers": workers, "job": "12_3", "until": 5.5, "idle": 60, **more}
        env = {**os.environ, "SLURM_JOB_END_TIME": "1700000000"} if more.get("until", 1) is None else None
        self.job = subprocess.Popen([PYTHON, "-c", JOB % HOME], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        self.addCleanup(self.finish)
        self.job.stdin.write(marshal.dumps(settings))
        self.job.stdin.close()

    def finish(self):
        for hub in self.hubs:
            hub.socket.close()
        pids = tree(self.job.pid)
        self.job.wait(10)
        self.job.stderr.close()
        self.assertTrue(eventually(lambda: not any(map(is_running, pids))), "processes are left")

    def accept(self):
        """The next keeper that connects, and its hello."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificates[0])
        sock, _ = self.listener.accept()
        sock.settimeout(10)
        hub = Hub(context.wrap_socket(sock, server_side=True))
        self.hubs.append(hub)
        kind, payload = hub.receive()
        self.assertEqual(kind, b"h")
        return hub, marshal.loads(payload)

    def ready(self):
        hub, hello = self.accept()
        hub.begin(runtime())
        hub.pool(1, pool(self.folder))
        for number, name in enumerate(("plus", "large", "family", "mark"), 1):
            hub.job(number, 1, job(number, self.folder, name))
        return hub, hello

    def test_keepers_say_who_they_are_and_work(self):
        self.start(2)
        both = [self.ready(), self.ready()]
        for hub, hello in both:
            self.assertEqual(
                {name: hello[name] for name in ("protocol", "token", "role", "host", "job", "slots", "until")},
                {"protocol": 1, "token": "t0ken", "role": "keeper", "host": socket.gethostname(), "job": "12_3", "slots": 1, "until": 5.5},
            )
            for seq in range(1, 200):
                hub.rows(seq, 1, 1, [{"x": seq}])
            for seq in range(1, 200):
                self.assertEqual(hub.outcome(seq).done, {0: {"y": seq + 1}})
            hub.rows(1, 1, 1, [{"x": 1, "filler": "z" * (20 << 20)}])
            self.assertEqual(hub.outcome(1).done, {0: {"y": 2}})
            hub.rows(2, 2, 1, [{"n": 20 << 20}] * 4)
            self.assertEqual([len(row["y"]) for row in hub.outcome(2).done.values()], [20 << 20] * 4)
        self.assertNotEqual(both[0][1]["name"], both[1][1]["name"])
        for hub, _ in both:
            hub.send(b"Q")
        self.assertEqual(self.job.wait(5), 0)

    def test_slurm_says_when_the_job_ends(self):
        self.start(until=None)
        self.assertEqual(self.ready()[1]["until"], 1.7e9)

    def test_idle_keepers_end(self):
        self.start(2, idle=0.5)
        for _ in range(2):
            hub, _ = self.ready()
            hub.rows(1, 1, 1, [{"x": 1}])
            hub.outcome(1)
        self.assertEqual(self.job.wait(5), 0)

    def test_addresses_are_tried_in_turn_and_again(self):
        port = self.listener.getsockname()[1]
        self.listener.close()
        self.start(addresses=("no-such-host.invalid", "127.0.0.2", "127.0.0.1"), port=port)
        time.sleep(0.3)
        self.listener = socket.create_server(("127.0.0.1", port))
        self.listener.settimeout(10)
        self.ready()

    def test_who_cannot_connect_says_so_once(self):
        port = self.listener.getsockname()[1]
        self.listener.close()
        self.start(3, port=port)
        self.assertEqual(self.job.wait(10), 1)
        lines = self.job.stderr.read().decode().splitlines()
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("127.0.0.1, port %d: " % port, lines[0])

    def test_another_certificate_is_refused(self):
        self.start(certificate=1)
        with self.assertRaises(ssl.SSLError):
            self.accept()
        self.assertEqual(self.job.wait(10), 1)
        self.assertIn(b"CERTIFICATE_VERIFY_FAILED", self.job.stderr.read())

    def test_a_refused_token_is_told(self):
        self.start()
        hub, _ = self.accept()
        hub.socket.close()
        self.assertEqual(self.job.wait(10), 1)
        self.assertEqual(self.job.stderr.read().decode(), "bpp-flow: bpp-flow refused this worker, or is gone\n")

    def test_a_killed_keeper_is_replaced_three_times(self):
        self.start()
        for _ in range(4):
            hub, hello = self.ready()
            hub.rows(1, 3, 1, [{}])
            stray = number_in(self.folder)
            os.kill(hello["pid"], signal.SIGKILL)
            while hub.receive()[0] is not None:
                pass
            self.assertTrue(eventually(lambda: not is_running(stray), 2))
            os.unlink(self.folder + "/pid")
        self.assertNotEqual(self.job.wait(5), 0)

    def test_the_end_of_bpp_flow_is_the_jobs(self):
        self.start(2)
        hubs = [self.ready()[0], self.ready()[0]]
        hubs[0].rows(1, 3, 1, [{}])
        stray = number_in(self.folder)
        os.unlink(self.folder + "/pid")
        for hub in hubs:
            hub.socket.close()
        self.assertEqual(self.job.wait(3), 0)
        self.assertTrue(eventually(lambda: not is_running(stray), 1))

    def test_sigterm_ends_the_job_within_a_second(self):
        self.start(2)
        hub, _ = self.ready()
        hub.rows(1, 3, 1, [{}])
        pids = [number_in(self.folder)] + tree(self.job.pid)
        os.unlink(self.folder + "/pid")
        begun = time.monotonic()
        self.job.terminate()
        self.job.wait(5)
        self.assertLess(time.monotonic() - begun, 1.5)
        self.assertTrue(eventually(lambda: not any(map(is_running, pids)), 1))


if __name__ == "__main__":
    unittest.main()
