"""The demo's last step: measure the global adapter on text that nobody held, and write it as a PEFT folder."""

import json
from pathlib import Path

from flockchain.client import Client, Json
from flockchain.demo.plan import DataFiles, Size
from flockchain.errors import Fault
from flockchain.workers.store import AdapterFolder
from flockchain.workers.view import make_model
from ml.adapter import read_global, zero_global
from ml.data import make_blocks, read_documents
from ml.export import Card, export_peft
from ml.factors import make_global_factors
from ml.figures import compute_loss_ubpb
from ml.tokens import BaseTokenizer

SAMPLE_TEXTS_PER_DOMAIN = 2


def export_adapter(
    client: Client, task: Json, size: Size, base_dir: Path, data: DataFiles, folder: Path, home: Path
) -> dict[str, tuple[int, int]]:
    """Write `folder`; returns per domain the loss in fp32 before and after, in ubpb, on the test documents."""
    from ml.score import ScoringBase

    model = make_model(task, base_dir)
    adapter = zero_global(model.spec)
    if task["global_root"]:
        path = AdapterFolder(home / "workers" / "export", client).find(task["global_root"])
        if path is None:
            raise Fault(f"no node holds the global adapter {task['global_root']}: is the network still up?")
        adapter, _ = read_global(path, model.spec)
    base = ScoringBase.load(base_dir, model.spec, "fp32")
    tokenizer = BaseTokenizer(base_dir)
    losses: dict[str, tuple[int, int]] = {}
    sample: list[str] = []
    for domain, path in sorted(data.test.items()):
        documents = read_documents(path)
        blocks = [make_blocks([document], tokenizer, size.test_tokens)[0] for document in documents]
        before = compute_loss_ubpb(base.score(blocks))
        after = compute_loss_ubpb(base.score(blocks, make_global_factors(adapter, model.spec)))
        losses[domain] = (before, after)
        sample += [document.text for document in documents[:SAMPLE_TEXTS_PER_DOMAIN]]
    status = client.status()
    card = Card(
        name=f"{task['spec']['name']}: global adapter",
        base_name=size.name,
        license="apache-2.0",
        losses_ubpb=losses,
        origin=(
            f"Made without a central aggregator on chain `{status['chain_id']}`, task {task['id']}, "
            f"{task['settled_rounds']} training rounds; root `{task['global_root'] or 'none'}`."
        ),
    )
    export_peft(adapter, model.spec, base_dir, folder, card=card, sample=sample, scoring_base=base, dtype="fp32")
    (folder / "losses.json").write_text(json.dumps(losses, indent=2) + "\n")
    return losses
