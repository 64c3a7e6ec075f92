"""A validator's home copied to a second machine: the chain finds both signatures, and the key is out for good.

`docs/operations.md` says never to do this. The copy's signer state was right when it was copied, so neither signer can
know of the other; what catches them is evidence. Real processes with one key: `tests/devnet/test_copied_key.py`.
"""

from pathlib import Path

from flockchain.types.rows import ValidatorRow
from tests.support.cluster import Cluster, Machine
from tests.support.ledger import make_address, make_beacon_chain, make_key
from tests.support.memory_ports import MemorySigner


def test_a_key_that_runs_on_two_machines_is_slashed_once_and_tombstoned(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, seed=5)
    cluster.run_to(2)
    copy = Machine(cluster, 4, is_validator=False)
    copy.signer = MemorySigner(make_key("val3"), cluster.genesis_hash, make_beacon_chain("val3"))
    cluster.machines.append(copy)
    cluster.restart(copy)
    honest, key = cluster.machines[:3], make_address("val3")
    bond_before = honest[0].running.ledger.state.get(ValidatorRow, key).bond_uflk
    for i in range(40):
        # Two machines see other transactions first, so that their proposals for one round differ.
        cluster.machines[3].running.submit(cluster.transfer("alice", "bob", i + 1))
        copy.running.submit(cluster.transfer("carol", "dave", i + 1))
        cluster.world.run_for(300)
        if honest[0].running.ledger.state.get(ValidatorRow, key).tombstoned:
            break
    for machine in honest:
        row = machine.running.ledger.state.get(ValidatorRow, key)
        assert row.tombstoned, "two proposals or votes of one step are evidence"
        assert row.bond_uflk < bond_before
    height = min(machine.height for machine in honest)
    honest[0].running.submit(cluster.transfer("erin", "frank", 1))
    cluster.world.run_until(lambda: min(machine.height for machine in honest) > height)
    others = {make_address(f"val{i}") for i in range(3)}
    for machine in honest:
        assert not any(machine.running.ledger.state.get(ValidatorRow, other).tombstoned for other in others)
    cluster.check_agreement()
