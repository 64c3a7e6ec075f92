"""Private data: documents from files, a permanent split, blocks of tokens. Imports no torch.

    files -> documents (exact duplicates dropped) -> clusters of near-duplicates -> train | holdout -> blocks

A part of the split takes whole clusters, so that no holdout document has a twin in training.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ml.near_duplicates import find_clusters

MAX_FILE_BYTES = 2**30
MAX_LINE_BYTES = 2**26
MIN_BLOCK_TOKENS = 16
"""A shorter rest of a document is dropped: it would be scored with almost no context."""
PPM = 1_000_000
TRAIN, HOLDOUT = "train", "holdout"


class DataError(ValueError):
    """A data file that cannot be used; the sentence names the file, the line and what to do."""


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    @property
    def eos_token_id(self) -> int | None: ...
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True)
class Document:
    text: str
    source: str = ""
    """Where it came from, for people: a file and line, a function's name."""

    @cached_property
    def id(self) -> str:
        """Hex sha256 of the text: the same document has the same id on every machine."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Block:
    """Consecutive tokens of one document, which it names by id."""

    document: str
    tokens: tuple[int, ...]


def read_documents(path: Path) -> list[Document]:
    """Documents of a .txt file (one), a .jsonl or .jsonl.gz file (one a line: `{"text": ...}`), or a folder of these.

    Exact duplicates are dropped, the first is kept. Raises DataError.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: give a .txt or .jsonl file, or a folder of them")
    files = sorted(file for file in path.rglob("*") if _is_data(file)) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .txt, .jsonl or .jsonl.gz file")
    documents: dict[str, Document] = {}
    for file in files:
        for document in _read_file(file):
            documents.setdefault(document.id, document)
    return list(documents.values())


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    """Write a .jsonl file that `read_documents` reads back."""
    lines = (json.dumps({"source": d.source, "text": d.text}, ensure_ascii=False) + "\n" for d in documents)
    path.write_text("".join(lines), encoding="utf-8")


def read_domains(folder: Path) -> dict[str, list[Document]]:
    """Documents by domain of a participant's folder: `<domain>.txt`, `.jsonl` or `.jsonl.gz`, or a folder of these.

    Raises DataError, also when one document stands in two domains.
    """
    found: dict[str, list[Document]] = {}
    domain_of: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not (path.is_dir() or _is_data(path)):
            continue
        domain = path.name.split(".")[0]
        if domain in found:
            raise DataError(f"{folder} has two entries for domain {domain}: put its files into one folder {domain}/")
        found[domain] = read_documents(path)
        for document in found[domain]:
            other = domain_of.setdefault(document.id, domain)
            if other != domain:
                raise DataError(f"{document.source} stands in domains {other} and {domain}: delete one of them")
    if not found:
        raise DataError(f"{folder} holds no data: put one file per domain into it, such as {folder / 'code.jsonl'}")
    return found


