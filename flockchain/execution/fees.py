"""What a transaction pays to be executed."""

from flockchain.errors import Refused
from flockchain.params import FeeParams
from flockchain.types.tx import Tx


def compute_min_fee_uflk(params: FeeParams, size_bytes: int) -> int:
    """Least fee of a transaction whose signed bytes have this size."""
    return params.min_fee_uflk + params.fee_per_byte_uflk * size_bytes


def check_fee(params: FeeParams, tx: Tx, size_bytes: int, balance_uflk: int) -> None:
    least = compute_min_fee_uflk(params, size_bytes)
    if tx.fee_uflk < least:
        raise Refused(
            "fee-too-low", f"fee of {tx.fee_uflk} uflk is below the least fee of {least} uflk for {size_bytes} bytes"
        )
    if tx.fee_uflk > balance_uflk:
        raise Refused("insufficient-balance", f"fee of {tx.fee_uflk} uflk exceeds balance of {balance_uflk} uflk")
