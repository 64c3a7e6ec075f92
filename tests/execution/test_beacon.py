"""Each proposer shows the next link of its hash chain, and can show no other."""

import pytest
from msgspec.structs import replace

from flockchain.crypto import sha256
from flockchain.errors import Refused
from flockchain.execution.beacon import BeaconChain
from flockchain.execution.block import check_block
from tests.support.ledger import Ledger, make_address


def test_links_walk_back_from_the_head_to_the_seed() -> None:
    chain = BeaconChain(b"seed", links=2_500)
    head, count = chain.head, 0
    while (preimage := chain.find_preimage(head)) is not None:
        assert sha256(preimage) == head
        head, count = preimage, count + 1
    assert count == 2_500


def test_any_link_is_found_after_a_restart() -> None:
    chain = BeaconChain(b"seed", links=2_500)
    head = chain.head
    for _ in range(1_500):
        head = chain.find_preimage(head) or b""
    again = BeaconChain(b"seed", links=2_500)
    assert again.head == chain.head
    assert again.find_preimage(head) == chain.find_preimage(head)
    assert again.find_preimage(chain.head) is not None  # and forward again: a rolled-back node


def test_a_foreign_head_has_no_link_here() -> None:
    assert BeaconChain(b"seed", links=10).find_preimage(sha256(b"other")) is None


def test_golden_head() -> None:
    head = "a197d109948c8be2b81083092b6f6824beed13ad812d0031d674b2db8c55bbf6"
    assert BeaconChain(b"seed", links=3).head.hex() == head


def test_the_beacon_takes_in_each_link() -> None:
    ledger = Ledger()
    before, head = ledger.chain.beacon, ledger.validator("val0").beacon_head
    ledger.produce(proposer="val0")
    preimage = ledger.blocks[-1].header.beacon_preimage
    assert sha256(preimage) == head
    assert ledger.chain.beacon == sha256(before, preimage)
    assert ledger.validator("val0").beacon_head == preimage


def test_a_link_shown_twice_is_refused() -> None:
    ledger = Ledger()
    ledger.produce(proposer="val0")
    shown = ledger.blocks[-1].header.beacon_preimage
    block = ledger.build(proposer="val0")
    with pytest.raises(Refused, match="is not the next link of"):
        check_block(ledger.state, replace(block, header=replace(block.header, beacon_preimage=shown)))


def test_the_link_of_another_validator_is_refused() -> None:
    ledger = Ledger()
    block = ledger.build(proposer="val0")
    with pytest.raises(Refused, match="is not the next link of"):
        check_block(ledger.state, replace(block, header=replace(block.header, proposer=make_address("val1"))))
