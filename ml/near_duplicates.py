"""Clusters of near-duplicate documents: MinHash with locality-sensitive hashing, deterministic, no torch.

Broder, "On the resemblance and containment of documents" (1997): the share of equal minima under random hash
functions estimates the Jaccard similarity of two sets of shingles. Bands of minima find candidate pairs without
comparing all (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4); each candidate pair is then
compared exactly.
"""

import hashlib
import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

SHINGLE_WORDS = 5
BANDS, ROWS = 32, 4
"""A pair of similarity s becomes a candidate with probability 1 - (1 - s^4)^32: 0.87 at 0.5, 0.9996 at 0.7."""
THRESHOLD = 0.5
"""Jaccard similarity of 5-word shingles from which two documents count as near-duplicates."""
MERSENNE = (1 << 61) - 1
WORD = re.compile(r"\w+")

Hashes = npt.NDArray[np.uint64]


def find_clusters(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Cluster id (its smallest member) -> sorted members, for texts by document id; most clusters have one member."""
    shingles = {document: _hash_shingles(text) for document, text in sorted(texts.items())}
    parent = {document: document for document in shingles}

    def root_of(document: str) -> str:
        while parent[document] != document:
            parent[document] = parent[parent[document]]
            document = parent[document]
        return document

    for bucket in _find_buckets(shingles):
        for at, left in enumerate(bucket):
            for right in bucket[at + 1 :]:
                roots = sorted((root_of(left), root_of(right)))
                if roots[0] != roots[1] and compute_jaccard(shingles[left], shingles[right]) >= THRESHOLD:
                    parent[roots[1]] = roots[0]
    clusters: dict[str, list[str]] = {}
    for document in shingles:
        clusters.setdefault(root_of(document), []).append(document)
    return clusters


def compute_jaccard(left: Hashes, right: Hashes) -> float:
    """|intersection| / |union| of two sorted sets."""
    common = np.intersect1d(left, right, assume_unique=True).size
    return common / (left.size + right.size - common)


def _hash_shingles(text: str) -> Hashes:
    """Sorted distinct 61-bit hashes of all runs of five words, case and punctuation aside; at least one."""
    words = WORD.findall(text.lower()) or [text]
    runs = {" ".join(words[at : at + SHINGLE_WORDS]) for at in range(max(1, len(words) - SHINGLE_WORDS + 1))}
    values = {int.from_bytes(hashlib.sha256(run.encode()).digest()[:8], "big") % MERSENNE for run in runs}
    return np.array(sorted(values), np.uint64)


def _find_buckets(shingles: Mapping[str, Hashes]) -> list[list[str]]:
    """Documents that agree in all minima of one band, in sorted order."""
    buckets: dict[bytes, list[str]] = {}
    for document, values in shingles.items():
        minima = _compute_minima(values)
        for band in range(BANDS):
            key = bytes([band]) + minima[band * ROWS : (band + 1) * ROWS].tobytes()
            buckets.setdefault(key, []).append(document)
    return [buckets[key] for key in sorted(buckets) if len(buckets[key]) > 1]


def _compute_minima(values: Hashes) -> Hashes:
    """The minimum of each hash function over a set. x -> (x xor key) * odd, mod 2^64: mixed well by multiplication."""
    mixed = (values[None, :] ^ _KEYS[:, None]) * _ODDS[:, None]
    minima: Hashes = (mixed ^ (mixed >> np.uint64(32))).min(axis=1)
    return minima


def _draw_constants(purpose: str) -> Hashes:
    stream = hashlib.shake_256(f"flockchain/minhash/1/{purpose}".encode()).digest(8 * BANDS * ROWS)
    return np.frombuffer(stream, "<u8").astype(np.uint64)


_KEYS = _draw_constants("keys")
_ODDS = _draw_constants("odds") | np.uint64(1)
