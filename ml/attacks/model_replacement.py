"""Model replacement: scale the backdoored update so that the mean of the round becomes the attacker's own model.

Source: Bagdasaryan et al., "How To Backdoor Federated Learning", arXiv:1807.00459, section 4.2 (equation 3).
Knows: how many updates the round takes and how many colluders send this one.
Formula: u = (n / f) (train(clean + poisoned) - global), as the honest others about cancel out; the grid saturates each
value at +-127, which keeps its sign.
Made for: the plain mean and server optimizers on top of it. A norm clip takes the factor away again.
"""

from ml.adapter import Update
from ml.attacks import MILLI, AttackContext, multiply, scale_to_norm
from ml.attacks.backdoor import train_backdoor

KIND, SEES_ROUND = "data", False


def craft(context: AttackContext, *, scale_milli: int = 0) -> Update:
    """Raises ValueError without a goal. `scale_milli` of 0 is n / f, which needs `trainers`."""
    update = train_backdoor(context, context.wanted)
    scaled = multiply(update, scale_milli / MILLI if scale_milli else context.count / context.colluders)
    return scale_to_norm(scaled, context.spec, context.norm_cap) if context.norm_cap else scaled
