"""FLock's verdict on the whole batch, as a baseline: on the same figures, without paying anybody.

White paper and arXiv:2507.15349: the committee compares the aggregate of all submissions with the model before, and a
majority decides; a rejected batch costs every trainer of the round. The aggregate's figure is taken to the first order:
the sum of the adapters' changes, each measured at its part of the aggregate.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from flockchain.execution.figures import is_above
from flockchain.types.task import TaskSpec
from ml.attacks.votes import Figures

Measure = Callable[[str, Sequence[str]], Figures]


class BatchRule:
    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    def judge(
        self,
        authors: Sequence[str],
        seats: Mapping[str, int],
        measure: Measure,
        bad_trainers: Collection[str],
        liars: Collection[str],
    ) -> Counter[str]:
        """Counts of one round. A liar accepts a batch that holds a friend's adapter, and rejects any other."""
        against = sum(
            count
            for judge, count in seats.items()
            if (not set(authors) & set(bad_trainers) if judge in liars else self._rejects(measure(judge, authors)))
        )
        if not authors or not seats or 2 * against <= sum(seats.values()):
            poisoned = bool(set(authors) & set(bad_trainers))
            return Counter({"batch accepted": 1, "batch accepted with a bad adapter": int(poisoned)})
        honest = sum(author not in bad_trainers for author in authors)
        return Counter(
            {"batch rejected": 1, "batch honest slashed": honest, "batch bad slashed": len(authors) - honest}
        )

    def _rejects(self, figures: Figures) -> bool:
        """Harm on a domain beyond the tolerance, by the same bounds as ours, or no gain in sum."""
        total = 0
        for domain in range(len(self.spec.domains)):
            found = [figure[domain] for figure in figures.values() if domain in figure]
            change = sum(one.change_ppm for one in found)
            se = max(1, int(sum(one.se_ppm**2 for one in found) ** 0.5))
            total += change
            if is_above(change, se, self.spec.judge.tolerance_ppm, self.spec.judge.z_milli):
                return True
        return total >= 0
