"""Reads the sweep's Parquet files with pandas (pip install pandas pyarrow)."""

from pathlib import Path

import pandas as pd

out = Path(__file__).parent / "out"
runs = pd.read_parquet(out / "simulate.parquet")
worst = pd.read_parquet(out / "worst.parquet")
print(f"{len(runs)} simulations, {len(worst)} groups; column types: {dict(worst.dtypes.astype(str))}")
print(worst.pivot(index="days_ill", columns="scenario", values="peak"))
