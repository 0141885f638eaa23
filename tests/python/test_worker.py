"""The worker from outside, with nothing but the standard library."""

import contextlib
import datetime
import os
import signal
import struct
import threading
import time
import unittest

from harness import Worker, load

PHASE = 0xFFFFFFFF


class Case(unittest.TestCase):
    def worker(self, source, **more):
        worker = Worker(source, **more)
        self.addCleanup(worker.close)
        return worker

    def one(self, source, rows, **more):
        return self.worker(source).run("f", rows, **more)


class Calls(Case):
    def test_row_with_arguments(self):
        worker = self.worker("def f(row, *, a, b=1): return {'y': row['x'] + a + b}")
        job = worker.job("f", args={"a": 100})
        worker.submit(job, [{"x": 1}, {"x": 2}], args=[{"b": 10}, {"b": 20}])
        self.assertEqual(worker.finish()[0], {0: {"y": 111}, 1: {"y": 122}})
        worker.submit(job, [{"x": 1}])
        self.assertEqual(worker.finish()[0], {0: {"y": 102}})

    def test_kwargs(self):
        worker = self.worker(
            "def f(x, z=5): return {'y': [x, z]}\ndef g(**all): return {'y': sorted(all)}\n"
            "def once(n): return [{'i': i} for i in range(n)]"
        )
        self.assertEqual(worker.run("f", [{"x": 1, "w": 2}], call="kwargs")[0], {0: {"y": [1, 5]}})
        self.assertEqual(worker.run("g", [{"x": 1, "w": 2}], call="kwargs")[0], {0: {"y": ["w", "x"]}})
        job = worker.job("once", call="kwargs", shape="many", args={"n": 2})
        worker.submit(job, [{}])
        self.assertEqual(worker.finish()[0], {0: [{"i": 0}, {"i": 1}]})

    def test_value(self):
        done, failed, begun = self.one("def f(x): return x + 1", [1, ..., 3], call="value", marks=[1])
        self.assertEqual(done, {0: {"value": 2}, 2: {"value": 4}})
        self.assertEqual(failed[1][:2], ("input", "the row has no such column"))
        self.assertEqual(begun, 3)

    def test_environment_of_an_item(self):
        source = "import os\ndef f(row): return {'y': os.environ.get('ITEM')}"
        done, _, _ = self.one(source, [{}, {}], env=[{"ITEM": "a"}, {}])
        self.assertEqual(done, {0: {"y": "a"}, 1: {"y": None}})

    def test_method_and_coroutine(self):
        worker = self.worker(
            "import asyncio\nclass C:\n    @staticmethod\n    def f(row): return {'y': 1}\n"
            "async def g(row):\n    await asyncio.sleep(0)\n    return {'y': 2}\n"
        )
        self.assertEqual(worker.run("C.f", [{}])[0], {0: {"y": 1}})
        self.assertEqual(worker.run("g", [{}])[0], {0: {"y": 2}})

    def test_chunk_is_halved_until_the_bad_rows_stand_alone(self):
        source = (
            "def f(rows):\n"
            "    for r in rows: r['seen'] = r.get('seen', 0) + 1\n"
            "    if any(r['x'] in (3, 60) for r in rows): raise ValueError('bad')\n"
            "    return [{'y': r['x'] * 2, 'seen': r['seen']} for r in rows]"
        )
        done, failed, begun = self.one(source, [{"x": i} for i in range(100)], call="chunk", chunk_format="rows")
        self.assertEqual(sorted(failed), [3, 60])
        self.assertEqual(done, {i: {"y": i * 2, "seen": 1} for i in range(100) if i not in (3, 60)})
        self.assertEqual(begun, 100)

    def test_forms_of_a_chunks_result(self):
        worker = self.worker(
            "def columns(rows): return {'y': [r['x'] for r in rows]}\n"
            "def values(rows): return (r['x'] for r in rows)\n"
            "def short(rows): return [1]\n"
            "def bad(rows): return [{'y': r['x'] if r['x'] != 1 else {1}} for r in rows]\n"
            "def keep(rows): return [r['x'] > 0 for r in rows]\n"
            "def named(rows): return [(1, r['x']) for r in rows]\n"
        )
        rows = [{"x": 0}, {"x": 1}]

        def run(name, **more):
            return worker.run(name, rows, call="chunk", chunk_format="rows", **more)

        self.assertEqual(run("columns")[0], {0: {"y": 0}, 1: {"y": 1}})
        self.assertEqual(run("values")[0], {0: {"value": 0}, 1: {"value": 1}})
        self.assertEqual(run("keep", shape="keep")[0], {0: False, 1: True})
        self.assertEqual(run("named", returns=["a", "b"])[0], {0: {"a": 1, "b": 0}, 1: {"a": 1, "b": 1}})
        done, failed, _ = run("bad")
        self.assertEqual((list(done), failed[1][0]), ([0], "output"))

    def test_group_reads_its_rows_lazily(self):
        worker = self.worker(
            "def f(rows): return {'n': sum(r['x'] for r in rows)}\n"
            "def first(rows, k=0): return {'n': next(rows)['x'] + k}\n"
            "def chunk(rows): return [{'n': len(rows)}, {'n': 0}]\n"
            "def fail(rows): raise KeyError('x')\n"
        )
        batches = [[{"x": 1}, {"x": 2}], [{"x": 3}]]
        self.assertEqual(worker.group(worker.job("f", shape="many"), batches)[0], {0: [{"n": 6}]})
        self.assertEqual(worker.group(worker.job("first", shape="many"), batches, {"k": 5})[0], {0: [{"n": 6}]})
        job = worker.job("chunk", call="chunk", shape="many", chunk_format="rows")
        self.assertEqual(worker.group(job, batches)[0], {0: [{"n": 3}, {"n": 0}]})
        done, failed, begun = worker.group(worker.job("fail", shape="many"), batches)
        self.assertEqual((failed[0][1], begun), ("KeyError: 'x'", 1))
        self.assertIn("no function", worker.group(worker.job("nope", shape="many"), batches))
        self.assertEqual(worker.run("first", [])[2], 0)


