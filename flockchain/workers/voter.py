"""The committee member: fetch every adapter, judge each on the private holdout, seal the vote, open it, attest.

The seal's salt is HMAC(voter key, task, round): a restarted voter finds it again, nobody else can guess it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nacl.signing import SigningKey

from flockchain.client import Client, Json
from flockchain.codec import Canonical
from flockchain.txs import confirm_fetched, vote
from flockchain.types.task import AdapterFigures, Ballot, DomainFigure, Screen
from flockchain.workers.attester import Attester, MakeMeter, encode_screens
from flockchain.workers.finalist import FinalJudge, MakeFinalMeter
from flockchain.workers.participant import Participant, Report, log_report
from flockchain.workers.sealing import compute_salt
from flockchain.workers.store import AdapterFolder
from flockchain.workers.view import Model, make_judge_spec, make_model, make_submission
from ml import judge
from ml.data import Block, Holdout
from ml.judge_process import JudgingProcess, Setting, write_holdouts

FETCH_MARGIN_MS = 3_000
"""So long before PUBLISH ends, or a quarter of a short one, a member says what it could not fetch."""
JUDGE_TIMEOUT_S = 900.0
ChooseBlocks = Callable[[str, bytes, int], Sequence[Block]]
"""(domain, beacon, number of blocks) -> the blocks of the committed holdout on which this round judges."""


class Voter(Participant):
    """Judges the rounds in which it is drawn, in a process of its own (`ml.judge_process`)."""

    def __init__(
        self,
        client: Client,
        key: SigningKey,
        task: int,
        folder: Path,
        *,
        base_dir: Path,
        choose_blocks: ChooseBlocks,
        holdout_domains: Sequence[str],
        threads: int = 1,
        device: str = "cpu",
        dtype: str | None = None,
        make_meter: MakeMeter | None = None,
        make_final_meter: MakeFinalMeter | None = None,
        report: Report = log_report,
    ) -> None:
        """`dtype` None: the task's. The two meters measure in the place of the judging process, never started then."""
        super().__init__(client, key, task, folder, report)
        self.base_dir = base_dir
        self.choose_blocks = choose_blocks
        self.holdout_domains = tuple(holdout_domains)
        self.threads, self.device, self.dtype = threads, device, dtype
        self.adapters = AdapterFolder(folder / "adapters", client)
        self.make_meter: MakeMeter = make_meter or self.meter
        self.attester = Attester(self, self.adapters, base_dir, self.make_meter)
        self.final_judge = FinalJudge(self, self.adapters, base_dir, make_final_meter or self.final_meter)
        self._judging: JudgingProcess | None = None

    def run(self) -> None:
        try:
            super().run()
        finally:
            if self._judging is not None:
                self._judging.close()

    def finish(self, task: Json) -> None:
        self.attester.upload_settled(task)

    def step(self, task: Json, round_: Json) -> None:
        self.attester.upload_settled(task)
        if round_["phase"] == "settled":
            self.final_judge.step(task)
            return
        if round_["phase"] == "aggregate":
            self.attester.step(task, round_)
            return
        if self.me not in (member["address"] for member in round_["committee"]):
            return
        if round_["phase"] == "publish":
            self._confirm_fetched(task, round_)
        elif round_["phase"] == "commit":
            self._seal(task, round_)
        elif round_["phase"] == "reveal":
            self._open(task, round_)

    # PUBLISH

    def _confirm_fetched(self, task: Json, round_: Json) -> None:
        if any(row["member"] == self.me for row in round_["fetched"]):
            return
        missing = [row["root"] for row in round_["submissions"] if self.adapters.find(row["root"]) is None]
        margin_ms = min(FETCH_MARGIN_MS, task["spec"]["phases"]["publish_ms"] // 4)
        if missing and round_["deadline_ms"] - self.now_ms() > margin_ms:
            return
        unavailable = tuple(sorted(bytes.fromhex(root) for root in missing))
        self.send_once(
            self._name(task, round_, "fetched"),
            confirm_fetched.KIND,
            lambda: confirm_fetched.Body(task["id"], round_["number"], unavailable),
        )

    # COMMIT and REVEAL

    def _seal(self, task: Json, round_: Json) -> None:
        if any(row["voter"] == self.me for row in round_["sealed_votes"]):
            return
        ballot = self._ballot(task, round_)
        seal = vote.compute_seal(self.client.network().genesis_hash, ballot, self.address, self._salt(task, round_))
        self.send_once(
            self._name(task, round_, "seal"), vote.KIND, lambda: vote.Body(task["id"], round_["number"], seal=seal)
        )

    def _open(self, task: Json, round_: Json) -> None:
        is_sealed = any(row["voter"] == self.me for row in round_["sealed_votes"])
        is_open = any(row["voter"] == self.me for row in round_["open_votes"])
        ballot = self.kept_body(self._name(task, round_, "ballot"), Ballot)
        if not is_sealed or is_open or ballot is None:
            return
        salt = self._salt(task, round_)

        def make() -> Canonical:
            assert isinstance(ballot, Ballot)
            return vote.Body(task["id"], round_["number"], ballot=ballot, salt=salt)

        self.send_once(self._name(task, round_, "open"), vote.KIND, make)

    def _ballot(self, task: Json, round_: Json) -> Ballot:
        """This round's ballot, judged once and kept: a restarted voter never judges to other figures."""
        name = self._name(task, round_, "ballot")
        kept = self.kept_body(name, Ballot)
        if isinstance(kept, Ballot):
            return kept
        ballot = self._judge(task, round_)
        self.keep_body(name, ballot)
        return ballot

    def _judge(self, task: Json, round_: Json) -> Ballot:
        model = make_model(task, self.base_dir)
        assigned: list[str] = next((row["roots"] for row in round_["assignments"] if row["voter"] == self.me), [])
        rows = sorted(round_["submissions"], key=lambda row: (row["height"], row["root"]))
        published = [row for row in rows if row["root"] in round_["published"]]
        submissions = [make_submission(task, round_, r, model.spec, self.adapters.find(r["root"])) for r in published]
        self.report("judging", {"round": round_["number"], "adapters": len(assigned)})
        report = judge.judge_round(
            self.make_meter(task, round_, model),
            model.spec,
            submissions,
            max_bytes=model.max_adapter_bytes,
            norm_cap=model.norm_cap,
            copy_cosine_ppm=task["spec"]["judge"]["copy_cosine_ppm"],
            assigned=frozenset(assigned),
        )
        self.report("judged", {"tokens": report.tokens, "seconds": round(report.seconds, 1)})
        figures = tuple(encode_figures(entry, model.domains, task) for entry in report.figures)
        return Ballot(task["id"], round_["number"], figures)

    def meter(self, task: Json, round_: Json, model: Model) -> JudgingProcess:
        """The warm judging process, set to this round's blocks and reference adapters."""
        beacon = next(bytes.fromhex(draw["beacon"]) for draw in round_["draws"] if draw["role"] == "voter")
        count = _count_blocks(task)
        holdouts = {domain: self.choose_blocks(domain, beacon, count) for domain in self.holdout_domains}
        current, best = round_["base_root"] or "", task["best_root"] or ""
        return self._use(self._setting(task, model, f"round{round_['number']}", holdouts, current, best))

    def final_meter(self, task: Json, final: Json, model: Model, holdout: Holdout) -> JudgingProcess:
        """The same process, set to the revealed text and to the adapter with which the task began."""
        beacon = bytes.fromhex(final["draw"]["beacon"])
        blocks = {domain: holdout.draw(domain, beacon, _count_blocks(task)) for domain in model.domains}
        first = task["spec"]["initial_adapter"] or ""
        return self._use(self._setting(task, model, "final", blocks, first, first))

    def _use(self, setting: Setting) -> JudgingProcess:
        if self._judging is None:
            self._judging = JudgingProcess(
                setting, threads=self.threads, timeout_s=JUDGE_TIMEOUT_S, log=self.folder / "judging.log"
            )
        self._judging.use(setting)
        return self._judging

    def _setting(
        self, task: Json, model: Model, name: str, holdouts: Mapping[str, Sequence[Block]], current: str, best: str
    ) -> Setting:
        """`current` and `best`: roots of the reference adapters, empty for the base itself."""
        path = self.folder / f"holdouts-{name}.json"
        write_holdouts(path, holdouts)
        return Setting(
            base_dir=model.base_dir,
            spec=model.spec,
            judge_spec=make_judge_spec(task),
            dtype=self.dtype or model.precision,
            holdouts=path,
            current=(current, self._global_path(current)),
            best=(best, self._global_path(best)),
            device=self.device,
        )

    def _global_path(self, root: str) -> Path | None:
        return self.adapters.find(root) if root else None

    def _salt(self, task: Json, round_: Json) -> bytes:
        return compute_salt(self.key, task["id"], round_["number"])

    def _name(self, task: Json, round_: Json, what: str) -> str:
        return f"task{task['id']}-round{round_['number']}-{what}"


def _count_blocks(task: Json) -> int:
    """Blocks of a domain that the task's budget allows."""
    judge_spec = make_judge_spec(task)
    return int(judge_spec.judge_tokens // judge_spec.block_tokens)


def encode_figures(entry: judge.AdapterFigures, domains: Sequence[str], task: Json) -> AdapterFigures:
    """A judge's report of one adapter in the integers of the chain."""
    figures = tuple(
        DomainFigure(
            domain=domains.index(figure.domain),
            change_ppm=figure.current.change_ppm,
            se_ppm=figure.current.se_ppm,
            best_change_ppm=figure.best.change_ppm,
            best_se_ppm=figure.best.se_ppm,
        )
        for figure in entry.domains
    )
    threshold = task["spec"]["judge"]["copy_cosine_ppm"]
    screens = (
        Screen("cosine_ppm", entry.cosine_ppm, threshold, entry.cosine_ppm > threshold),
        Screen("norm_ratio_ppm", entry.norm_ratio_ppm, 0, False),
        *encode_screens(entry.screens),
    )
    return AdapterFigures(
        root=bytes.fromhex(entry.root),
        status=entry.status,
        reason=entry.reason[:256],
        domains=tuple(sorted(figures, key=lambda figure: figure.domain)),
        screens=tuple(sorted(screens, key=lambda screen: screen.name)) if entry.status in ("scored", "copy") else (),
    )
