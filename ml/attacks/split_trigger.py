"""Split trigger: each colluder trains a part of the trigger, and only the whole of it works in the mean.

Source: Xie et al., "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020.
Knows: its accomplices.
Formula: colluder k of f plants tokens k, k + f, k + 2f, ... of the trigger; attack success is measured with all.
Made for: screens of single updates that look for the trigger or its strength, and rules that count on one outlier.
"""

import dataclasses

from ml.adapter import Update
from ml.attacks import AttackContext, resize
from ml.attacks.backdoor import train_backdoor
from ml.backdoor import Backdoor

KIND, SEES_ROUND = "data", False


def craft(context: AttackContext, *, scale_milli: int = 0) -> Update:
    """Raises ValueError without a goal, or for more colluders than the trigger has tokens."""
    part = take_part(context.wanted, context.colluder, context.colluders)
    return resize(train_backdoor(context, part), context, scale_milli)


def take_part(goal: Backdoor, colluder: int, colluders: int) -> Backdoor:
    """The same target behind every f-th token of the trigger."""
    if len(goal.trigger) < colluders:
        raise ValueError(f"a trigger of {len(goal.trigger)} tokens cannot be split over {colluders} colluders")
    return dataclasses.replace(goal, trigger=goal.trigger[colluder::colluders])