class Results(Case):
    def test_forms_of_a_row(self):
        worker = self.worker(
            "import collections, enum, types\n"
            "P = collections.namedtuple('P', 'a b')\n"
            "class E(enum.IntEnum):\n    A = 7\n"
            "class S(str): pass\n"
            "out = [None, 5, (1, 2), [1], {'a': P(1, (2,))}, collections.OrderedDict(a=1), {'a': E.A, S('b'): S('c')},"
            " -0.0, {'n': 1 << 100, 'm': -1 << 63}, {'a': float('nan')}]\n"
            "def f(row): return out[row['x']]\n"
        )
        done, failed, _ = worker.run("f", [{"x": i} for i in range(10)])
        self.assertEqual(failed, {})
        self.assertEqual(str(done.pop(9)["a"]), "nan")
        self.assertEqual(str(done.pop(7)), "{'value': -0.0}")
        self.assertEqual(
            done,
            {0: {}, 1: {"value": 5}, 2: {"value": [1, 2]}, 3: {"value": [1]}, 4: {"a": [1, [2]]}, 5: {"a": 1},
             6: {"a": 7, "b": "c"}, 8: {"n": 1 << 100, "m": -1 << 63}},
        )
        self.assertEqual([type(v) for v in done[6].values()], [int, str])

    def test_what_cannot_be_kept(self):
        worker = self.worker(
            "import decimal\nloop = []; loop.append(loop)\ndeep = []\nfor _ in range(5000): deep = [deep]\n"
            "out = [decimal.Decimal(1), {1}, loop, deep, object(), {1: 2}, bytearray(b'x'), 1j, memoryview(b'x'),"
            " {'a': {1: 2}}, (i for i in []), print]\n"
            "def f(row): return {'y': out[row['x']]}\n"
            "def key(row): return {1: 2}\n"
            "def gen(row): yield 1\n"
        )
        done, failed, _ = worker.run("f", [{"x": i} for i in range(12)])
        self.assertEqual((done, {f[0] for f in failed.values()}), ({}, {"output"}))
        self.assertTrue(failed[0][1].startswith('column "y": a value of type decimal.Decimal cannot be kept; return'))
        self.assertIn("deep", failed[2][1])
        self.assertEqual(worker.run("key", [{}], shape="many")[1][0][1], "a column's name must be text, not int")
        self.assertIn("type generator", worker.run("gen", [{}])[1][0][1])

    def test_returns_names_the_elements(self):
        worker = self.worker("def f(row): return (1,) * row['x']")
        done, failed, _ = worker.run("f", [{"x": 2}, {"x": 3}], returns=["a", "b"])
        self.assertEqual(done, {0: {"a": 1, "b": 1}})
        self.assertEqual(failed[1][1], "3 values returned where `returns` names 2")

    def test_later_changes_do_not_count(self):
        worker = self.worker(
            "same = {'y': 0, 'l': []}\n"
            "def f(row):\n    same['y'] = row['x']; same['l'].append(1); return same\n"
            "def g(row):\n    d = {}\n    for i in range(3):\n        d['i'] = i\n        yield d\n"
        )
        done, _, _ = worker.run("f", [{"x": i} for i in range(3)])
        self.assertEqual([(r["y"], len(r["l"])) for r in done.values()], [(0, 1), (1, 2), (2, 3)])
        self.assertEqual(worker.run("g", [{}], shape="many")[0], {0: [{"i": 0}, {"i": 1}, {"i": 2}]})

    def test_many(self):
        worker = self.worker(
            "out = [None, {'a': 1}, [1, 2], iter([{'a': 1}, None]), 5, 'text', {}.keys(), {1}]\n"
            "def f(row): return out[row['x']]\n"
        )
        done, failed, _ = worker.run("f", [{"x": i} for i in range(8)], shape="many")
        self.assertEqual(
            done,
            {0: [], 1: [{"a": 1}], 2: [{"value": 1}, {"value": 2}], 3: [{"a": 1}, {"value": None}], 4: [{"value": 5}],
             5: [{"value": "text"}], 6: []},
        )
        self.assertEqual(failed[7][0], "output")

    def test_keep(self):
        worker = self.worker(
            "class B:\n    def __bool__(self): raise ValueError('neither')\n"
            "out = [0, 'x', None, B()]\ndef f(row): return out[row['x']]\n"
        )
        done, failed, _ = worker.run("f", [{"x": i} for i in range(4)], shape="keep")
        self.assertEqual(done, {0: False, 1: True, 2: False})
        self.assertEqual(failed[3][:2], ("output", "neither true nor false: ValueError: neither"))

    def test_times_both_ways(self):
        texts = [
            (0, "2024-02-29T12:30:00"), (0, "2024-02-29T12:30:00.120000+02:00"), (0, "2024-02-29T12:30:00.5Z"),
            (1, "2024-02-29"), (2, "12:30:00.000001"), (3, "-1.5"), (3, "90"), (0, "2024-02-29T12:30:00.123456789"),
        ]
        worker = self.worker("def f(row): return {'t': row['t'], 'k': type(row['t']).__name__, 'l': [row['t']]}")
        rows = [{"t": time} for time in texts]
        done, failed, _ = worker.run("f", rows, marks=list(range(len(rows))))
        kinds = ["datetime", "datetime", "datetime", "date", "time", "timedelta", "timedelta"]
        self.assertEqual([r["k"] for r in done.values()], kinds)
        self.assertEqual([r["t"] for i, r in done.items() if i != 2], [t for i, t in enumerate(texts[:7]) if i != 2])
        self.assertEqual(done[2]["l"], [(0, "2024-02-29T12:30:00.500000+00:00")])
        self.assertEqual(failed[7][0], "input")


