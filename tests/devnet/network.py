"""A devnet of real node processes for tests: kill one with -9, start it again, compare what all of them decided."""

import os
import signal
from pathlib import Path

import httpx
from nacl.signing import SigningKey

from flockchain.client import Client, Json
from flockchain.crypto import address_of, format_address
from flockchain.devnet import (
    Devnet,
    create_devnet,
    derive_key,
    find_free_base_port,
    running_pids,
    start_devnet,
    stop_devnet,
)
from flockchain.params import ConsensusParams, Params, StakeParams
from tests.support.processes import wait_until

CHAIN_ID = "flock-faults"
CREATOR = "creator"
TRAINERS = tuple(f"trainer{i}" for i in range(8))
JUDGES = tuple(f"judge{i}" for i in range(3))
VALIDATORS = 4
PARAMS = Params(
    consensus=ConsensusParams(
        timeout_propose_ms=300, timeout_propose_delta_ms=200, timeout_prevote_ms=200, timeout_precommit_ms=200
    ),
    stake=StakeParams(unbonding_ms=600_000, evidence_age_ms=500_000, trusting_period_ms=400_000),
)
"""As a devnet's, with shorter timeouts: a dead proposer costs a test a third of a second, not a whole one."""


class Network:
    """Four validators and funded accounts; a context manager that stops every process by its id."""

    def __init__(self, home: Path) -> None:
        self.devnet: Devnet = create_devnet(
            home,
            validators=VALIDATORS,
            base_port=find_free_base_port(VALIDATORS),
            accounts=(CREATOR, *TRAINERS, *JUDGES),
            chain_id=CHAIN_ID,
            params=PARAMS,
        )
        self.urls = self.devnet.api_urls()

    def __enter__(self) -> "Network":
        try:
            start_devnet(self.devnet)
        except BaseException:
            stop_devnet(self.devnet)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop_devnet(self.devnet)

    def client(self, first: int = 0) -> Client:
        """A client that asks node `first` before the others."""
        return Client(self.urls[first:] + self.urls[:first])

    def kill(self, index: int) -> None:
        """kill -9, and wait until the process is gone."""
        pid = running_pids(self.devnet)[index]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: index not in running_pids(self.devnet))

    def restart(self) -> None:
        """Start the nodes that do not run, as `devnet up` does."""
        start_devnet(self.devnet)

    def is_running(self) -> bool:
        return len(running_pids(self.devnet)) == VALIDATORS

    def status(self, index: int) -> Json:
        answer = httpx.get(f"{self.urls[index]}/v1/status", timeout=10, trust_env=False)
        found: Json = answer.json()
        return found

    def check_agreement(self, timeout_s: float = 30.0) -> None:
        """Every node reaches the height that the furthest one has now, and all have one state root there."""
        height = max(int(self.status(i)["height"]) for i in range(VALIDATORS))
        wait_until(lambda: min(int(self.status(i)["height"]) for i in range(VALIDATORS)) >= height, timeout_s)
        roots = [
            httpx.get(f"{url}/v1/blocks/{height}", timeout=10, trust_env=False).json()["state_root"]
            for url in self.urls
        ]
        assert len(set(roots)) == 1, f"state roots after block {height}: {roots}"

    def check_nobody_signed_twice(self) -> None:
        """No signer had to refuse, and no evidence against a validator came before the chain."""
        for index in range(VALIDATORS):
            logs = self.devnet.node_home(index) / "logs"
            said = "".join(path.read_text(errors="replace") for path in sorted(logs.iterdir()))
            assert "signer-refused" not in said
            assert "Traceback" not in said
        validators = {format_address(make_address(f"owner{i}")) for i in range(VALIDATORS)}
        with self.client() as client:
            slashed = [item for item in client.pages("/receipts", kind="slash") if item["account"] in validators]
            listed = list(client.pages("/validators"))
        assert not slashed
        assert len(listed) == VALIDATORS
        assert not any(validator["tombstoned"] or validator["jailed_until_ms"] for validator in listed)


def make_key(name: str) -> SigningKey:
    """Of an account (`trainer0`), of a validator's owner (`owner0`) or of a validator (`validator0`)."""
    return derive_key(CHAIN_ID, name)


def make_address(name: str) -> bytes:
    return address_of(bytes(make_key(name).verify_key))
