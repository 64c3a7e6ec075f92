"""The documents name what exists, and what exists is named in the documents. Without torch, within seconds."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec
import typer

import api.routes
from api import metrics
from bench.readme import fill
from flockchain.cli import app as cli
from flockchain.execution.evidence import EVIDENCE_TYPES
from flockchain.node.config import Config
from flockchain.node.messages import Message
from flockchain.params import RANGES, Params
from flockchain.txs import TYPES
from flockchain.types.chain import Header
from flockchain.types.rows import TABLES, Outcome, Phase
from flockchain.types.task import TaskSpec
from ml.attacks import get_attack, list_attacks, list_options, votes
from ml.backdoor import GOALS
from tests.simulator.mutants import MUTANTS
from tests.test_architecture import GROUND, MAY_IMPORT, PURE_ROOMS, python_files

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"flockchain((?: [a-z][a-z-]*)+)")
LINE_WIDTH = 120


def documents() -> list[Path]:
    folders = [ROOT / name for name in ("docs", "genesis", "ml", "bench")]
    return sorted([*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))])


@cache
def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def code_words(name: str) -> frozenset[str]:
    """What stands in backticks in a document, whole and word by word."""
    spans = CODE.findall(FENCE.sub("", read(name)))
    return frozenset(spans) | {word for span in spans for word in re.findall(r"[A-Za-z0-9_./-]+", span)}


def find_unnamed(names: Iterable[str], document: str) -> list[str]:
    found = sorted(set(names))
    assert found, "nothing to look for: the test would hold for an empty page"
    return [name for name in found if name not in code_words(document)]


# -- links and form ---------------------------------------------------------------------------------------------------


def anchors_of(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def find_broken_links(path: Path) -> Iterator[str]:
    for link in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        if not found.exists():
            yield f"{path}: {link} leads nowhere"
        elif anchor and found.suffix == ".md" and anchor not in anchors_of(found):
            yield f"{path}: {link} names no heading"


def test_every_relative_link_resolves() -> None:
    assert [broken for path in documents() for broken in find_broken_links(path)] == []


def test_a_broken_link_and_a_broken_anchor_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One page\n[a](none.md) [b](#one-page) [c](page.md#two) [d](https://example.org/none)\n")
    assert [line.removeprefix(f"{page}: ") for line in find_broken_links(page)] == [
        "none.md leads nowhere",
        "page.md#two names no heading",
    ]


def test_lines_are_no_wider_than_code() -> None:
    """Tables cannot be broken and may be wider."""
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "CHANGELOG.md"]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > LINE_WIDTH and not line.lstrip().startswith("|")
    ]
    assert wide == []


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    """`python -m bench.readme` would change nothing."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert fill(text) == text


def test_documents_are_about_the_project_alone() -> None:
    """No path of one machine, and no package registry's address."""
    foreign = re.compile(r"/(?:home|work|root|Users)/\w|\b(?:pypi\.org|registry\.npmjs\.org)\b")
    assert [path.name for path in documents() if foreign.search(path.read_text(encoding="utf-8"))] == []


# -- protocol ---------------------------------------------------------------------------------------------------------


def table_row(document: str, first_cell: str) -> str:
    """The table row whose first cell is `first_cell` in backticks."""
    rows = [line for line in read(document).splitlines() if line.startswith(f"| `{first_cell}` |")]
    assert rows, f"{document} has no table row for {first_cell}"
    return rows[0]


def test_the_protocol_names_every_transaction_type_with_its_fields() -> None:
    for kind, tx_type in TYPES.items():
        words = {
            word for span in CODE.findall(table_row("docs/protocol.md", kind)) for word in re.findall(r"\w+", span)
        }
        missing = [field for field in tx_type.body.__struct_fields__ if field not in words]
        assert missing == [], f"{kind}: {missing}"


def find_refusal_codes() -> set[str]:
    """First argument of every `Refused(...)` in the pure rooms."""
    found: set[str] = set()
    for module, path in python_files("flockchain"):
        if not module.startswith(PURE_ROOMS) and module != "flockchain.genesis":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused":
                code = node.args[0]
                if isinstance(code, ast.Constant):
                    found.add(str(code.value))
                else:
                    assert ast.unparse(code) == "f'nonce-{word}'", ast.unparse(code)
    return found


def test_the_protocol_names_every_refusal() -> None:
    assert find_unnamed({*find_refusal_codes(), "nonce-spent", "nonce-ahead", "malformed"}, "docs/protocol.md") == []


def test_the_protocol_names_every_receipt() -> None:
    kinds = set()
    for room in PURE_ROOMS:
        for _, path in python_files(room.replace(".", "/")):
            kinds |= set(re.findall(r'add_receipt\(\s*"([a-z]+)"', path.read_text(encoding="utf-8")))
    assert find_unnamed(kinds, "docs/protocol.md") == []


