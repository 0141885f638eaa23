#!/usr/bin/env python3
"""Makes text files to try the workflow on: ./make_texts.py data [--files N]."""

import argparse
import random
from pathlib import Path

WORDS = "axon branch cell dendrite electrode field glia hub image junction kernel layer membrane neuron".split()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=24)
    options = parser.parse_args()
    dice = random.Random(2)
    for i in range(options.files):
        lines = (" ".join(dice.choices(WORDS, k=12)) for _ in range(dice.randint(50, 2_000)))
        path = options.folder / f"part{i % 4}" / f"text {i:04}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    print(f"{options.files} files in {options.folder}/")


if __name__ == "__main__":
    main()
