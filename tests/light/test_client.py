"""From one trusted block to the newest: by skipping, by every height, and never onto a fork."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from flockchain.crypto import sha256
from flockchain.errors import Fault, Refused
from flockchain.light.client import LightClient
from flockchain.light.refusals import Diverged, NotVerified, TrustExpired
from flockchain.light.stored import FileStore, MemoryStore
from flockchain.params import UFLK_PER_FLK
from flockchain.txs import unstake
from flockchain.types.light import LightBlock
from tests.execution.stories import make_quick_genesis
from tests.execution.test_stake import bond_body, target_of
from tests.light.chain import OPTIONS, TRUSTING_PERIOD_MS, Forger, LightChain, MemoryProvider, make_set
from tests.support.ledger import BOND_UFLK, Ledger

NAMES = ("val0", "val1", "val2", "val3")


@pytest.fixture(scope="module")
def chain() -> LightChain:
    chain = LightChain()
    chain.run(20)
    return chain


def make_changing_chain() -> LightChain:
    """Three newcomers bond five times as much as each of the four validators, three of which then leave."""
    chain = LightChain(Ledger(make_quick_genesis()))
    ledger = chain.ledger
    for name, owner in (("val4", "alice"), ("val5", "bob"), ("val6", "carol")):
        chain.run(3)
        chain.produce(ledger.tx(owner, bond_body(name, owner, 50_000 * UFLK_PER_FLK)))
    for name, owner in (("val0", "owner0"), ("val1", "owner1"), ("val2", "owner2")):
        chain.run(3)
        chain.produce(ledger.tx(owner, unstake.Body(target_of(name), BOND_UFLK)))
    chain.run(8)
    return chain


def test_an_unchanged_set_is_verified_in_one_step(chain: LightChain) -> None:
    primary = chain.provider()
    client = chain.client(primary)
    assert client.update(chain.now_ms).height == 20
    assert primary.asked == [1, None]
    assert client.newest.block_id() == chain.blocks[20].block_id()


def test_every_height_is_asked_for_when_sequential(chain: LightChain) -> None:
    primary = chain.provider()
    client = chain.client(primary, mode="sequential")
    assert client.update(chain.now_ms).height == 20
    assert primary.asked == [1, None, *range(2, 20)]


def test_a_height_between_is_reached_from_below_and_one_below_all_by_parents(chain: LightChain) -> None:
    primary = chain.provider()
    client = chain.client(primary, root=10)
    assert client.verify_height(15, chain.now_ms).block_id() == chain.blocks[15].block_id()
    assert client.verify_height(7, chain.now_ms).block_id() == chain.blocks[7].block_id()
    assert primary.asked == [10, 15, 7, 9, 8]
    assert client.verify_height(7, chain.now_ms).height == 7
    assert len(primary.asked) == 5, "a verified block is not asked for again"


def test_a_forged_past_is_refused(chain: LightChain) -> None:
    """The validators of today may sign another yesterday: the hash chain tells."""
    primary = chain.provider()
    forger = Forger(chain.ledger.genesis_hash, NAMES)
    old = chain.blocks[8]
    header = replace(old.header, txs_root=sha256(b"another past"))
    primary.blocks[8] = forger.sign(header, old.validators, old.next_validators)
    client = chain.client(primary, root=10)
    with pytest.raises(NotVerified, match="does not name this block 8 as its parent"):
        client.verify_height(8, chain.now_ms)
    assert list(client._store.heights()) == [10]


def test_a_node_that_gives_another_height_than_asked_is_refused(chain: LightChain) -> None:
    primary = chain.provider()
    client = chain.client(primary)
    primary.blocks[12] = chain.blocks[13]
    with pytest.raises(NotVerified, match="asked for block 12 and gave block 13"):
        client.verify_height(12, chain.now_ms)


def test_a_node_that_falls_back_is_told_so(chain: LightChain) -> None:
    client = chain.client(chain.provider(up_to=15))
    client.update(chain.now_ms)
    client._primary = chain.provider("stale", up_to=14)
    with pytest.raises(NotVerified, match="stale is at height 14, we have verified 15"):
        client.update(chain.now_ms)


def test_a_node_that_changes_its_newest_block_is_refused(chain: LightChain) -> None:
    """Asked again at the same height, it gives another block, as well signed as the first."""
    primary = chain.provider()
    client = chain.client(primary)
    client.update(chain.now_ms)
    block = chain.blocks[20]
    forger = Forger(chain.ledger.genesis_hash, NAMES)
    primary.blocks[20] = forger.sign(
        replace(block.header, txs_root=sha256(b"second thought")), block.validators, block.next_validators
    )
    with pytest.raises(NotVerified, match="gives another block 20 than the verified one"):
        client.update(chain.now_ms)
    assert client.newest == block


def test_nothing_is_verified_without_trust(chain: LightChain) -> None:
    client = LightClient(chain.rules, chain.provider(), [], MemoryStore(), OPTIONS)
    for attempt in (lambda: client.update(chain.now_ms), lambda: client.verify_height(3, chain.now_ms)):
        with pytest.raises(Refused, match="nothing is trusted yet"):
            attempt()


def test_after_a_long_sleep_the_trust_has_expired(chain: LightChain) -> None:
    client = chain.client()
    client.update(chain.now_ms)
    with pytest.raises(TrustExpired, match="trusted block 20"):
        client.update(chain.now_ms + TRUSTING_PERIOD_MS)


# Witnesses


def test_witnesses_confirm(chain: LightChain) -> None:
    client = chain.client(witnesses=[chain.provider("one"), chain.provider("two")])
    client.update(chain.now_ms)
    assert [(report.node, report.agrees) for report in client.witness_reports] == [("one", True), ("two", True)]


def test_a_witness_that_lags_or_lies_does_not_count_while_another_confirms(chain: LightChain) -> None:
    liar = chain.provider("liar")
    for height in range(2, 21):
        liar.blocks[height] = Forger(sha256(b"another genesis"), NAMES).sign(
            replace(chain.blocks[height].header, txs_root=sha256(b"lie")), chain.blocks[height].validators
        )
    client = chain.client(witnesses=[chain.provider("lagging", up_to=10), liar, chain.provider("honest")])
    client.update(chain.now_ms)
    assert [report.agrees for report in client.witness_reports] == [False, False, True]
    assert "has no block 20" in client.witness_reports[0].message
    assert "wrong signature" in client.witness_reports[1].message


def test_without_one_confirming_witness_nothing_is_believed(chain: LightChain) -> None:
    client = chain.client(witnesses=[chain.provider("lagging", up_to=10)])
    with pytest.raises(NotVerified, match=r"no witness confirms block 20 .*lagging has no block 20"):
        client.update(chain.now_ms)
    assert client.newest.height == 1


def test_a_fork_by_double_signers_is_seen_and_names_them(chain: LightChain) -> None:
    """All four validators sign a second block 20 and show it to a witness only."""
    witness = chain.provider("witness")
    forger = Forger(chain.ledger.genesis_hash, NAMES)
    block = chain.blocks[20]
    witness.blocks[20] = forger.sign(
        replace(block.header, txs_root=sha256(b"fork")), block.validators, block.next_validators
    )
    client = chain.client(witnesses=[witness, chain.provider("honest")])
    with pytest.raises(Diverged, match="signed both in one round: flk1") as refusal:
        client.update(chain.now_ms)
    attack = refusal.value.attack
    assert (attack.common_height, attack.witness_name) == (1, "witness")
    assert attack.double_signers == [validator.address for validator in block.validators]
    assert client.newest.height == 1, "nothing of either fork was believed"


def test_a_fork_of_another_round_names_nobody(chain: LightChain) -> None:
    witness = chain.provider("witness")
    forger = Forger(chain.ledger.genesis_hash, NAMES)
    block = chain.blocks[20]
    header = replace(block.header, txs_root=sha256(b"amnesia"))
    witness.blocks[20] = forger.sign(header, block.validators, block.next_validators, round=1)
    with pytest.raises(Diverged, match="nobody signed both in one round") as refusal:
        chain.client(witnesses=[witness]).update(chain.now_ms)
    assert refusal.value.attack.double_signers == []


def test_a_root_of_trust_that_no_witness_holds_is_refused(chain: LightChain) -> None:
    """A forged beginning, whole in itself: the forger has the keys of the first validators."""
    forger = Forger(chain.ledger.genesis_hash, NAMES)
    block = chain.blocks[5]
    forged = forger.sign(replace(block.header, txs_root=sha256(b"another chain")), block.validators)
    primary = MemoryProvider("forger", {5: forged})
    client = LightClient(chain.rules, primary, [chain.provider("honest")], MemoryStore(), OPTIONS)
    with pytest.raises(NotVerified, match="no witness confirms block 5"):
        client.trust(5, forged.block_id(), forged.header.chain_id, chain.now_ms)
    assert not client._store.heights()


# Changing validators


def test_a_changed_set_is_reached_by_blocks_between() -> None:
    """Of the power that signs block 1 only a quarter still signs the newest."""
    chain = make_changing_chain()
    newest = chain.blocks[chain.height]
    assert len({v.address for v in chain.blocks[1].validators} & {v.address for v in newest.validators}) == 1
    primary = chain.provider()
    client = chain.client(primary, witnesses=[chain.provider("honest")])
    assert client.update(chain.now_ms).block_id() == newest.block_id()
    assert 1 <= len(primary.asked) - 2 < 6, primary.asked
    step_by_step = chain.client(mode="sequential")
    assert step_by_step.update(chain.now_ms).block_id() == newest.block_id()


def make_replaced_chain() -> tuple[LightChain, Forger]:
    """Four validators from block 1 to 10, four quite different ones from block 11 on; the old ones have unbonded."""
    chain = LightChain()
    chain.run(20)
    names = (*NAMES, "new0", "new1", "new2", "new3")
    forger = Forger(chain.ledger.genesis_hash, names)
    sets = {height: make_set(*NAMES) if height <= 10 else make_set(*names[4:]) for height in range(1, 22)}
    blocks: dict[int, LightBlock] = {}
    for height in range(1, 21):
        header = chain.blocks[height].header
        if height > 1:
            header = replace(header, last_block_id=blocks[height - 1].block_id())
        blocks[height] = forger.sign(header, sets[height], sets[height + 1])
    chain.blocks = blocks
    return chain, forger


def test_a_wholly_replaced_set_is_passed_where_it_was_replaced() -> None:
    chain, _ = make_replaced_chain()
    primary = chain.provider()
    client = chain.client(primary)
    assert client.update(chain.now_ms).height == 20
    assert primary.asked == [1, None, 10], "block 10 names the new ones"


def fork_by_old_keys(chain: LightChain, from_height: int) -> MemoryProvider:
    """A second history from `from_height` on, signed by those who validated up to block 10."""
    forger = Forger(chain.ledger.genesis_hash, NAMES)
    provider = chain.provider("forger", up_to=from_height - 1)
    old = make_set(*NAMES)
    for height in range(from_height, 21):
        header = replace(
            chain.blocks[height].header,
            last_block_id=provider.blocks[height - 1].block_id(),
            txs_root=sha256(b"what the forgers own"),
        )
        provider.blocks[height] = forger.sign(header, old)
    return provider


def test_a_long_range_fork_by_unbonded_keys_is_refused_once_the_trust_is_too_old() -> None:
    """From block 5, which is older than the trusting period, the forgers' history would verify: so it may not."""
    chain, _ = make_replaced_chain()
    forger = fork_by_old_keys(chain, 6)
    root_ms = chain.blocks[5].header.time_ms
    client = chain.client(forger, root=5)
    with pytest.raises(TrustExpired, match="may have unbonded and could sign anything now"):
        client.update(root_ms + TRUSTING_PERIOD_MS)
    assert client.newest.height == 5


