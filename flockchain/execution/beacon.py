"""The randomness beacon: one link of the proposer's sha256 chain per block, `beacon = sha256(beacon, preimage)`.

A validator registers the last link of its chain, the head, with its bond; each block it proposes carries the link
before. It cannot choose a link, only forfeit a proposal, which is the remaining bias (docs/protocol.md).
"""

import msgspec

from flockchain.crypto import format_address, sha256, tagged_hash
from flockchain.errors import Refused
from flockchain.execution.state import State
from flockchain.types.rows import Chain, ValidatorRow

BEACON_LINKS = 2**20
"""Blocks that one chain lasts; before it ends, `edit-validator` registers the head of a new one."""
_CHECKPOINT_LINKS = 256


class BeaconChain:
    """The links of one secret seed, at most `_CHECKPOINT_LINKS` hashes away each; held by the validator's node.

    Link 0 is the seed; link i+1 = sha256(link i); the head is link `links`.
    """

    def __init__(self, seed: bytes, links: int = BEACON_LINKS) -> None:
        assert links >= 1
        self._checkpoints = [tagged_hash("flockchain/beacon", (seed,))]
        link = self._checkpoints[0]
        for i in range(1, links + 1):
            link = sha256(link)
            if i % _CHECKPOINT_LINKS == 0:
                self._checkpoints.append(link)
        self.head = link
        self._position, self._link = links, link

    def find_preimage(self, head: bytes) -> bytes | None:
        """The link before `head`; None when `head` is not of this chain or is its first link."""
        if self._link != head and not self._seek(head):
            return None
        return self._compute_link(self._position - 1) if self._position > 0 else None

    def _seek(self, head: bytes) -> bool:
        """Search from the last position down, for blocks walk the chain backwards, and then from the end."""
        here, end = self._position // _CHECKPOINT_LINKS, len(self._checkpoints)
        for start in (*range(here, -1, -1), *range(end - 1, here, -1)):
            link, first = self._checkpoints[start], start * _CHECKPOINT_LINKS
            for i in range(first, first + _CHECKPOINT_LINKS):
                if link == head:
                    self._position, self._link = i, link
                    return True
                link = sha256(link)
        return False

    def _compute_link(self, index: int) -> bytes:
        link = self._checkpoints[index // _CHECKPOINT_LINKS]
        for _ in range(index % _CHECKPOINT_LINKS):
            link = sha256(link)
        return link


def get_beacon_head(validator: ValidatorRow, height: int) -> bytes:
    """The head whose preimage the validator must show when it proposes `height`."""
    if validator.next_beacon_head and height >= validator.next_beacon_height:
        return validator.next_beacon_head
    return validator.beacon_head


def check_beacon(validator: ValidatorRow, height: int, preimage: bytes) -> None:
    if sha256(preimage) != get_beacon_head(validator, height):
        raise Refused(
            "bad-beacon",
            f"beacon preimage {preimage.hex()} is not the next link of {format_address(validator.address)}'s chain",
        )


def process_beacon(state: State, proposer: bytes, height: int, preimage: bytes) -> None:
    """Take the proposer's link into the beacon; the link is its new head."""
    validator = state.get(ValidatorRow, proposer)
    is_switched = get_beacon_head(validator, height) != validator.beacon_head
    pending = (b"", 0) if is_switched else (validator.next_beacon_head, validator.next_beacon_height)
    state.put(
        msgspec.structs.replace(
            validator, beacon_head=preimage, next_beacon_head=pending[0], next_beacon_height=pending[1]
        )
    )
    chain = state.get(Chain)
    state.put(msgspec.structs.replace(chain, beacon=sha256(chain.beacon, preimage)))
