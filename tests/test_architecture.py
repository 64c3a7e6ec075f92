"""Imports point down, pure rooms stay pure, and the chain runs without torch (docs/architecture.md)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

GROUND = {
    "flockchain",  # version constants only
    "flockchain.types",
    "flockchain.codec",
    "flockchain.crypto",
    "flockchain.merkle",
    "flockchain.params",
    "flockchain.errors",
    "flockchain.files",
    "flockchain.chunks",
    "flockchain.rotation",
    "flockchain.state_tree",
    "flockchain.state_chunks",
    "flockchain.genesis",
}
"""Modules that every room of the chain may import; among themselves they import freely."""

MAY_IMPORT: dict[str, set[str]] = {
    "flockchain.consensus": set(),
    "flockchain.execution": GROUND | {"flockchain.txs"},
    "flockchain.txs": GROUND | {"flockchain.execution"},
    "flockchain.store": GROUND,
    "flockchain.node": GROUND
    | {
        "flockchain.consensus",
        "flockchain.execution",
        "flockchain.txs",
        "flockchain.store",
        "flockchain.keystore",
        "flockchain.light",
        "api",
    },
    "flockchain.light": GROUND,
    "flockchain.keystore": GROUND,
    "flockchain.client": GROUND | {"flockchain.keystore", "flockchain.txs"},
    "flockchain.workers": GROUND | {"flockchain.client", "flockchain.keystore", "flockchain.txs", "ml"},
    "flockchain.verify": GROUND
    | {"flockchain.store", "flockchain.execution", "flockchain.txs", "flockchain.client", "ml"},
    "api": GROUND | {"flockchain.store", "flockchain.txs"},
    "ml": set(),
    "ml.lab": GROUND | {"flockchain.execution", "flockchain.txs", "flockchain.workers", "ml"},
}
"""Room -> what it may import beside itself. `flockchain.cli` stands at the top and may import all of them."""

PURE_ROOMS = ("flockchain.consensus", "flockchain.execution", "flockchain.txs")
IMPURE_MODULES = {"time", "random", "os", "socket", "asyncio", "sqlite3", "secrets", "datetime", "threading", "uuid"}


def python_files(package: str) -> Iterator[tuple[str, Path]]:
    """(dotted module name, path) of every file of a top-level package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def room_of(module: str) -> str | None:
    rooms = [room for room in MAY_IMPORT if module == room or module.startswith(room + ".")]
    return max(rooms, key=len, default=None)


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def is_within(module: str, allowed: set[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in allowed if name != "flockchain") or (
        module == "flockchain"
        or module.startswith("flockchain.__")
        or module in ("flockchain.PROTOCOL_VERSION", "flockchain.PEER_VERSION")
    )


def find_violations() -> list[str]:
    """One line for each breach: file, line, rule."""
    found: list[str] = []
    for package in ("flockchain", "api", "ml"):
        for module, path in python_files(package):
            room = room_of(module)
            tree = ast.parse(path.read_text(), str(path))
            where = path.relative_to(ROOT)
            if room is not None:
                allowed = MAY_IMPORT[room] | {room}
                for line, name in imports_of(tree):
                    ours = name.split(".")[0] in {"flockchain", "api", "ml"}
                    is_listed = is_within(name, allowed) or is_within(name.rpartition(".")[0], allowed)
                    # A room within a room (ml.lab in ml) has to be named itself.
                    if ours and not (is_listed and room_of(name) in {None, *allowed}):
                        found.append(f"{where}:{line}: {room} must not import {name}")
            if room in PURE_ROOMS:
                found.extend(f"{where}:{line}: {rule}" for line, rule in find_impurities(tree))
    return found


def find_impurities(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for line, name in imports_of(tree):
        if name.split(".")[0] in IMPURE_MODULES:
            yield line, f"a pure room must not import {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield node.lineno, f"a pure room holds no float, found {node.value}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield node.lineno, "a pure room divides integers with //, found /"
        if isinstance(node, ast.Name) and node.id == "float":
            yield node.lineno, "a pure room does not name float"


def test_imports_point_down_and_pure_rooms_are_pure() -> None:
    violations = find_violations()
    assert not violations, "\n" + "\n".join(violations)


def test_the_check_sees_a_clock_a_float_and_a_division() -> None:
    tree = ast.parse("import time\nfrom os import path\nx = 0.5\ny = 1 / 2\nz = float(3)\n")
    assert sorted({line for line, _ in find_impurities(tree)}) == [1, 2, 3, 4, 5]


def test_the_chain_starts_without_torch() -> None:
    program = (
        "import sys, flockchain.cli; print([m for m in ('torch', 'transformers', 'peft', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


def test_the_top_level_is_the_one_that_was_agreed() -> None:
    names = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True).stdout.split()
    tops = {name.split("/")[0] for name in names}
    agreed = {"flockchain", "ml", "api", "genesis", "tests", "pyproject.toml", "README.md"}
    beside = {
        *("docs", "bench", "examples", "Makefile", ".ci", ".gitignore"),
        *("LICENSE", "NOTICE", "CHANGELOG.md", "constraints.txt"),
    }
    assert tops <= agreed | beside, f"not agreed at the top level: {sorted(tops - agreed - beside)}"