def test_a_fork_by_unbonded_keys_is_refused_from_a_younger_block() -> None:
    """Block 11 names new validators: what the old ones sign is worth nothing from there."""
    chain, _ = make_replaced_chain()
    forger = fork_by_old_keys(chain, 12)
    client = chain.client(forger, root=11)
    with pytest.raises(NotVerified, match="block 12 names the validators"):
        client.update(chain.now_ms)
    assert client.newest.height == 11


def test_within_the_trusting_period_a_witness_tells_the_fork() -> None:
    chain, _ = make_replaced_chain()
    client = chain.client(fork_by_old_keys(chain, 6), [chain.provider("honest")], root=5)
    with pytest.raises(Diverged) as refusal:
        client.update(chain.now_ms)
    assert refusal.value.attack.common_height == 5


def test_a_provider_cannot_keep_the_client_busy_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flockchain.light.client.MAX_BLOCKS_ASKED", 3)
    chain, _ = make_replaced_chain()
    with pytest.raises(NotVerified, match="took more than 3 blocks"):
        chain.client(mode="sequential").update(chain.now_ms)
    with pytest.raises(NotVerified, match="more than 3 below the lowest trusted block 9"):
        chain.client(root=9).verify_height(2, chain.now_ms)


# The store


def test_trust_survives_a_restart_and_old_blocks_are_forgotten(chain: LightChain, tmp_path: Path) -> None:
    path = tmp_path / "light.json"
    store = FileStore(path, chain.rules.genesis_hash, keep=5)
    chain.client(mode="sequential", store=store).update(chain.now_ms)
    assert list(store.heights()) == [16, 17, 18, 19, 20]
    again = FileStore(path, chain.rules.genesis_hash, keep=5)
    client = LightClient(chain.rules, chain.provider(), [], again, OPTIONS)
    assert client.newest == chain.blocks[20]
    assert [file.name for file in tmp_path.iterdir()] == ["light.json"]


def test_the_same_root_goes_on_and_another_one_begins_anew(chain: LightChain) -> None:
    client = chain.client()
    client.update(chain.now_ms)
    root, other = chain.blocks[1], chain.blocks[5]
    assert client.trust(1, root.block_id(), root.header.chain_id, chain.now_ms).height == 20
    assert client.trust(5, other.block_id(), other.header.chain_id, chain.now_ms).height == 5
    assert list(client._store.heights()) == [5]


def test_a_file_of_another_chain_or_a_damaged_one_is_refused(chain: LightChain, tmp_path: Path) -> None:
    path = tmp_path / "light.json"
    FileStore(path, chain.rules.genesis_hash).begin(chain.blocks[3], chain.blocks[3].block_id())
    with pytest.raises(Refused, match="name another file with --store"):
        FileStore(path, bytes(32))
    text = path.read_text()
    for damage in (text[:-20], "{}", "[]", text.replace('"format": 1', '"format": 2'), text.replace('["9', '["8')):
        path.write_text(damage)
        with pytest.raises(Fault):
            FileStore(path, chain.rules.genesis_hash)
