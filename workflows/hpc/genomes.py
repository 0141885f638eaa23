"""Distances between genomes by the smallest hashes of their k-mers (MinHash, as Mash has it)."""

import hashlib
import heapq
import math

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def read_fasta(path):
    """The sequences of a file, joined by an N, which is in no k-mer."""
    with open(path) as file:
        records = file.read().upper().split(">")[1:]
    return "N".join("".join(record.splitlines()[1:]) for record in records)


def sketch(row, *, k, size):
    """The `size` smallest hashes of a genome's k-mers, each strand's taken for the other's."""
    sequence = read_fasta(row["path"])
    if len(sequence) < k:
        raise ValueError(f"{len(sequence)} bases are too few for k-mers of {k}")
    reverse = sequence.translate(COMPLEMENT)[::-1]
    hashes = set()
    for at in range(len(sequence) - k + 1):
        there, back = sequence[at : at + k], reverse[len(reverse) - k - at : len(reverse) - at]
        if "N" not in there:
            digest = hashlib.blake2b(min(there, back).encode(), digest_size=7).digest()
            hashes.add(int.from_bytes(digest, "big"))
    gc = (sequence.count("G") + sequence.count("C")) / len(sequence)
    return {"bases": len(sequence), "gc": round(gc, 4), "hashes": heapq.nsmallest(size, hashes)}


def distance(one, other, k):
    """The share of bases in which two genomes differ, as the shared part of their sketches lets expect."""
    union = sorted(one | other)[: max(len(one), len(other))]
    shared = sum(1 for value in union if value in one and value in other) / len(union)
    return 1.0 if shared == 0 else max(0.0, -math.log(2 * shared / (1 + shared)) / k)


_sketches = None


def as_sets(table):
    """The sketches by genome, as sets; made once in a worker."""
    global _sketches
    if _sketches is None:
        rows = table.to_pylist() if hasattr(table, "to_pylist") else table
        _sketches = {(row["species"], row["strain"]): set(row["hashes"]) for row in rows}
    return _sketches


def nearest(row, *, sketches, k):
    """The genome that is nearest to this one, and the nearest of another species."""
    all_sketches = as_sets(sketches)
    this = row["species"], row["strain"]
    found = sorted((distance(all_sketches[this], other, k), name) for name, other in all_sketches.items() if name != this)
    stranger = next((d for d, (species, _) in found if species != row["species"]), None)
    return {
        "nearest": "/".join(found[0][1]),
        "distance": round(found[0][0], 5),
        "same_species": found[0][1][0] == row["species"],
        "distance_to_others": None if stranger is None else round(stranger, 5),
    }


def summary(rows):
    """How alike the strains of a species are."""
    rows = list(rows)
    return {
        "strains": len(rows),
        "mean_distance": round(sum(row["distance"] for row in rows) / len(rows), 5),
        "misplaced": sum(not row["same_species"] for row in rows),
    }
