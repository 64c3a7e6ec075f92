"""The file of a hidden final set: a random salt, then documents of every domain of the task.

JSON lines as `ml.data.write_documents` writes them; `source` names the domain. Without the salt whoever guesses the
text (a public benchmark) could test the guess against the committed root.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml.data import Block, DataError, Document, Holdout, Tokenizer, read_documents, write_documents
from ml.judge import is_enough
from ml.spec import JudgeSpec

SALT = "salt"
SALT_HEX_DIGITS = 64


def write_final_set(path: Path, documents: Mapping[str, Sequence[Document]], salt: bytes) -> None:
    """Documents by domain behind `salt`, 32 random bytes that are kept secret with the file."""
    assert len(salt) * 2 == SALT_HEX_DIGITS
    found = [Document(document.text, domain) for domain, part in sorted(documents.items()) for document in part]
    write_documents(path, [Document(salt.hex(), SALT), *found])


def read_final_set(path: Path, domains: Sequence[str], tokenizer: Tokenizer, judge_spec: JudgeSpec) -> Holdout:
    """The blocks of a revealed file. Raises DataError when it could not carry a figure in every domain."""
    documents = read_documents(path)
    if not documents or documents[0].source != SALT or not re.fullmatch(r"[0-9a-f]{64}", documents[0].text):
        raise DataError(f"{path} does not begin with a salt of {SALT_HEX_DIGITS} hex digits")
    by_domain: dict[str, list[Document]] = {domain: [] for domain in domains}
    for document in documents[1:]:
        if document.source not in by_domain:
            raise DataError(f"{path} has a document of domain {document.source!r}; the task has {', '.join(domains)}")
        by_domain[document.source].append(document)
    holdout = Holdout.from_documents(by_domain, tokenizer, judge_spec.block_tokens)
    for domain in domains:
        blocks: tuple[Block, ...] = holdout.blocks(domain)
        if not is_enough(blocks, judge_spec):
            found = len({block.document for block in blocks})
            raise DataError(
                f"{path} has {len(blocks)} blocks of {found} documents for domain {domain}; "
                f"{judge_spec.min_blocks} of {judge_spec.min_documents} are needed"
            )
    return holdout
