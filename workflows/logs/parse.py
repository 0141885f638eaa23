"""Parses access logs in the common log format."""

import datetime
import gzip
import re

LINE = re.compile(r'(\S+) \S+ \S+ \[([^\]]+)\] "(\S+) (.*?)(?: HTTP/[\d.]+)?" (\d{3}) (\d+|-)')


def requests(row):
    """The lines of one file; one that is no request has the status None, and its text."""
    opener = gzip.open if row["path"].endswith(".gz") else open
    with opener(row["path"], "rt", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            match = LINE.match(line)
            if not match:
                yield {"line_number": number, "status": None, "text": line.rstrip("\n")}
                continue
            host, time, method, target, status, size = match.groups()
            when = datetime.datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z")
            yield {
                "line_number": number,
                "host": host,
                "time": when.isoformat(),
                "day": when.date().isoformat(),
                "method": method,
                "target": target,
                "status": int(status),
                "size": 0 if size == "-" else int(size),
            }


def total(rows):
    """One day and status."""
    requests = size = 0
    hosts = set()
    for row in rows:
        requests += 1
        size += row["size"]
        hosts.add(row["host"])
    return {"requests": requests, "bytes": size, "hosts": len(hosts)}
