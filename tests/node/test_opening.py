"""A validator's key is opened beside a chain's file that ends before what the key signed, or without its log."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from flockchain.codec import encode
from flockchain.errors import Fault, Refused
from flockchain.node.config import Config, P2pConfig
from flockchain.node.home import Home, create_home
from flockchain.node.ledger import Ledger
from flockchain.node.opening import leave_height_without_log, open_signer, open_store
from flockchain.node.records import StartRecord
from flockchain.node.signer import PersistedSigner, read_signed_height
from flockchain.node.wal import WriteAheadLog
from flockchain.types.chain import PREVOTE, VoteBody
from tests.support.ledger import make_genesis, make_key

GENESIS = make_genesis()
SIGNED = 7
WITH_PEER = Config(p2p=P2pConfig(persistent_peers=("127.0.0.1:26600",)))


def vote_at(height: int, round: int = 0) -> VoteBody:
    return VoteBody(PREVOTE, height, round, b"b" * 32)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Its key has prevoted at height 7."""
    made = create_home(tmp_path, validator_key=make_key("val0"))
    PersistedSigner(make_key("val0"), made.signer_state, GENESIS.hash()).sign_vote(vote_at(SIGNED))
    return made


def test_with_the_block_before_in_the_file_the_height_goes_on(home: Home) -> None:
    signer = open_signer(Config(), home, GENESIS, height=SIGNED - 1)
    assert signer is not None
    signer.sign_vote(vote_at(SIGNED, round=1))


def test_without_it_the_key_votes_only_above_what_it_signed_also_after_another_start(home: Home) -> None:
    """The log went with the blocks, and the lock of height 7 with it: another round there might break it."""
    for height in (0, 3, SIGNED - 2):
        with capture_logs() as logs:
            signer = open_signer(WITH_PEER, home, GENESIS, height)
        assert signer is not None
        [told] = logs
        assert f"ends at height {height} and this key signed at height {SIGNED}" in told["reason"]
        assert f"votes from height {SIGNED + 1} on" in told["then"]
        with pytest.raises(Refused, match="already signed beyond"):
            signer.sign_vote(vote_at(SIGNED, round=1))
    signer = open_signer(WITH_PEER, home, GENESIS, height=SIGNED)
    assert signer is not None
    signer.sign_vote(vote_at(SIGNED + 1))


def test_where_no_peer_could_give_the_blocks_it_stops_and_changes_nothing(home: Home) -> None:
    with pytest.raises(Fault, match="put the newest copy of the file back, or name a node that has the chain"):
        open_signer(Config(), home, GENESIS, height=0)
    assert read_signed_height(home.signer_state)[1] == SIGNED
    assert open_signer(Config(), home, GENESIS, height=SIGNED) is not None


# A log that is gone


def start_beside(home: Home, signer: PersistedSigner, validators: int = 4) -> None:
    """What a start makes of a log that has what `home` holds, with a chain that has decided nothing yet."""
    store = open_store(home, make_genesis(validators=validators))
    log_file = WriteAheadLog(home.wal)
    try:
        leave_height_without_log(home, signer, log_file, Ledger(store))
    finally:
        log_file.close()
        store.close()


def open_key(home: Home) -> PersistedSigner:
    return PersistedSigner(make_key("val0"), home.signer_state, GENESIS.hash())


@pytest.fixture
def begun(tmp_path: Path) -> Home:
    """Its key has prevoted at height 1, the first."""
    made = create_home(tmp_path, validator_key=make_key("val0"))
    open_key(made).sign_vote(vote_at(1))
    return made


def test_without_the_log_of_the_height_in_progress_the_key_votes_only_above_it(begun: Home) -> None:
    signer = open_key(begun)
    with capture_logs() as logs:
        start_beside(begun, signer)
    [told] = logs
    assert "holds nothing of height 1, at which this key signed already" in told["reason"]
    assert "votes from height 2 on" in told["then"]
    for key in (signer, open_key(begun)):
        for round in (0, 1, 9):
            with pytest.raises(Refused, match="already signed beyond height 1"):
                key.sign_vote(vote_at(1, round=round))
    signer.sign_vote(vote_at(2))


def test_it_is_said_once_and_changes_nothing_the_next_time(begun: Home) -> None:
    start_beside(begun, open_key(begun))
    before = begun.signer_state.read_bytes()
    with capture_logs() as logs:
        start_beside(begun, open_key(begun))
    assert not logs
    assert begun.signer_state.read_bytes() == before


def test_with_its_log_the_height_goes_on(begun: Home) -> None:
    log_file = WriteAheadLog(begun.wal)
    log_file.append(encode(StartRecord(1)))
    log_file.close()
    signer = open_key(begun)
    start_beside(begun, signer)
    assert signer.sign_vote(vote_at(1, round=1)).body == vote_at(1, round=1)
    assert signer.unfinished_height == 1


def test_a_key_that_signed_nothing_of_this_height_needs_no_log(tmp_path: Path) -> None:
    fresh = create_home(tmp_path, validator_key=make_key("val0"))
    signer = open_key(fresh)
    with capture_logs() as logs:
        start_beside(fresh, signer)
    assert not logs
    assert signer.sign_vote(vote_at(1)).body == vote_at(1)


@pytest.mark.parametrize("validators", [1, 2, 3])
def test_without_the_log_a_key_that_no_block_can_do_without_stops_and_changes_nothing(
    begun: Home, validators: int
) -> None:
    before = begun.signer_state.read_bytes()
    with pytest.raises(Fault, match=r"no block is decided without it.*put the file back.*enabled = false"):
        start_beside(begun, open_key(begun), validators)
    assert begun.signer_state.read_bytes() == before
