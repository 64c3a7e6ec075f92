"""A validator's key is opened beside a chain's file that ends before what the key signed."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from flockchain.errors import Fault, Refused
from flockchain.node.config import Config, P2pConfig
from flockchain.node.home import Home, create_home
from flockchain.node.opening import open_signer
from flockchain.node.signer import PersistedSigner, read_signed_height
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
