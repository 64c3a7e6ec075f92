"""Bugs in the core, and in what it is told."""

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from flockchain.consensus import machine
from flockchain.consensus.core import Core
from flockchain.consensus.messages import CommitCertificate, Message
from flockchain.consensus.votes import VoteKeeper
from flockchain.node.consensus_intake import ConsensusIntake

from ...mutants import replaced


def no_skip_of_rounds() -> AbstractContextManager[None]:
    """A third of the power in a later round does not take a node there (L55)."""
    return replaced(VoteKeeper, "skip_round", lambda self: None)


def valid_value_forgotten() -> AbstractContextManager[None]:
    """A proposer that saw a polka builds a new block instead of proposing that one again (L16)."""
    original = machine.start_round

    def start_round(state: machine.RoundState, address: Any, round: int, is_proposer: bool) -> machine.Transition:
        forgetful = replace(state, valid_value=None)
        entered, effects = original(forgetful, address, round, is_proposer)
        return replace(entered, valid_value=state.valid_value), effects

    return replaced(machine, "start_round", start_round)


def time_unchecked() -> AbstractContextManager[None]:
    """Any block time after the last is prevoted."""
    return replaced(ConsensusIntake, "_is_timely", lambda *_: True)


def only_this_round_sent_again() -> AbstractContextManager[None]:
    """The precommits that ended the round before are not sent again, so peers may stay there."""
    original = Core.current_messages

    def current_messages(self: Core) -> tuple[Message, ...]:
        return tuple(m for m in original(self) if isinstance(m, CommitCertificate) or m.round == self.round)

    return replaced(Core, "current_messages", current_messages)