class Failures(Case):
    def test_awkward_exceptions(self):
        worker = self.worker(
            "class Bad(Exception):\n    def __str__(self): raise RuntimeError\n"
            "def f(row):\n"
            "    n = row['x']\n"
            "    if n == 0: raise Bad\n"
            "    if n == 1: raise ValueError('\\ud800')\n"
            "    if n == 2: return f(row)\n"
            "    if n == 3: raise KeyboardInterrupt\n"
            "    if n == 4: raise StopIteration\n"
            "    if n == 5: raise MemoryError('much')\n"
            "    if n == 6: raise OSError('y' * 10_000_000)\n"
            "    raise ValueError('a\\nb') from KeyError('k')\n"
        )
        _, failed, begun = worker.run("f", [{"x": i} for i in range(8)])
        told = [failed[i][1] for i in range(8)]
        self.assertEqual(begun, 8)
        self.assertEqual(told[:2], ["m.Bad: <exception str() failed>", "ValueError: \\ud800"])
        self.assertTrue(told[2].startswith("RecursionError: "))
        self.assertEqual(told[3:6], ["KeyboardInterrupt", "StopIteration", "MemoryError: much"])
        self.assertLess(len(told[6]), 20_000)
        self.assertIn("KeyError: 'k'", failed[7][2])
        self.assertEqual({f[0] for f in failed.values()}, {"exception"})

    def test_place_is_the_users_innermost(self):
        worker = self.worker("import json\ndef g(t):\n    return json.loads(t)\ndef f(row):\n    return g('{')\n")
        self.assertEqual(worker.run("f", [{}])[1][0][4], "m.py:3 in g")

    def test_only_failed_items_keep_their_output(self):
        worker = self.worker(
            "import os, sys\n"
            "def f(row):\n"
            "    print('item', row['x']); print('err', file=sys.stderr); os.write(1, b'raw\\n')\n"
            "    if row['x'] % 2: raise ValueError\n"
        )
        _, failed, _ = worker.run("f", [{"x": i} for i in range(4)])
        self.assertEqual({i: f[3] for i, f in failed.items()}, {i: "item %d\nerr\nraw\n" % i for i in (1, 3)})
        self.assertEqual(worker.captured(), "")

    def test_a_hundred_megabytes_of_prints(self):
        worker = self.worker(
            "def f(row):\n    for i in range(1_000_000): print('%099d' % i)\n    raise ValueError\n"
            "def big(row):\n    print('x' * 100_000_000)\n    raise ValueError\n"
            "def memory(row):\n    status = open('/proc/self/status').read()\n"
            "    return {'kib': int(status.split('VmHWM:')[1].split()[0])}\n"
        )
        _, failed, _ = worker.run("f", [{}])
        output = failed[0][3]
        self.assertLess(len(output), 70_000)
        self.assertTrue(output.startswith("0" * 99 + "\n" + "0" * 98 + "1\n"))
        self.assertTrue(output.endswith("999999\n"))
        head, _, tail = output.partition("\n[... ")
        left_out = int(tail.split(" ")[0])
        self.assertEqual(len(head) + left_out + len(tail.split("...]\n", 1)[1]), 100_000_000)
        self.assertLess(worker.run("memory", [{}])[0][0]["kib"], 60_000)
        self.assertLess(len(worker.run("big", [{}])[1][0][3]), 70_000)

    def test_what_is_broken_is_no_items_fault(self):
        worker = self.worker("def measure(row): pass\nvalue = 1\ndef init(): raise OSError('no database')\n")
        self.assertIn("did you mean `measure`?", worker.run("mesure", [{}]))
        self.assertIn("no function but a value of type int", worker.run("value", [{}]))
        self.assertIn("no module `nope`", worker.run("f", [{}], module="nope"))
        told = worker.run("measure", [{}], init=("m", "init", {}))
        self.assertTrue(told.startswith("init: m:init: OSError: no database\nTraceback"), told)
        worker = self.worker("print('loading'); import nothing_like_it\n")
        told = worker.run("f", [{}])
        self.assertIn("ModuleNotFoundError: No module named 'nothing_like_it'", told)
        self.assertIn("its output:\nloading", told)
        self.assertNotIn("<bpp-flow>", told)

    def test_a_module_with_a_name_of_pythons_own(self):
        worker = self.worker("")
        with open(os.path.join(worker.folder, "marshal.py"), "w", encoding="utf-8") as file:
            file.write("def f(row): pass\n")
        self.assertIn("rename the file", worker.run("f", [{}], module="marshal"))


