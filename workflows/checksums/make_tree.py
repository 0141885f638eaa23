#!/usr/bin/env python3
"""Makes a tree of small files to try the workflow on: ./make_tree.py data [--files N]; every tenth is a copy."""

import argparse
import random
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=60)
    options = parser.parse_args()
    dice = random.Random(1)
    content = b""
    for i in range(options.files):
        if i % 10 != 9:
            content = dice.randbytes(dice.randint(100, 20_000))
        path = options.folder / f"box{i % 7}" / f"shelf {i % 3}" / f"file{i:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"{options.files} files in {options.folder}/")


if __name__ == "__main__":
    main()