def test_the_protocol_names_what_is_hashed_and_signed() -> None:
    sources = [path.read_text(encoding="utf-8") for room in ("flockchain", "ml") for _, path in python_files(room)]
    tags = {tag for text in sources for tag in re.findall(r"\"(flockchain/[a-z/-]+[a-z0-9])\"", text)}
    purposes = {purpose for text in sources for purpose in re.findall(r'_PURPOSE = "([a-z-]+)"', text)}
    assert find_unnamed(tags | purposes, "docs/protocol.md") == []
    assert find_unnamed(Header.__struct_fields__, "docs/protocol.md") == []


def test_the_protocol_names_what_a_task_states() -> None:
    def fields_of(struct: type[msgspec.Struct]) -> Iterator[str]:
        for field in msgspec.structs.fields(struct):
            yield field.name
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                yield from fields_of(field.type)

    assert find_unnamed(fields_of(TaskSpec), "docs/protocol.md") == []


def test_the_protocol_states_the_defaults_of_a_task() -> None:
    for part, spec in ((field.name, field.type) for field in msgspec.structs.fields(TaskSpec)):
        if not (isinstance(spec, type) and issubclass(spec, msgspec.Struct)):
            continue
        row = table_row("docs/protocol.md", part)
        for field in msgspec.structs.fields(spec):
            if field.default is not msgspec.NODEFAULT:
                value = f"{field.default:,}" if isinstance(field.default, int) else field.default
                assert f"`{field.name}` ({value})" in row, f"{part}.{field.name} is {value} by default"


def test_the_protocol_names_evidence_phases_messages_and_rules() -> None:
    names = {
        *EVIDENCE_TYPES,
        *(message.__name__ for message in get_args(Message)),
        *(module.name for module in pkgutil.iter_modules([str(ROOT / "ml" / "aggregate")])),
    }
    assert find_unnamed(names, "docs/protocol.md") == []
    text = read("docs/protocol.md")
    assert [phase for phase in get_args(Phase) if f"| {phase.upper()} |" not in text] == []
    assert [outcome for outcome in get_args(Outcome) if f"**{outcome}**" not in text] == []


def test_every_chain_parameter_is_explained() -> None:
    groups = [getattr(Params(), group) for group in Params.__struct_fields__]
    assert find_unnamed((name for group in groups for name in group.__struct_fields__), "genesis/README.md") == []


def test_every_range_of_a_parameter_is_stated() -> None:
    text = read("genesis/README.md")
    ranges = {path: f"`{path.partition('.')[2]}` {least:,}..{most:,}" for path, (least, most) in RANGES.items()}
    assert [path for path, stated in ranges.items() if stated not in text] == []


# -- interface --------------------------------------------------------------------------------------------------------


def walk_commands(command: Any, path: str = "") -> Iterator[str]:
    """Every command of the typer app, as it is typed."""
    children = getattr(command, "commands", None)
    if not children:
        yield path
        return
    for name, child in children.items():
        yield from walk_commands(child, f"{path} {name}".strip())


def test_every_command_is_named_and_every_named_command_exists() -> None:
    commands = set(walk_commands(typer.main.get_command(cli)))
    assert find_unnamed((f"flockchain {command}" for command in commands), "docs/interface.md") == []
    groups = {command.rpartition(" ")[0] for command in commands if " " in command}
    unknown = [
        f"{path.relative_to(ROOT)}: flockchain{words}"
        for path in documents()
        for words in find_named_commands(path.read_text(encoding="utf-8"))
        if not is_command(words.split(), commands, groups)
    ]
    assert unknown == []


def find_named_commands(text: str) -> Iterator[str]:
    """Words after `flockchain` in code: in backticks, or at the start of a line of a block."""
    for span in CODE.findall(FENCE.sub("", text)):
        if (match := COMMAND.match(span)) is not None:
            yield match[1]
    for block in FENCE.findall(text):
        for line in block.splitlines():
            if (match := COMMAND.match(line.strip().removeprefix("$ ").removeprefix(".venv/bin/"))) is not None:
                yield match[1]


def is_command(words: list[str], commands: set[str], groups: set[str]) -> bool:
    """Whether the words begin with a command (arguments may follow), or are a group."""
    starts = {" ".join(words[: i + 1]) for i in range(len(words))}
    return bool(starts & commands) or " ".join(words) in groups


def test_a_command_that_does_not_exist_is_seen() -> None:
    named = list(find_named_commands("`flockchain keys nwe` and\n```\nflockchain keys new alice\n```\n"))
    assert named == [" keys nwe", " keys new alice"]
    assert [is_command(words.split(), {"keys new"}, {"keys"}) for words in named] == [False, True]