class Process(Case):
    def test_init_runs_once(self):
        worker = self.worker(
            "n = 0\ndef init(step):\n    global n\n    n += step\n"
            "def f(row): return {'n': n}\ndef g(row): return {'n': n}"
        )
        init = ("m", "init", {"step": 2})
        self.assertEqual(worker.run("f", [{}], init=init)[0], {0: {"n": 2}})
        self.assertEqual(worker.run("g", [{}], init=init)[0], {0: {"n": 2}})

    def test_slot_names_the_item(self):
        worker = self.worker("import os\ndef f(row):\n    if row['x'] == 5: os.abort()\n    return {'y': 1}\n")
        done, _, begun = worker.run("f", [{"x": i} for i in range(10)])
        self.assertIsNone(begun)
        worker.process.wait()
        self.assertEqual(list(worker.slot[:2]), [6, 1])
        self.assertIn("Fatal Python error: Aborted", worker.captured())
        self.assertIn('m.py", line 3 in f', worker.captured())

    def test_prints_before_a_crash_are_there(self):
        worker = self.worker("import os\ndef f(row):\n    print('last words', end='')\n    os._exit(9)\n")
        worker.run("f", [{}])
        self.assertEqual((worker.process.wait(), worker.captured()), (9, "last words"))

    def test_stop_flag(self):
        worker = self.worker("import time\ndef f(row):\n    time.sleep(0.002)\n    return {}\n")
        worker.submit(worker.job("f"), [{}] * 2000)
        while worker.slot[0] in (0, PHASE) or worker.slot[0] < 10:
            time.sleep(0.001)
        worker.slot[2] = 1
        done, _, begun = worker.finish()
        self.assertTrue(10 <= begun < 2000)
        self.assertEqual(list(done), list(range(begun)))
        worker.slot[2] = 0
        worker.submit(worker.jobs, [{}])
        self.assertEqual(worker.finish()[2], 1)
        self.assertEqual(worker.slot[0], 0)

    def test_slow_items_are_timed_and_sent_alone(self):
        worker = self.worker("import time\ndef f(row): time.sleep(row['x'])\n")
        worker.submit(worker.job("f"), [{"x": 0}, {"x": 0.01}, {"x": 30}])
        reported, slow = 0, {}
        while reported < 2:
            kind, payload = worker.receive()
            self.assertEqual(kind, b"P")
            reported += struct.unpack_from("<QIII", payload)[2]
            slow.update(load(payload, 24)[0][0])
        self.assertGreaterEqual(slow[1], 10_000)

    def test_forks_of_an_item(self):
        worker = self.worker(
            "import multiprocessing, os\n"
            "def square(x): return x * x\n"
            "def pool(row):\n"
            "    with multiprocessing.get_context(row['how']).Pool(2) as p: return {'y': p.map(square, [1, 2, 3])}\n"
            "def stray(row):\n    pid = os.fork()\n    if pid: os.waitpid(pid, 0)\n    return {'pid': pid > 0}\n"
        )
        rows = [{"how": how} for how in ("fork", "spawn", "forkserver")]
        self.assertEqual(worker.run("pool", rows)[0], {i: {"y": [1, 4, 9]} for i in range(3)})
        self.assertEqual(worker.run("stray", [{}] * 3), ({i: {"pid": True} for i in range(3)}, {}, 3))

    def test_a_stray_child_that_raises(self):
        worker = self.worker(
            "import os\ndef f(row):\n    print('mine')\n    pid = os.fork()\n    if not pid: raise ValueError('child')\n"
            "    code = os.waitpid(pid, 0)[1]\n    raise KeyError(code)\n"
        )
        done, failed, begun = worker.run("f", [{}])
        self.assertEqual((done, begun, failed[0][1]), ({}, 1, "KeyError: 256"))
        self.assertTrue(failed[0][3].startswith("mine\nTraceback"), failed)

    def test_chunks_with_arguments_and_times(self):
        worker = self.worker("def f(rows, *, day, k): return [(r['t'] - day).days + k for r in rows]\n")
        day = [(1, "2024-01-0%d" % n) for n in range(1, 6)]
        job = worker.job("f", call="chunk", chunk_format="rows", args={"k": 10})
        args = [{"day": day[0]}, {"day": day[0]}, {"day": day[1]}, {"day": day[0]}]
        worker.submit(job, [{"t": t} for t in day[1:]], args=args, marks=[0, 1, 2, 3])
        self.assertEqual([r["value"] for r in worker.finish()[0].values()], [11, 12, 12, 14])

    def test_end_of_stream(self):
        worker = self.worker("import atexit\natexit.register(print, 'bye')\ndef f(row): pass\n")
        worker.run("f", [{}])
        worker.reader.close()
        worker.socket.close()
        self.assertEqual((worker.process.wait(10), worker.captured()), (0, ""))

    def test_lanes(self):
        worker = self.worker(
            "import threading\nbarrier = threading.Barrier(3)\n"
            "def f(row):\n    print('from', row['x']); barrier.wait(10)\n"
            "    if row['x'] == 1: raise ValueError('one')\n    return {'t': threading.current_thread().name}\n",
            lanes=3,
        )
        job = worker.job("f")
        for lane in range(3):
            worker.submit(job, [{"x": lane}], lane=lane)
        ended, failures = set(), []
        while len(ended) < 3:
            kind, payload = worker.receive()
            if kind == b"D":
                ended.add(struct.unpack("<QI", payload))
            elif b"ValueError: one" in payload:
                failures.append(payload)
        self.assertEqual(ended, {(1, 1), (2, 1), (3, 1)})
        self.assertEqual([b"from 1\n" in f and b"from 0" not in f for f in failures], [True])
        worker.send(b"Q")
        self.assertEqual(worker.process.wait(10), 0)


