"""How attackers adapt over rounds: what was refused comes back smaller and better hidden, what was let in grows again.

The colluders decide together, from what the chain shows of the round before. Caution starts at 1. It doubles, up to 8,
after a round in which fewer than half of their updates came in (were accepted, in a candidate that settled), and falls
by a quarter, down to 1, after another.
Under a caution of c

- options that make an attack stronger (its scale, its norm) are divided by c;
- options that hide it (the price on unlikeness, how rarely a block is poisoned) are multiplied by c;
- from c > 1 on no update is longer than the median of those honest ones that were accepted in the round before.

The source of the first two is the scale of arXiv:1807.00459, section 4.3, which its attacker chooses below what the
defence notices; here it searches for it, as arXiv:2002.08347 wants of whoever claims to attack adaptively.
"""

from collections.abc import Callable, Mapping, Sequence

from ml.adapter import Update
from ml.attacks import MILLI, compute_median_norm2, list_options, scale_to_norm
from ml.lab import Json
from ml.lab.standing import ACCEPTED, NOT_DRAWN
from ml.spec import AdapterSpec

MOST_MILLI = 8 * MILLI
STRONGER, HIDING = ("scale_milli", "norm_milli"), ("weight_milli", "poison_every")


def compute_caution_milli(played: Sequence[Json], is_friend: Callable[[str], bool]) -> int:
    """After these rounds (ml/lab/standing.py). One in which the colluders sent nothing teaches nothing."""
    caution = MILLI
    for round_ in played:
        outcomes = [outcome for name, outcome in round_["outcomes"].items() if is_friend(name)]
        sent = [outcome for outcome in outcomes if outcome != NOT_DRAWN]
        came_in = sent.count(ACCEPTED) if round_["settled"] == round_["round"] else 0
        if sent and 2 * came_in < len(sent):
            caution = min(MOST_MILLI, 2 * caution)
        elif sent:
            caution = max(MILLI, 3 * caution // 4)
    return caution


def adapt_options(attack: str, options: Mapping[str, int | str], caution_milli: int) -> dict[str, int | str]:
    """The options under this caution; a scale of 0, which is the largest, counts from 1."""
    adapted = list_options(attack) | dict(options)
    if caution_milli == MILLI:
        return dict(options)
    for name, value in adapted.items():
        if name in STRONGER:
            adapted[name] = max(1, (int(value) or MILLI) * MILLI // caution_milli)
        elif name in HIDING:
            adapted[name] = int(value) * caution_milli // MILLI
    return adapted


def shorten(update: Update, accepted: Sequence[Update], spec: AdapterSpec, caution_milli: int) -> Update:
    """No longer than the median of what was accepted; as it is without caution, or where nothing was."""
    if caution_milli == MILLI or not accepted:
        return update
    return scale_to_norm(update, spec, compute_median_norm2(accepted, spec))
