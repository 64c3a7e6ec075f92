"""One task of the `economics` experiment: who takes part, what they do in a round, and what it brought them."""

import random
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from flockchain.params import UFLK_PER_FLK
from flockchain.types.task import AdapterFigures, AttestationBody, CandidateFigure, DomainFigure, Gain
from ml.attacks.draws.sybils import split_stake
from ml.attacks.votes import Figures, VoteContext, cast_vote
from ml.figures import PPM, Change
from ml.lab import Json
from ml.lab.bank import HONEST, Bank, Holder, MeasuredAdapter
from ml.lab.batch_verdict import BatchRule
from ml.lab.ledger import LedgerTask, Played
from ml.lab.task import make_meter_spec, make_task_spec

MIN_BOND_UFLK = 10 * UFLK_PER_FLK
REWARD_PER_ROUND_UFLK = 100 * UFLK_PER_FLK
TRUTHFUL = "honest"
LOSS_UBPB = 1_000_000
"""Of candidates: the bank measures changes; levels are of no account here."""


class Game:
    """All is drawn from the seed. What the malicious draw comes from a stream of its own, so that games of one seed
    that differ in an attack on votes alone see the same draws, adapters and holdouts.
    """

    def __init__(self, bank: Bank, settings: Mapping[str, Any]) -> None:
        task = settings["task"]
        self.bank, self.settings = bank, settings
        self.rng = random.Random(f"economics {settings['seed']}")  # noqa: S311 - draws of an experiment
        self.malice = random.Random(f"malice {settings['seed']}")  # noqa: S311 - draws of an experiment
        self.bad_trainers, trainers = _split(task["trainers"], settings["trainers"], "trainer")
        self.bad_judges, judges = _split(task["judges"], settings["judges"], "judge")
        bond_uflk = task["bond_tickets"] * MIN_BOND_UFLK
        bonds = dict.fromkeys((*trainers, *judges), bond_uflk)
        bonds = self._split_stakes(bonds, bond_uflk, settings.get("split", 1))
        spec = make_task_spec(task, settings["domains"], settings["rule"], MIN_BOND_UFLK)
        pool_uflk = REWARD_PER_ROUND_UFLK * task["rounds"]
        self.ledger = LedgerTask(spec, bonds, trainers, pool_uflk=pool_uflk, seed=settings["seed"])
        self.bonds = bonds
        self.trainers, self.judges = trainers, [name for name in bonds if name not in trainers]
        meter = make_meter_spec(task)
        self.holders = {name: Holder(bank, meter, task["documents"], self.rng) for name in self.judges}
        self.authors = {name: self._choose_author(name) for name in trainers}
        self.adapters: dict[str, MeasuredAdapter] = {}
        self.counts: Counter[str] = Counter()
        self.batch = BatchRule(spec)

    def _split_stakes(self, bonds: dict[str, int], bond_uflk: int, accounts: int) -> dict[str, int]:
        """The malicious judges' stakes over so many accounts each."""
        if accounts == 1:
            return bonds
        shared = dict(bonds)
        most = self.settings["task"]["bond_tickets"]
        for name in sorted(self.bad_judges):
            del shared[name]
            for number, part in enumerate(split_stake(bond_uflk, MIN_BOND_UFLK, most, accounts)):
                shared[f"{name}.{number}"] = part
        self.bad_judges = {name for name in shared if name.partition(".")[0] in self.bad_judges}
        return shared

    def _choose_author(self, name: str) -> str:
        """Of all its adapters: an honest one keeps to its domain, a malicious one to its attack."""
        authors = sorted({adapter.author for adapter in self.bank.adapters})
        is_bad = name in self.bad_trainers
        return self.rng.choice([author for author in authors if author.startswith(HONEST) != is_bad])

    def play_round(self) -> bool:
        """Whether there was one: no more once too few have a bond."""
        self.adapters = {name: self.rng.choice(self.bank.find(self.authors[name])) for name in self.trainers}
        played = self.ledger.play_round(self._judge, self._attest)
        if played is None:
            return False
        self._count(played)
        return True

    # What judges say

    def _judge(self, judge: str, authors: Sequence[str]) -> tuple[AdapterFigures, ...] | None:
        honest = self._measure(judge, authors)
        said = honest
        if judge in self.bad_judges and self.settings["vote"] != TRUTHFUL:
            lie = cast_vote(self.settings["vote"], self._make_context(judge, honest, authors))
            if lie is None:
                return None
            said = lie
        return tuple(_make_entry(said.get(author, {})) for author in authors)

    def _measure(self, judge: str, authors: Sequence[str]) -> Figures:
        return {
            author: {
                index: change
                for index, domain in enumerate(self.ledger.spec.domains)
                if (change := self.holders[judge].measure(self.adapters[author], domain)) is not None
            }
            for author in authors
        }

    def _make_context(self, judge: str, honest: Figures, authors: Sequence[str]) -> VoteContext:
        """A copier is given the ballot of an accomplice that measured, the best that it can hope for."""
        other = self.malice.choice([name for name in self.judges if name != judge])
        return VoteContext(
            honest=honest,
            friends=frozenset(author for author in authors if author in self.bad_trainers),
            shared=self._measure(other, authors),
            tolerance_ppm=self.ledger.spec.judge.tolerance_ppm,
            outlier_distance_ppm=self.ledger.spec.judge.outlier_distance_ppm,
            seed=self.malice.randrange(2**31),
        )

    def _attest(self, judge: str, accepted: Sequence[tuple[str, bytes]]) -> AttestationBody:
        """What was accepted, taken together to the first order: each counts for `parts` of its measured strength.

        Even a liar attests the truth here: another root would win nobody over and cost it a penalty.
        """
        parts = self.settings["task"]["parts"]
        measured = self._measure(judge, [author for author, _ in accepted])
        figures, gains = [], []
        for domain in range(len(self.ledger.spec.domains)):
            found = [(root, measured[author][domain]) for author, root in accepted if domain in measured[author]]
            if len(found) != len(accepted) or not found:
                continue
            change = max(sum(one.change_ppm for _, one in found) * parts // len(found), -PPM)
            se = max(1, max(one.se_ppm for _, one in found))
            figures.append(CandidateFigure(domain, LOSS_UBPB, LOSS_UBPB, change, se, change, se))
            gains += [Gain(root, domain, -one.change_ppm * parts // len(found)) for root, one in found]
        ordered = tuple(sorted(gains, key=lambda gain: (gain.root, gain.domain)))
        return AttestationBody(1, 1, bytes(32), 1, (), tuple(figures), ordered, ())

    # What came of it

    def _count(self, played: Played) -> None:
        names = self.ledger.names
        for verdict in played.round.verdicts:
            side = "bad" if names[verdict.trainer] in self.bad_trainers else "honest"
            self.counts[f"{side} submitted"] += 1
            self.counts[f"{side} {verdict.outcome}"] += 1
            self.counts[f"{side} trainers' reward"] += verdict.reward_uflk
            self.counts[f"{side} slashed"] += verdict.slashed_uflk > 0
        self.counts["rounds"] += 1
        self.counts["settled"] += played.round.result_root != played.round.base_root
        self.counts += self.batch.judge(
            [names[address] for address in (verdict.trainer for verdict in played.round.verdicts)],
            {names[seat.address]: seat.seats for seat in played.round.committee},
            self._measure,
            self.bad_trainers,
            self.bad_judges if self.settings["vote"] != TRUTHFUL else frozenset(),
        )

    def describe(self) -> Json:
        groups = {
            "honest trainers": [name for name in self.trainers if name not in self.bad_trainers],
            "bad trainers": sorted(self.bad_trainers),
            "honest judges": [name for name in self.judges if name not in self.bad_judges],
            "bad judges": sorted(self.bad_judges),
        }
        return {
            "counts": dict(sorted(self.counts.items())),
            "groups": {what: self._describe(names) for what, names in groups.items() if names},
        }

    def _describe(self, names: Sequence[str]) -> Json:
        """Per FLK that was staked at first: what was won or lost, and what of the bond is left."""
        staked = sum(self.bonds[name] for name in names)
        money, left = sum(map(self.ledger.money_uflk, names)), sum(map(self.ledger.bond_uflk, names))
        return {
            "accounts": len(names),
            "staked_uflk": staked,
            "net_uflk": money - staked,
            "bond_uflk": left,
            "below_minimum": sum(self.ledger.bond_uflk(name) < MIN_BOND_UFLK for name in names),
        }


def _split(count: int, share: float | str, kind: str) -> tuple[set[str], list[str]]:
    """(the malicious ones, all); share `one`: a single one."""
    names = [f"{kind}{number}" for number in range(count)]
    bad = 1 if share == "one" else round(count * float(share))
    return set(names[:bad]), names


def _make_entry(figures: Mapping[Hashable, Change]) -> AdapterFigures:
    """Root and order are the ledger's."""
    domains = tuple(
        DomainFigure(domain, change.change_ppm, change.se_ppm, change.change_ppm, change.se_ppm)  # type: ignore[arg-type]
        for domain, change in sorted(figures.items(), key=lambda item: str(item[0]))
    )
    return AdapterFigures(bytes(32), "scored", "", domains, ())