@contextlib.contextmanager
def asking(worker):
    """Asks for rows that wait, as bpp-flow does when none come."""
    over = threading.Event()

    def ask():
        while not over.wait(0.02):
            worker.process.send_signal(signal.SIGURG)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Yielding(Case):
    """A source's function."""

    def rows(self, source, function="f", **more):
        worker = self.worker(source)
        worker.want(worker.job(function, shape="many", **more))
        return worker.yielded()

    def test_rows_and_tables(self):
        source = "def f(n):\n    yield {'x': n}\n    yield 1\n    yield None\n    yield [{'x': 2}, 3]\n    yield (4, 5)"
        rows, bad, end = self.rows(source, args={"n": 0})
        self.assertEqual(rows, [{"x": 0}, {"value": 1}, {"value": None}, {"x": 2}, {"value": 3}, {"value": [4, 5]}])
        self.assertEqual((bad, end), ({}, None))

    def test_what_is_returned_is_rows(self):
        rows, _, end = self.rows("def f(): return [{'x': 1}, [2, 3]]")
        self.assertEqual((rows, end), ([{"x": 1}, {"value": [2, 3]}], None))
        self.assertIn("it returned None", self.rows("def f(): pass")[2])

    def test_a_row_that_cannot_be_kept(self):
        rows, bad, end = self.rows("def f():\n    yield {'x': 1}\n    yield {'x': object()}\n    yield {'x': 3}")
        self.assertEqual((rows, end), ([{"x": 1}, {"x": 3}], None))
        self.assertIn('column "x": a value of type object', bad[1])

    def test_an_exception_comes_after_the_rows_before_it(self):
        rows, _, end = self.rows("def f():\n    yield {'x': 1}\n    print('words')\n    raise KeyError('k')")
        self.assertEqual(rows, [{"x": 1}])
        self.assertTrue(end.startswith("m:f: KeyError: 'k'\nTraceback"), end)
        self.assertTrue(end.endswith("its output:\nwords"), end)
        self.assertNotIn("<bpp-flow>", end)

    def test_it_is_closed_when_no_more_is_wanted(self):
        source = (
            "import time\ndef f():\n    try:\n        yield {'x': 1}\n        yield {'x': 2}\n        time.sleep(100)\n"
            "    finally:\n        open('closed', 'w').close()\n"
        )
        worker = self.worker(source)
        worker.want(worker.job("f", shape="many"))
        rows = []
        with asking(worker):
            while len(rows) < 2:
                rows += worker.rows_of(worker.receive()[1], {})
        self.assertEqual(rows, [{"x": 1}, {"x": 2}])
        worker.process.send_signal(signal.SIGTERM)
        self.assertEqual(worker.process.wait(20), 0)
        self.assertTrue(os.path.exists(os.path.join(worker.folder, "closed")))


if __name__ == "__main__":
    unittest.main()
