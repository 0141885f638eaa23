#!/usr/bin/env python3
"""Makes per-day price files `prices-YYYY-MM-DD.csv` of `code,date,value`: the same numbers give the same files.

    ./make_prices.py data                        20 days x 500 codes
    ./make_prices.py data --rows 5000000         250 days x 20,000 codes
"""

import argparse
import datetime
import random
from pathlib import Path


def trading_days(count, start=datetime.date(2024, 1, 1)):
    """The first `count` weekdays from `start`."""
    day = start
    while count:
        if day.weekday() < 5:
            yield day
            count -= 1
        day += datetime.timedelta(days=1)


def code(number):
    """Four letters: AAAA, AAAB, …"""
    letters = ""
    for _ in range(4):
        number, rest = divmod(number, 26)
        letters = chr(65 + rest) + letters
    return letters


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=20)
    parser.add_argument("--codes", type=int, default=500, help="rows per file (at most 456,976)")
    parser.add_argument("--rows", type=int, help="about this many rows in all, in 250 files")
    parser.add_argument("--bad", type=int, default=0, help="so many files get a line that is no price")
    options = parser.parse_args()
    if options.rows:
        options.days, options.codes = 250, max(1, options.rows // 250)
    options.folder.mkdir(parents=True, exist_ok=True)
    dice = random.Random(options.codes)
    codes = [code(number) for number in range(options.codes)]
    prices = [dice.uniform(5, 500) for _ in codes]
    days = list(trading_days(options.days))
    bad = set(dice.sample(days, options.bad))
    for day in days:
        prices = [price * (1 + dice.uniform(-0.02, 0.0205)) for price in prices]
        lines = [f"{name},{day},{price:.4f}\n" for name, price in zip(codes, prices)]
        if day in bad:
            lines[len(lines) // 2] = f"{codes[len(lines) // 2]},{day},n/a\n"
        path = options.folder / f"prices-{day}.csv"
        path.write_text("code,date,value\n" + "".join(lines))
    print(f"{len(days)} files, {len(days) * len(codes)} rows in {options.folder}/")


if __name__ == "__main__":
    main()
