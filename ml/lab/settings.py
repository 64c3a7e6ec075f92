"""Experiments as short TOML files: what runs, on which model, with which seeds; other forms of it beside."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ml.lab import Json, LabError

EXPERIMENTS = Path(__file__).parent / "experiments"


@dataclass(frozen=True)
class Settings:
    """One experiment as it will run."""

    name: str
    module: str
    """Of `ml.lab`: it plans, summarizes and reports."""
    title: str
    seeds: tuple[int, ...]
    memory_gib: float
    """Of one process."""
    values: Json
    """Everything else that the file says, with the overrides applied."""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def get_module(self) -> Any:
        return import_module(f"ml.lab.{self.module}")


def list_experiments() -> list[str]:
    """Names of the shipped experiments."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.toml"))


def read_settings(
    name: str,
    *,
    form: str = "",
    quick: bool = False,
    seeds: Sequence[int] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """A shipped experiment by name, or one's own file. Raises LabError.

    A file may describe other forms of itself: `[form.NAME]` and `[quick]` replace values. `form` is applied first,
    then `quick`, then the caller's overrides.
    """
    path = Path(name) if name.endswith(".toml") else EXPERIMENTS / f"{name}.toml"
    try:
        values: Json = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(list_experiments())
        raise LabError(f"no experiment {name!r}; there are: {known}; or give a .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not TOML: {error}") from None
    forms, fast = values.pop("form", {}), values.pop("quick", {})
    if form and form not in forms:
        raise LabError(f"{path} has no form {form!r}; there are: {', '.join(sorted(forms)) or 'none'}")
    merged = merge(merge(merge(values, forms.get(form, {})), fast if quick else {}), overrides or {})
    missing = sorted({"experiment", "title", "seeds"} - merged.keys())
    if missing:
        raise LabError(f"{path} lacks {', '.join(missing)}: see docs/lab.md")
    module, chosen = merged.pop("experiment"), list(seeds) or merged.pop("seeds")
    merged.pop("seeds", None)
    if not (Path(__file__).parent / f"{module}.py").is_file():
        raise LabError(f"{path} names experiment {module!r}, which is no module of ml.lab")
    if not chosen or len(set(chosen)) != len(chosen):
        raise LabError(f"seeds {chosen} of {path}: give at least one, none twice")
    stem = "-".join([path.stem, *([form] if form else []), *(["quick"] if quick else [])])
    return Settings(stem, module, merged.pop("title"), tuple(chosen), float(merged.pop("memory_gib", 2.0)), merged)


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> Json:
    """`values` with `changes`; tables are merged, everything else is replaced."""
    merged = dict(values)
    for name, value in changes.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
