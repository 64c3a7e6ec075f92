"""`commit-final`: hide a final set behind its hash, for the sender's next task.

It comes before `create-task`, so that whoever joins the task joins on these terms. A later one replaces it.
"""

from flockchain.codec import Canonical
from flockchain.execution.context import Context
from flockchain.execution.final import check_terms
from flockchain.types.final import FinalTerms
from flockchain.types.rows import FinalPledge
from flockchain.types.tx import Tx

KIND = "commit-final"


class Body(Canonical, frozen=True):
    terms: FinalTerms


def check(body: Body, tx: Tx) -> None:
    """Nothing beyond the fields' ranges can be said without the chain's parameters."""


def apply(context: Context, tx: Tx, body: Body) -> None:
    check_terms(context.state, body.terms, context.params)
    context.state.put(FinalPledge(tx.sender, body.terms))
