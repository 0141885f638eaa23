"""The last step of the import: does the table hold what the files had?"""

import json
import subprocess


def check(rows, *, database, table):
    """Counts the loaded days in the table; raises where a day's count is not its file's."""
    expected = {row["day"]: row["rows"] for row in rows}
    query = f"select json_object_agg(date, n) from (select date, count(*) n from {table} group by date) days"
    psql = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", f"--dbname={database}", f"--command={query}"]
    answer = subprocess.run(psql, check=True, capture_output=True, text=True).stdout
    found = json.loads(answer) if answer.strip() else {}
    wrong = {day: (n, found.get(day, 0)) for day, n in expected.items() if found.get(day, 0) != n}
    if wrong:
        raise ValueError(f"{len(wrong)} days differ (file, table): {dict(list(wrong.items())[:5])}")
    return {"days": len(expected), "rows": sum(expected.values()), "days_in_table": len(found)}