def walk_routes() -> Iterator[str]:
    modules = [importlib.import_module(f"api.routes.{m.name}") for m in pkgutil.iter_modules(api.routes.__path__)]
    for module in [*modules, metrics]:
        for route in module.router.routes:
            methods: set[str] = getattr(route, "methods", None) or {"WS"}
            yield from (f"{method} {getattr(route, 'path_format', route.path)}" for method in methods - {"HEAD"})


def test_every_rest_path_is_named_and_every_named_path_exists() -> None:
    routes = set(walk_routes())
    assert find_unnamed(routes, "docs/interface.md") == []
    named = re.findall(r"`((?:GET|PUT|POST|WS) /[^`?]*)`", read("docs/interface.md"))
    assert [path for path in named if path not in routes] == []


def test_every_value_of_the_configuration_is_named() -> None:
    sections = {name: getattr(Config(), name) for name in Config.__struct_fields__}
    keys = [f"{section}.{key}" for section, value in sections.items() for key in value.__struct_fields__]
    assert find_unnamed(keys, "docs/interface.md") == []


# -- architecture, security, testing, words ----------------------------------------------------------------------------


def test_the_architecture_page_shows_the_imports_that_are_tested() -> None:
    for room, allowed in MAY_IMPORT.items():
        cell = table_row("docs/architecture.md", room).split("|")[2]
        shown = set(CODE.findall(cell)) | (GROUND if "*ground*" in cell else set())
        assert shown == allowed, f"{room}: {sorted(shown ^ allowed)}"


def test_the_architecture_page_names_every_room() -> None:
    folders = {
        str(path.parent.relative_to(ROOT)) for top in ("flockchain", "api", "ml") for _, path in python_files(top)
    }
    named = code_words("docs/architecture.md")
    assert [folder for folder in sorted(folders - {"flockchain"}) if f"{folder}/" not in named] == []


def test_files_that_documents_name_exist() -> None:
    """But for results, which exist where they were measured."""
    path_of = re.compile(r"^(?:flockchain|ml|api|tests|bench|genesis|examples|docs)/[\w./-]*\w(?:\.\w+|/)$")
    missing = [
        f"{page.relative_to(ROOT)}: {span}"
        for page in documents()
        for span in CODE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
        if path_of.match(span) and not span.startswith("bench/results/") and not (ROOT / span).exists()
    ]
    assert missing == []


def test_every_attack_and_every_mutant_is_named() -> None:
    """Each attack's row names its options, with their defaults."""
    for name in list_attacks():
        row = table_row("docs/attacks.md", name)
        options = [f"`{option}` = {default}" for option, default in list_options(name).items()]
        assert [option for option in options if option not in row] == [], name
        assert f"| {get_attack(name).KIND} |" in row, name
        assert ("sees the round" in row) == get_attack(name).SEES_ROUND, name
    for name in votes.list_votes():
        row = table_row("docs/attacks.md", name)
        assert [key for key, default in votes.list_options(name).items() if f"`{key}` = {default}" not in row] == []
    draws = [module.name for module in pkgutil.iter_modules([str(ROOT / "ml" / "attacks" / "draws")])]
    assert find_unnamed([*draws, *GOALS], "docs/attacks.md") == []
    assert [name for name in MUTANTS if f"| {name} |" not in read("docs/testing.md")] == []


def test_every_promise_links_to_a_test() -> None:
    section = read("docs/security.md").partition("## What is promised")[2].partition("\n## ")[0]
    promises = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert len(promises) > 20
    assert [line for line in promises if "(../tests/" not in line.split("|")[3]] == []


def test_every_word_of_the_state_is_in_the_glossary() -> None:
    """The names of tables, word by word, are words that people meet in REST."""
    plain = {"chain", "set", "recent", "time", "mark", "open", "sealed", "fetched", "training"}
    words = {word for table in TABLES.values() for word in table.name.split("_")} - plain
    text = read("docs/glossary.md").lower()
    assert [word for word in sorted(words) if not re.search(rf"\b{word}", text)] == []


def test_the_glossary_is_sorted_and_no_word_stands_twice() -> None:
    words = [line.split("|")[1].strip() for line in read("docs/glossary.md").splitlines() if line.startswith("| ")][1:]
    assert words == sorted(set(words), key=str.lower)


def test_every_decision_is_listed_and_short() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    listed = LINK.findall(read("docs/decisions/README.md"))
    assert listed == [page.name for page in pages]
    for page in pages:
        text, number = page.read_text(encoding="utf-8"), int(page.name[:4])
        assert text.startswith(f"# {number}. "), f"{page.name} does not begin with its number"
        assert len(text.splitlines()) <= 50, f"{page.name} is longer than a page"
