"""Attacks on updates: the mirror image of `ml/aggregate/`. Each sibling file is one attack, one function `craft`.

They exist to be caught: the demo's poisoner uses one, and the lab's tables run all. A new attack is a new file, with

    KIND       what it works on: "data" (it trains on poison), "update" (it computes what to send from the honest
               updates of the round), "free-ride" (it wants pay without work)
    SEES_ROUND whether it needs to see the honest updates of its own round
    GOAL       for a backdoor that is not of rare tokens: the kind that it plants by default (ml/backdoor.py)
    craft      (context, *, options as integers or words) -> int8 update

Attacks on ballots are in `ml/attacks/votes/`, those on draws in `ml/attacks/draws/`. docs/attacks.md lists all.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np

from ml.adapter import Update
from ml.backdoor import RARE_TOKEN, Backdoor, make_named_goal
from ml.canonical import Array
from ml.data import Block
from ml.norms import norm2
from ml.spec import UPDATE_LIMIT, AdapterSpec, TrainSpec
from ml.styles import Codec

SCALE_UNIT = 1024
"""Scale factors are integers over this."""
MILLI = 1_000


@dataclass(frozen=True)
class AttackContext:
    """What an attacker knows: all that an honest trainer does, data of every domain, the rules, and its accomplices."""

    base: Any
    """A loaded model; given back unchanged."""
    spec: AdapterSpec
    train_spec: TrainSpec
    blocks: Mapping[str, Sequence[Block]]
    """By domain."""
    global_adapter: Mapping[str, Any] | None = None
    norm_cap: int = 0
    """The largest |BA|^2 that ingress lets pass; 0 for none."""
    progress: Callable[[int, int, float], None] | None = None
    goal: Backdoor | None = None
    """What a backdoor is to do."""
    honest_updates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By root (hex), what the honest send in this round. In the network bytes stay private until submissions close, so
    only an attacker in the strongest model of the literature sees them; empty where it does not."""
    previous_updates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By root (hex), those of the round before, which everybody can fetch."""
    colluders: int = 1
    """f: participants that send this attack's updates."""
    colluder: int = 0
    """Which of them this is, from 0."""
    trainers: int = 0
    """n: updates that the round will take; 0 for the seen honest ones and the colluders'."""

    def __post_init__(self) -> None:
        if not 0 <= self.colluder < self.colluders:
            raise ValueError(f"colluder {self.colluder} of {self.colluders}: they count from 0")
        if self.trainers and self.trainers < self.colluders:
            raise ValueError(f"{self.colluders} colluders among {self.trainers} trainers")

    @property
    def all_blocks(self) -> list[Block]:
        return [block for domain in sorted(self.blocks) for block in self.blocks[domain]]

    @property
    def count(self) -> int:
        """n."""
        return self.trainers or len(self.honest_updates) + self.colluders

    @property
    def seen(self) -> list[Mapping[str, Any]]:
        """The honest updates in the order of their roots. Raises ValueError when none is known."""
        if not self.honest_updates:
            raise ValueError("this attack needs to see the round's honest updates, and knows none")
        return [self.honest_updates[root] for root in sorted(self.honest_updates)]

    @property
    def wanted(self) -> Backdoor:
        """The goal. Raises ValueError without one."""
        if self.goal is None:
            raise ValueError("the backdoor attack needs a goal: trigger and target tokens")
        return self.goal


def list_attacks() -> tuple[str, ...]:
    """Names of the attacks on updates, sorted: every sibling module."""
    return tuple(sorted(module.name for module in iter_modules(__path__) if not module.ispkg))


def list_lone_attacks() -> tuple[str, ...]:
    """Those that a trainer in the network can run by itself, without sight of the round's other updates."""
    return tuple(name for name in list_attacks() if not get_attack(name).SEES_ROUND)


def get_attack(name: str) -> Any:
    """The attack's module. Raises ValueError with the known names."""
    if name not in list_attacks():
        raise ValueError(f"unknown attack {name!r}; known: {', '.join(list_attacks())}")
    return import_module(f"{__name__}.{name}")


def list_options(name: str) -> dict[str, int | str]:
    """The options of the named attack with their defaults."""
    parameters = inspect.signature(get_attack(name).craft).parameters.values()
    return {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}


def make_goal(name: str, codec: Codec) -> Backdoor:
    """The backdoor that the named attack plants by default: of rare tokens, where it does not say otherwise."""
    return make_named_goal(getattr(get_attack(name), "GOAL", RARE_TOKEN), codec)


