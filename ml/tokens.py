"""The base's tokenizer by itself: seconds and hundreds of megabytes less than importing transformers.

For processes that only cut text into blocks; the tokens are those of the base's own `tokenizer.json`.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any


class BaseTokenizer:
    """`ml.data.Tokenizer` over a base's folder."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._folder = folder
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids))
        return text

    @cached_property
    def eos_token_id(self) -> int | None:
        """Of the token that `tokenizer_config.json` names; None when it names none."""
        path = self._folder / "tokenizer_config.json"
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token") if path.exists() else None
        text = named.get("content") if isinstance(named, dict) else named
        found: int | None = self._tokenizer.token_to_id(text) if text is not None else None
        return found
