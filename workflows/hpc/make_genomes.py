#!/usr/bin/env python3
"""Makes genomes to compare: data/SPECIES/STRAIN.fa, the strains of a species being alike.

    ./make_genomes.py data --species 6 --strains 8 --length 40000
"""

import argparse
import random
from pathlib import Path

BASES = "ACGT"


def mutated(genome, rate, rng):
    """A copy in which this share of the bases is another one."""
    bases = bytearray(genome)
    for _ in range(int(len(bases) * rate)):
        bases[rng.randrange(len(bases))] = ord(rng.choice(BASES))
    return bytes(bases)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--species", type=int, default=6)
    parser.add_argument("--strains", type=int, default=8)
    parser.add_argument("--length", type=int, default=40_000, help="bases of a genome")
    options = parser.parse_args()
    rng = random.Random(1)
    for species in range(1, options.species + 1):
        ancestor = "".join(rng.choices(BASES, k=options.length)).encode()
        folder = options.folder / f"species{species:02}"
        folder.mkdir(parents=True, exist_ok=True)
        for strain in range(1, options.strains + 1):
            genome = mutated(ancestor, rng.uniform(0.002, 0.03), rng).decode()
            lines = [genome[at : at + 80] for at in range(0, len(genome), 80)]
            (folder / f"strain{strain:02}.fa").write_text(f">species{species:02}_strain{strain:02}\n" + "\n".join(lines) + "\n")
    print(f"{options.species * options.strains} genomes in {options.folder}/")


if __name__ == "__main__":
    main()
