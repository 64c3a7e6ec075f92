"""hypothesis chooses the operations, and shrinks a failing history to its shortest form.

It holds the same rules and checks as the seeded histories; `serve` lets a training round move on in few steps.
"""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.ledger import run
from tests.ledger.dice import Dice
from tests.ledger.duties import find_duties
from tests.ledger.rules import RULES


def make_drawn(data: Any) -> Dice:
    return Dice(lambda count: data.draw(st.integers(0, count - 1)))


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = run.start()

    @initialize(is_enrolled=st.booleans())
    def enroll(self, is_enrolled: bool) -> None:
        """In half of the histories task 1 begins with enough members for a round."""
        if is_enrolled:
            run.enroll(self.world)

    @rule(kind=st.sampled_from(sorted(RULES)), data=st.data())
    def operate(self, kind: str, data: Any) -> None:
        run.operate(self.world, make_drawn(data), kind)

    @rule(data=st.data())
    def close_block(self, data: Any) -> None:
        run.close_block(self.world, make_drawn(data))

    @rule(data=st.data())
    def serve(self, data: Any) -> None:
        """Members do what is due in the present phases, and the block ends."""
        for kind, entry in RULES.items():
            for phase in entry.phases:
                for _ in find_duties(self.world, phase):
                    run.operate(self.world, make_drawn(data), kind)
        run.close_block(self.world, make_drawn(data))

    def teardown(self) -> None:
        run.close_block(self.world, Dice(lambda count: 0))


LedgerMachine.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
TestLedgerMachine = LedgerMachine.TestCase
