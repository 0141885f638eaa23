"""Price files into SQLite with the standard library."""

import contextlib
import csv
import sqlite3
from pathlib import Path


@contextlib.contextmanager
def connection(database):
    """A connection that waits up to five minutes for its turn to write; transactions are written out by hand."""
    con = sqlite3.connect(database, timeout=300, isolation_level=None)
    try:
        con.execute("pragma synchronous = normal")
        yield con
    finally:
        con.close()


def create(*, database, table):
    """The table, and write-ahead logging: readers never wait."""
    Path(database).parent.mkdir(parents=True, exist_ok=True)
    with connection(database) as con:
        con.execute("pragma journal_mode = wal")
        con.execute(
            f"create table if not exists {table} "
            "(date text, code text, value real not null, primary key (date, code)) without rowid"
        )


def load(row, *, database, table):
    """One file, in one transaction: deletes the day's rows, then inserts the file's."""
    with open(row["path"], newline="") as file:
        prices = [(p["date"], p["code"], float(p["value"])) for p in csv.DictReader(file)]
    strange = {date for date, _, _ in prices} - {row["day"]}
    if strange:
        raise ValueError(f"{row['path']} holds prices of other days: {sorted(strange)[:3]}")
    with connection(database) as con:
        con.execute("begin immediate")
        try:
            con.execute(f"delete from {table} where date = ?", (row["day"],))
            con.executemany(f"insert into {table} values (?, ?, ?)", prices)
            con.execute("commit")
        except BaseException:
            con.execute("rollback")
            raise
    return {"rows": len(prices)}


def check(rows, *, database, table):
    """Counts the loaded days in the table; raises where a day's count is not its file's."""
    expected = {row["day"]: row["rows"] for row in rows}
    with connection(database) as con:
        found = dict(con.execute(f"select date, count(*) from {table} group by date"))
    wrong = {day: (n, found.get(day, 0)) for day, n in expected.items() if found.get(day, 0) != n}
    if wrong:
        raise ValueError(f"{len(wrong)} days differ (file, table): {dict(list(wrong.items())[:5])}")
    return {"days": len(expected), "rows": sum(expected.values()), "days_in_table": len(found)}
