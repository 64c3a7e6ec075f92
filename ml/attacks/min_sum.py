"""Min-sum: the sum of squared distances to the honest as large as that of the honest update that lies farthest out.

Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021, section IV-C.
Knows: the round's honest updates.
Formula: u = mean + gamma p, gamma the largest with sum_i |u - g_i|^2 <= max_i sum_j |g_i - g_j|^2; p as in `min_max`.
Made for: rules that add distances up (Krum's scores, geometric median): stricter than min-max, so harder to see.
"""

from ml.adapter import Update
from ml.attacks import AttackContext
from ml.attacks.min_max import push
from ml.distances import compute_distances2

KIND, SEES_ROUND = "update", True


def craft(context: AttackContext, *, direction: str = "std") -> Update:
    """`direction`: std, mean or sign. Raises ValueError where no honest update is seen."""
    bound = max(map(sum, compute_distances2(context.honest_updates, context.spec))) if context.seen else 0
    return push(context, direction, lambda distances2: sum(distances2) <= bound)
