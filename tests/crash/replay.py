"""What is stored, executed once more from genesis."""

from flockchain.execution.genesis import build_state
from flockchain.genesis import load_genesis
from flockchain.node.home import Home
from flockchain.node.ledger import Ledger
from flockchain.store.chain_store import ChainStore
from tests.support.memory_ports import MemoryStore


def check_replay(home: Home) -> int:
    """Execute the stored blocks from genesis; their state root must be the stored one. Returns the height."""
    ledger = Ledger(MemoryStore(build_state(load_genesis(home.genesis)).rows()))
    store = ChainStore(home.chain)
    try:
        for height in range(1, store.height + 1):
            block, commit = store.block(height), store.commit(height)
            assert block is not None
            assert commit is not None
            ledger.check_commit(block, commit)
            ledger.check(block, ())
            ledger.apply(block, commit)
        assert ledger.tree.root == store.state_root()
        return store.height
    finally:
        store.close()
