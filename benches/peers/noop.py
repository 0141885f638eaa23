"""The mapped function of the races, and the peers that map it by hand."""

import csv
import multiprocessing
import sqlite3
import sys


def double(row):
    """The least that a function can do."""
    return {"y": row["x"] * 2}


def typed(row):
    """The same over a row of text, as csv.DictReader gives it."""
    return {"y": float(row["x"]) * 2}


def numbered(pair):
    """The same, with the row's number, so that a result can be kept under it."""
    return pair[0], typed(pair[1])["y"]


def pool(path, cores):
    """DictReader and Pool.imap_unordered; nothing is kept."""
    count = 0
    with open(path, newline="") as file, multiprocessing.Pool(cores) as workers:
        for _ in workers.imap_unordered(typed, csv.DictReader(file), chunksize=1000):
            count += 1
    return count


def pool_sqlite(path, cores, database):
    """The same, with a transaction per 1000 results: the least that a careful user writes."""
    con = sqlite3.connect(database, isolation_level=None)
    con.execute("pragma journal_mode = wal")
    con.execute("create table results (row integer primary key, y real)")
    count, part = 0, []

    def commit():
        con.execute("begin")
        con.executemany("insert into results values (?, ?)", part)
        con.execute("commit")
        part.clear()

    with open(path, newline="") as file, multiprocessing.Pool(cores) as workers:
        for result in workers.imap_unordered(numbered, enumerate(csv.DictReader(file)), chunksize=1000):
            part.append(result)
            count += 1
            if len(part) == 1000:
                commit()
    commit()
    con.close()
    return count


if __name__ == "__main__":
    peer, path, cores, *rest = sys.argv[1:]
    print({"pool": pool, "pool_sqlite": pool_sqlite}[peer](path, int(cores), *rest))
