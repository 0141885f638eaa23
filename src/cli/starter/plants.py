"""The functions of pipeline.yaml: plain Python, nothing to import from bpp-flow."""


def growth(row, *, days):
    """One row as a dict, then `args` as keywords. The columns returned are added to the row."""
    grown = row["height_end"] - row["height_start"]
    return {"grown": grown, "rate": round(grown / days, 3)}


def by_bed(rows):
    """All rows of a group, one after the other: they need not fit into memory."""
    count = 0
    total = 0.0
    for row in rows:
        count += 1
        total += row["rate"]
    return {"plants": count, "mean_rate": round(total / count, 3)}
