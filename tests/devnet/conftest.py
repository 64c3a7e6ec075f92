"""One network for all stories of this package (in each test process); each story finds its four nodes running."""

from collections.abc import Iterator

import pytest

from tests.devnet.network import Network


@pytest.fixture(scope="package")
def shared_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with Network(tmp_path_factory.mktemp("network") / "home") as network:
        yield network


@pytest.fixture
def network(shared_network: Network) -> Network:
    if not shared_network.is_running():
        shared_network.restart()
    return shared_network
