#!/usr/bin/env python3
"""Makes access logs to try the workflow on: ./make_logs.py data [--days N] [--lines N]; about one line in 500 is cut."""

import argparse
import datetime
import gzip
import random
from pathlib import Path


def line(dice, day):
    """One request of that day."""
    time = datetime.datetime.combine(day, datetime.time()) + datetime.timedelta(seconds=dice.randrange(86_400))
    host = f"10.0.{dice.randrange(4)}.{dice.randrange(250)}"
    target = dice.choice(["/", "/about", "/data/cells.csv", "/search?q=axon", "/img/logo.png"])
    status = dice.choices([200, 304, 404, 500], [80, 12, 7, 1])[0]
    size = dice.randrange(200, 40_000) if status == 200 else "-"
    return f'{host} - - [{time:%d/%b/%Y:%H:%M:%S} +0000] "GET {target} HTTP/1.1" {status} {size}'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--lines", type=int, default=2_000, help="per day")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    dice = random.Random(4)
    for n in range(options.days):
        day = datetime.date(2024, 3, 1) + datetime.timedelta(days=n)
        lines = [line(dice, day) for _ in range(options.lines)]
        for i in range(len(lines)):
            if dice.randrange(500) == 0:
                lines[i] = lines[i][: dice.randrange(40)]
        text = ("\n".join(lines) + "\n").encode()
        path = options.folder / f"access-{day}.log"
        if n % 2:
            path.with_suffix(".log.gz").write_bytes(gzip.compress(text, mtime=0))
        else:
            path.write_bytes(text)
    print(f"{options.days} files, {options.days * options.lines} lines in {options.folder}/")


if __name__ == "__main__":
    main()
