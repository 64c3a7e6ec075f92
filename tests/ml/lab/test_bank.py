"""The bank: real adapters of the tiny model, trained, attacked and measured block by block."""

from pathlib import Path

import pytest

from ml.domains import DOMAINS, ByDomain, read_domain
from ml.figures import compute_change
from ml.lab import bank
from ml.lab.bank import HONEST, Bank, plan_bank, read_bank
from ml.lab.cells import Cell, Work
from ml.lab.engine import run_cells
from ml.lab.settings import read_settings
from ml.lab.task import make_meter_spec

SMALL = {
    "honest": 1,
    "malicious": 1,
    "attacks": ["gradient_ascent"],
    "pool_documents": 8,
    "warm_rounds": 1,
    "local_steps": 8,
}


def deal_few(seed: int, pool_documents: int) -> tuple[ByDomain, ByDomain]:
    """Sixteen documents of each domain to train on, without looking for near-duplicates among all."""
    found = {name: read_domain(name)[: pool_documents + 16] for name in DOMAINS}
    return {n: d[pool_documents:] for n, d in found.items()}, {n: d[:pool_documents] for n, d in found.items()}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder = tmp_path_factory.mktemp("bank")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOCKCHAIN_CACHE", str(folder / "cache"))
        patch.setattr(bank, "_deal_documents", deal_few)
        cells = plan_bank(read_settings("economics", quick=True, overrides={"bank": SMALL}))
        run_cells(cells, folder, jobs=0, commit="")
    return read_bank(cells, Work(Cell("all", "", {}, tuple(cells)), Path(folder)))


def test_every_author_is_measured_on_every_block(measured: Bank) -> None:
    assert [adapter.author for adapter in measured.adapters] == [*(f"{HONEST}/{d}" for d in DOMAINS), "gradient_ascent"]
    assert all(len(documents) == 8 for documents in measured.blocks_by_document.values())
    for adapter in measured.adapters:
        assert {d: len(found) for d, found in adapter.losses.items()} == {
            d: len(found) for d, found in measured.reference.items()
        }


def test_the_honest_help_their_domain_and_the_poisoner_harms_all(measured: Bank) -> None:
    spec = make_meter_spec({"z_milli": 3600, "tolerance_ppm": 7500, "min_blocks": 8, "min_documents": 4})

    def change(author: str, domain: str) -> int:
        (adapter,) = measured.find(author)
        found = compute_change(adapter.losses[domain], measured.reference[domain], spec)
        assert found is not None
        return found.change_ppm

    assert all(change(f"{HONEST}/{domain}", domain) < 0 for domain in DOMAINS)
    assert all(change("gradient_ascent", domain) > 0 for domain in DOMAINS)
