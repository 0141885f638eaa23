"""The functions of the quickstart pipeline: the standard library is all they need."""

import math
from pathlib import Path

HERE = Path(__file__).parent


def measure(row):
    """One cell: from pixels to micrometres, with the pixel size of its microscope."""
    pixel = float((HERE / "calibration" / f"{row['microscope']}.txt").read_text())
    area = row["area_px"] * pixel**2
    perimeter = row["perimeter_px"] * pixel
    return {
        "area_um2": round(area, 3),
        "perimeter_um": round(perimeter, 3),
        "circularity": round(4 * math.pi * area / perimeter**2, 4),
    }


def summary(rows):
    """One region: `rows` is an iterator of row dicts, so that a region may be larger than memory."""
    count = 0
    area = circularity = 0.0
    for row in rows:
        count += 1
        area += row["area_um2"]
        circularity += row["circularity"]
    return {"cells": count, "mean_area_um2": round(area / count, 2), "mean_circularity": round(circularity / count, 3)}
