"""FedProx: FedAvg of updates trained with a pull towards the global adapter.

    h(w) = F(w) + mu/2 * |w - w_global|^2

Li et al., arXiv:1812.06127, equation 2. The pull lives in the trainer (`ml.constraints.Pull`). The server averages, as
in FedAvg. The norm is that of the trained B, the parameters that the paper's w stands for.
"""

from dataclasses import dataclass

from ml.baselines.fedavg import Fedavg


@dataclass(frozen=True)
class Fedprox(Fedavg):
    """FedAvg at the server; `mu` is for `ml.constraints.Pull` in the trainer."""

    mu: float = 0.01
