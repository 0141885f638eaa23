"""numpy, pandas and pyarrow in a worker; skipped where they are not installed."""

import math
import unittest

from test_worker import Case

try:
    import numpy
    import pandas
    import pyarrow
except ImportError:
    numpy = pandas = pyarrow = None


@unittest.skipUnless(pyarrow, "numpy, pandas and pyarrow are needed")
class Science(Case):
    def values(self, *expressions):
        source = (
            "import datetime as dt, decimal\nimport numpy as np, pandas as pd, pyarrow as pa\n"
            "out = [%s]\ndef f(row): return {'y': out[row['x']]()}\n" % ", ".join("lambda: " + e for e in expressions)
        )
        done, failed, _ = self.one(source, [{"x": i} for i in range(len(expressions))])
        return [done[i]["y"] if i in done else failed[i][:2] for i in range(len(expressions))]

    def test_scalars(self):
        got = self.values(
            "np.float64(0.1)", "np.int64(5)", "np.uint64(2**64-1)", "np.bool_(True)", "np.str_('a')", "np.bytes_(b'a')",
            "np.float32(0.1)", "pd.NA", "pd.NaT", "np.datetime64('NaT')", "pa.scalar(5)",
        )
        self.assertEqual(got, [0.1, 5, 2**64 - 1, True, "a", b"a", float(numpy.float32(0.1)), None, None, None, 5])
        kinds = [float, int, int, bool, str, bytes, float]
        self.assertEqual([type(v) for v in got[:7]], kinds)

    def test_times(self):
        got = self.values(
            "np.datetime64('2024-01-02')", "np.datetime64('2024-01-02T03:04:05.678', 'ns')",
            "np.timedelta64(1500, 'ms')", "pd.Timestamp('2024-01-02T03:04:05', tz='UTC')", "pd.Timedelta('1.5s')",
            "np.array(['2024-01-02', 'NaT'], 'M8[D]')", "pd.Series(pd.to_datetime(['2024-01-02', None]))",
        )
        self.assertEqual(got, [
            (1, "2024-01-02"), (0, "2024-01-02T03:04:05.678000"), (3, "1.5"), (0, "2024-01-02T03:04:05+00:00"),
            (3, "1.5"), [(1, "2024-01-02"), None], [(0, "2024-01-02T00:00:00"), None],
        ])
        too_fine = self.values(
            "np.datetime64('2024-01-02T03:04:05.000000001', 'ns')", "pd.Timestamp(1)", "pd.Timedelta(1)",
            "np.timedelta64(5)", "np.datetime64('30000-01-01')",
        )
        self.assertEqual({kind for kind, _ in too_fine}, {"output"}, too_fine)

    def test_arrays_and_frames(self):
        got = self.values(
            "np.arange(4).reshape(2, 2)", "np.array([0.5, np.nan])", "np.array(3)", "np.array(['a'], dtype=object)",
            "pd.Series([1, None], dtype='Int64')", "pd.Series([1.5])", "pd.DataFrame({'a': [1, 2], 'b': ['x', None]})",
            "pa.array([1, None])", "pd.Categorical(['a', 'b'])", "np.ma.array([1, 2], mask=[0, 1])",
        )
        self.assertTrue(math.isnan(got[1].pop()))
        self.assertEqual(got, [
            [[0, 1], [2, 3]], [0.5], 3, ["a"], [1, None], [1.5], got[6], [1, None], ["a", "b"], [1, None],
        ])
        self.assertEqual([row["a"] for row in got[6]], [1, 2])
        refused = self.values(
            "np.array([1j])", "np.complex128(1)", "np.array([(1, 2)], dtype='i4,i4')", "pd.Interval(0, 1)",
            "pd.Period('2024')", "pd.DataFrame({1: [1]})", "np.longdouble('0.1')", "pa.scalar(decimal.Decimal(1))",
        )
        self.assertEqual({kind for kind, _ in refused}, {"output"}, refused)

    def test_chunks_as_frames_keep_every_cell(self):
        cells = [1, 2.5, None, True, "a", b"b", 1 << 70, [1, 2.5, None], {"k": 1}, float("nan"), -0.0]
        for chunk_format in ("pandas", "arrow"):
            for column in ("df['x']", "df.rename(columns={'x': 'y'})", "{'y': list(df['x'])}"):
                if chunk_format == "arrow":
                    column = {"df['x']": "df['x']"}.get(column, "df.rename_columns(['y', 'i'])")
                worker = self.worker("def f(df): return %s\n" % column)
                rows = [{"x": cell, "i": i} for i, cell in enumerate(cells)]
                done, failed, begun = worker.run("f", rows, call="chunk", chunk_format=chunk_format)
                name = "value" if column == "df['x']" else "y"
                for i, cell in enumerate(cells):
                    if i in failed:
                        self.assertEqual((chunk_format, failed[i][0]), ("arrow", "input"), failed[i])
                        continue
                    self.assertEqual(repr(done[i][name]), repr(cell), (chunk_format, column))
                self.assertEqual(sorted(failed), [6, 7] if chunk_format == "arrow" else [], failed)

    def test_typed_where_all_agree(self):
        worker = self.worker("def f(df): return [{'y': [str(t) for t in df.dtypes]}] * len(df)")
        rows = [{"a": 1, "b": 0.5, "c": True, "d": "x", "e": 1}, {"a": 2, "b": 0.5, "c": True, "d": "x", "e": None}]
        done, _, _ = worker.run("f", rows, call="chunk", chunk_format="pandas")
        self.assertEqual(done[0]["y"], ["int64", "float64", "bool", "object", "object"])

    def test_one_frame_for_a_group(self):
        worker = self.worker(
            "def f(df): return df.groupby('k', as_index=False)['x'].sum()\n"
            "def g(table): return table.group_by('k').aggregate([('x', 'sum')])\n"
        )
        batches = [[{"k": "a", "x": 1}], [{"k": "a", "x": 2}, {"k": "b", "x": 5}]]
        job = worker.job("f", call="chunk", shape="many", chunk_format="pandas")
        self.assertEqual(worker.group(job, batches)[0], {0: [{"k": "a", "x": 3}, {"k": "b", "x": 5}]})
        job = worker.job("g", call="chunk", shape="many", chunk_format="arrow")
        self.assertEqual(worker.group(job, batches)[0], {0: [{"k": "a", "x_sum": 3}, {"k": "b", "x_sum": 5}]})

    def test_filters_and_values(self):
        worker = self.worker("def f(df): return df['x'] > 1\ndef g(df): return df['x'].to_numpy() * 2.0\n")
        rows = [{"x": 1}, {"x": 2}]
        done, _, _ = worker.run("f", rows, call="chunk", chunk_format="pandas", shape="keep")
        self.assertEqual(done, {0: False, 1: True})
        done, _, _ = worker.run("g", rows, call="chunk", chunk_format="pandas")
        self.assertEqual(done, {0: {"value": 2.0}, 1: {"value": 4.0}})

    def test_fields_of_an_importing_module_only(self):
        source = "import numpy as np\ndef f(row): return {'y': np.float64(row['x']), 'z': np.zeros(2)}\n"
        done, _, _ = self.one(source, [{"x": 1}])
        self.assertEqual(done, {0: {"y": 1.0, "z": [0.0, 0.0]}})


if __name__ == "__main__":
    unittest.main()