def split_documents(
    documents: Sequence[Document], seed: str, holdout_ppm: int, previous: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Document id -> TRAIN or HOLDOUT, by sha256 of the split's seed and the near-duplicate cluster's id.

    The split is for ever: pass the last result as `previous` when documents were added. A new document joins the part
    of its cluster; one that would bridge both parts is in neither (absent from the result).
    """
    parts = dict(previous or {})
    for cluster, members in sorted(find_clusters({d.id: d.text for d in documents}).items()):
        known = {parts[member] for member in members if member in parts}
        if len(known) > 1:
            continue
        part = known.pop() if known else _draw_part(seed, cluster, holdout_ppm)
        parts |= dict.fromkeys(members, part)
    return {document.id: parts[document.id] for document in documents if document.id in parts}


def make_blocks(documents: Iterable[Document], tokenizer: Tokenizer, block_tokens: int) -> list[Block]:
    """Every document's tokens and its end token, cut into consecutive blocks that never cross documents."""
    if block_tokens < MIN_BLOCK_TOKENS:
        raise ValueError(f"blocks of {block_tokens} tokens are shorter than {MIN_BLOCK_TOKENS}")
    blocks = []
    for document in documents:
        tokens = list(tokenizer.encode(document.text, add_special_tokens=False))
        if tokenizer.eos_token_id is not None:
            tokens.append(tokenizer.eos_token_id)
        for start in range(0, len(tokens), block_tokens):
            piece = tokens[start : start + block_tokens]
            if len(piece) >= MIN_BLOCK_TOKENS:
                blocks.append(Block(document.id, tuple(piece)))
    return blocks


class Holdout:
    """A judge's private blocks by domain. Their order is fixed: the judge commits to a Merkle root over `leaves`."""

    def __init__(self, blocks: Mapping[str, Sequence[Block]]) -> None:
        self._blocks = {domain: tuple(blocks[domain]) for domain in sorted(blocks)}

    @classmethod
    def from_documents(
        cls, documents: Mapping[str, Sequence[Document]], tokenizer: Tokenizer, block_tokens: int
    ) -> "Holdout":
        return cls({domain: make_blocks(found, tokenizer, block_tokens) for domain, found in documents.items()})

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self._blocks)

    def blocks(self, domain: str) -> tuple[Block, ...]:
        return self._blocks[domain]

    def leaves(self, domain: str) -> list[bytes]:
        """One sha256 per block, over domain, document id and token ids, each with its length."""
        return [_hash_block(domain, block) for block in self._blocks[domain]]

    def draw(self, domain: str, seed: bytes, count: int) -> list[Block]:
        """At most `count` blocks chosen by `seed` (the beacon), in holdout order.

        Every document gives one block before any gives a second: errors are clustered by document, so many documents
        with few blocks say more than few documents with many.
        """
        by_document: dict[str, list[tuple[bytes, int]]] = {}
        for index, block in enumerate(self._blocks[domain]):
            rank = hashlib.sha256(seed + index.to_bytes(8, "big")).digest()
            by_document.setdefault(block.document, []).append((rank, index))
        turns = [(turn, *pick) for picks in by_document.values() for turn, pick in enumerate(sorted(picks))]
        chosen = sorted(index for _, _, index in sorted(turns)[:count])
        return [self._blocks[domain][index] for index in chosen]


def find_shared_documents(parts: Mapping[str, Iterable[Block]]) -> dict[str, list[str]]:
    """Document id -> the parts that hold blocks of it, for each document in more than one part: empty proves none."""
    holders: dict[str, set[str]] = {}
    for part, blocks in parts.items():
        for block in blocks:
            holders.setdefault(block.document, set()).add(part)
    return {document: sorted(found) for document, found in sorted(holders.items()) if len(found) > 1}


def _is_data(path: Path) -> bool:
    return path.is_file() and path.name.endswith((".txt", ".jsonl", ".jsonl.gz"))


def _read_file(path: Path) -> Iterator[Document]:
    if not _is_data(path):
        raise DataError(f"{path} is not a .txt, .jsonl or .jsonl.gz file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path} of {path.stat().st_size} bytes exceeds {MAX_FILE_BYTES}: split it into several files")
    if path.suffix == ".txt":
        text = _decode(path.read_bytes(), f"{path}")
        if text.strip():
            yield Document(text, path.name)
        return
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        number = 0
        try:
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if line.strip():
                    yield _parse_line(line, path, number)
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataError(f"{path} is damaged after line {number}: {error}; fetch it again") from None


def _parse_line(line: bytes, path: Path, number: int) -> Document:
    where = f"{path} line {number}"
    if len(line) == MAX_LINE_BYTES:
        raise DataError(f"{where} is longer than {MAX_LINE_BYTES} bytes: split the document")
    try:
        record = json.loads(_decode(line, where))
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON ({error.msg}, column {error.colno}): repair or delete the line") from None
    except RecursionError:
        raise DataError(f"{where} is nested too deeply: delete the line") from None
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise DataError(f'{where} lacks a text: each line must be an object with a non-empty string, {{"text": "..."}}')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where} holds half a surrogate pair: repair the text's \\u escapes") from None
    source = record.get("source")
    return Document(text, source if isinstance(source, str) else f"{path.name}:{number}")


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 at byte {error.start}: convert the file to UTF-8") from None


def _draw_part(seed: str, cluster: str, holdout_ppm: int) -> str:
    digest = hashlib.sha256(f"flockchain/split/1 {seed} {cluster}".encode()).digest()
    return HOLDOUT if int.from_bytes(digest, "big") % PPM < holdout_ppm else TRAIN


def _hash_block(domain: str, block: Block) -> bytes:
    fields = (domain.encode(), block.document.encode(), b"".join(token.to_bytes(4, "big") for token in block.tokens))
    prefixed = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return hashlib.sha256(b"flockchain/holdout-block/1" + prefixed).digest()
