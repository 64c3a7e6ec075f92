"""One file per transaction type. A new type is a new file here; nothing else changes.

Each sibling module defines
    KIND: str                     the name on the wire, for example ``submit-adapter``
    Body                          frozen struct with the type's fields
    check(body, tx) -> None       stateless checks; raises `Refused`
    apply(context, tx, body)      all refusals first, then the writes; raises `Refused`
and may define
    is_due(state, tx, body) -> bool   whether this is the sender's one due transaction of the phase, which is free
"""

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from flockchain.codec import decode
from flockchain.errors import Refused
from flockchain.execution.context import Context
from flockchain.execution.state import State
from flockchain.types.tx import Tx


@dataclass(frozen=True, slots=True)
class TxType:
    """A registered transaction type."""

    kind: str
    body: type[Any]
    module: ModuleType

    def decode_body(self, tx: Tx) -> Any:
        """The typed body after its stateless checks; raises `Refused`."""
        body = decode(self.body, tx.body)
        self.module.check(body, tx)
        return body

    def apply(self, context: Context, tx: Tx, body: Any) -> None:
        self.module.apply(context, tx, body)

    def is_due(self, state: State, tx: Tx, body: Any) -> bool:
        """Whether the sender owes this transaction now: then it is free and has the reserved lane."""
        predicate = getattr(self.module, "is_due", None)
        return predicate is not None and bool(predicate(state, tx, body))


def _load() -> dict[str, TxType]:
    types: dict[str, TxType] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{name}")
        assert name.replace("_", "-") == module.KIND, f"{name}.py must hold the kind {name.replace('_', '-')}"
        types[module.KIND] = TxType(module.KIND, module.Body, module)
    return types


TYPES: dict[str, TxType] = _load()


def get_type(kind: str) -> TxType:
    """The type of that name; raises `Refused` and names those that exist."""
    if kind not in TYPES:
        raise Refused("unknown-kind", f"no transaction type {kind!r}; there are: {', '.join(TYPES)}")
    return TYPES[kind]