def craft_attack(name: str, context: AttackContext, **options: int | str) -> Update:
    """The named attack's update. Raises ValueError for an unknown attack or option, with the known ones."""
    attack, known = get_attack(name), list_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"attack {name} has no option {unknown[0]!r}; it has: {', '.join(known) or 'none'}")
    update: Update = attack.craft(context, **options)
    return update


def craft_for_all(name: str, context: AttackContext, **options: int | str) -> list[Update]:
    """One update per colluder, in their order, each trained with a seed of its own."""
    return [
        craft_attack(name, dataclasses.replace(context, colluder=index), **options)
        for index in range(context.colluders)
    ]


def train(context: AttackContext, blocks: Sequence[Block], *, shared_seed: bool = False, **hooks: Any) -> Update:
    """What the honest trainer's own code makes of the attacker's blocks; `hooks` go to `train_update`.

    Colluders draw their batches apart, unless they need one common result.
    """
    from ml.train import train_update

    seed = context.train_spec.seed + (0 if shared_seed else context.colluder)
    train_spec = dataclasses.replace(context.train_spec, seed=seed)
    update: Update = train_update(
        context.base,
        context.spec,
        train_spec,
        blocks,
        context.global_adapter,
        progress=context.progress,
        **hooks,
    ).update
    return update


def resize(update: Mapping[str, Any], context: AttackContext, scale_milli: int) -> Update:
    """The update times thousandths; 0 is the largest factor that the rules allow."""
    if scale_milli < 0:
        raise ValueError(f"a scale of {scale_milli} thousandths: give 0 for the largest, or a positive one")
    if scale_milli == 0:
        return scale_to_largest(update, context.spec, context.norm_cap)
    return multiply(update, scale_milli / MILLI)


def scale_to_largest(update: Mapping[str, Any], spec: AdapterSpec, norm_cap: int) -> Update:
    """The update times the largest factor at which no value exceeds +-127 and |BA|^2 stays within the cap.

    Raises ValueError for an update that is zero.
    """
    largest = max(int(np.abs(np.asarray(values, np.int64)).max()) for values in update.values())
    if largest == 0:
        raise ValueError("the update is zero: no factor makes it larger")
    factor = UPDATE_LIMIT * SCALE_UNIT // largest
    if not norm_cap:
        return multiply(update, factor / SCALE_UNIT)
    return scale_to_norm(update, spec, norm_cap, most=factor)


def scale_to_norm(update: Mapping[str, Any], spec: AdapterSpec, norm2_limit: int, *, most: int = SCALE_UNIT) -> Update:
    """The update times at most `most` / SCALE_UNIT, smaller where that keeps |BA|^2 within the limit."""
    factor, scaled = most, multiply(update, most / SCALE_UNIT)
    while factor and norm2(scaled, spec) > norm2_limit:
        # Norms grow with the factor but for rounding: a step down of 1/16 ends within the limit soon.
        factor -= max(1, factor // 16)
        scaled = multiply(update, factor / SCALE_UNIT)
    return scaled


def multiply(update: Mapping[str, Any], factor: float) -> Update:
    """The update times a factor on its own grid: halves to even, saturated at +-127."""
    return to_grid({module: np.asarray(values, np.int64) * factor for module, values in update.items()})


def to_grid(values: Mapping[str, Array]) -> Update:
    """Reals in update steps, by module, as an update: halves to even, saturated at +-127."""
    return {
        module: np.clip(np.rint(reals), -UPDATE_LIMIT, UPDATE_LIMIT).astype(np.int8)
        for module, reals in sorted(values.items())
    }


def draw_noise(context: AttackContext) -> Update:
    """Uniform over -127..127 in every value, from the training seed, another for each colluder."""
    random = np.random.Generator(np.random.Philox(context.train_spec.seed + context.colluder))
    return {
        module: random.integers(-UPDATE_LIMIT, UPDATE_LIMIT, (out, context.spec.rank), np.int8, endpoint=True)
        for module, out, _ in context.spec.shapes
    }


def compute_median_norm2(updates: Sequence[Mapping[str, Any]], spec: AdapterSpec) -> int:
    """Lower median of |BA|^2: what a norm clip will hold a malicious update against."""
    return sorted(norm2(update, spec) for update in updates)[(len(updates) - 1) // 2]
