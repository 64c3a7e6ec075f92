"""The trainer: in TRAIN, an update on private data, its root on the chain; from PUBLISH on, its bytes to a node."""

from collections.abc import Callable
from pathlib import Path

from nacl.signing import SigningKey

from flockchain import __version__
from flockchain.client import Client, Json
from flockchain.errors import Refused
from flockchain.txs import submit_adapter
from flockchain.workers.attester import Attester
from flockchain.workers.participant import Participant, Report, log_report
from flockchain.workers.store import AdapterFolder
from flockchain.workers.view import Model, make_model, make_train_spec
from ml.adapter import GlobalAdapter, Update, make_update_manifest, read_global, write_update
from ml.spec import TrainSpec

MakeUpdate = Callable[[Model, TrainSpec, GlobalAdapter | None], tuple[Update, int]]
"""(update, number of examples) from the task's model, the local steps and the global adapter (None: the base)."""


class Trainer(Participant):
    """Trains one adapter per round in which it is drawn."""

    def __init__(
        self,
        client: Client,
        key: SigningKey,
        task: int,
        folder: Path,
        *,
        base_dir: Path,
        make_update: MakeUpdate,
        seed: int = 0,
        report: Report = log_report,
    ) -> None:
        super().__init__(client, key, task, folder, report)
        self.base_dir = base_dir
        self.make_update = make_update
        self.seed = seed
        self.adapters = AdapterFolder(folder / "adapters", client)
        self.attester = Attester(self, self.adapters, base_dir)
        self._published: set[tuple[str, str]] = set()
        """(root, node that has its bytes from us)."""

    def finish(self, task: Json) -> None:
        self.attester.upload_settled(task)

    def step(self, task: Json, round_: Json) -> None:
        self.attester.upload_settled(task)
        if round_["phase"] == "aggregate":
            self.attester.step(task, round_)
        if self.me not in round_["trainers"]:
            return
        mine = next((row for row in round_["submissions"] if row["trainer"] == self.me), None)
        if mine is None:
            if round_["phase"] == "train" and not round_["draw_height"]:
                self._submit(task, round_)
        elif round_["phase"] not in ("enroll", "train"):
            self._publish(mine["root"])

    def _submit(self, task: Json, round_: Json) -> None:
        name = f"task{task['id']}-round{round_['number']}-submit"
        if self.kept_body(name, submit_adapter.Body) is not None:
            self.send_kept(name, submit_adapter.KIND)
            return
        body = self._train(task, round_)
        if body is not None:
            self.send_once(name, submit_adapter.KIND, lambda: body)

    def _train(self, task: Json, round_: Json) -> submit_adapter.Body | None:
        """Train from the round's global adapter; None while its bytes are not to be had."""
        model = make_model(task, self.base_dir)
        base_root = round_["base_root"] or ""
        start: GlobalAdapter | None = None
        if base_root:
            path = self.adapters.find(base_root)
            if path is None:
                self.report("waiting for the global adapter", {"root": base_root})
                return None
            start, _ = read_global(path, model.spec)
        self.report("training", {"round": round_["number"]})
        update, examples = self.make_update(model, make_train_spec(task, self.seed + round_["number"]), start)
        made = self.folder / f"round{round_['number']}.safetensors"
        manifest = make_update_manifest(
            model.spec, task=task["id"], round=round_["number"], trainer=self.me, base_root=base_root
        )
        write_update(made, update, manifest)
        root, size = self.adapters.keep(made)
        self.report("trained", {"round": round_["number"], "root": root, "size_bytes": size})
        return submit_adapter.Body(
            task=task["id"],
            round=round_["number"],
            root=bytes.fromhex(root),
            size_bytes=size,
            base_root=bytes.fromhex(base_root),
            examples=examples,
            versions=f"flockchain {__version__}",
        )

    def _publish(self, root: str) -> None:
        """Upload once to the node that answers us; to the next one too, if that changed: the first may be lost."""
        if (root, self.client.node) in self._published:
            return
        try:
            self.client.put_blob(bytes.fromhex(root), self.adapters.path(root))
        except Refused as refusal:
            self.report("upload refused", {"root": root, "message": refusal.message})
            return
        self._published.add((root, self.client.node))
        self.report("published", {"root": root})
