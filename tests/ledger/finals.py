"""Hidden final sets: committed to, revealed or not, and judged, mostly as they should be."""

from flockchain.crypto import sha256
from flockchain.execution.final import get_final_judges
from flockchain.txs import commit_final, judge_final, reveal_final
from flockchain.types.final import FinalTerms
from flockchain.types.rows import FinalSet, FinalVote, OpenTask, Task
from flockchain.types.task import AdapterFigures, DomainFigure
from tests.ledger.choices import pick_task
from tests.ledger.dice import Dice
from tests.ledger.duties import hash_number
from tests.ledger.world import World

FLK = 1_000_000
PHASE_MS = 20_000


def find_finals(world: World, phase: str) -> list[tuple[Task, FinalSet]]:
    """Open tasks whose final set is in this phase."""
    pairs = [(world.state.get(Task, e.task), world.state.find(FinalSet, e.task)) for e in world.state.iterate(OpenTask)]
    return [(task, final) for task, final in pairs if final is not None and final.phase == phase]


def is_reveal_owed(world: World) -> bool:
    return bool(find_finals(world, "reveal"))


def is_judgement_owed(world: World) -> bool:
    return bool(_find_judges(world))


def _find_judges(world: World) -> list[tuple[Task, bytes]]:
    """Drawn judges that have not said anything."""
    return [
        (task, judge.address)
        for task, _ in find_finals(world, "judge")
        for judge in get_final_judges(world.state, task)
        if world.state.find(FinalVote, task.id, judge.address) is None
    ]


def make_terms(number: int, *, reveal_ms: int = PHASE_MS) -> FinalTerms:
    root = sha256(f"final set {number}".encode())
    return FinalTerms(root, 5_000, 1 + number * 7_919 % 500_000, reveal_ms, PHASE_MS, number % 3 * 1_000_003)


def make_commit_final(world: World, dice: Dice) -> tuple[str, commit_final.Body]:
    sender = dice.pick(world.actors)
    return sender, commit_final.Body(make_terms(dice.below(1_000), reveal_ms=dice.pick([PHASE_MS, PHASE_MS, 1])))


def make_reveal_final(world: World, dice: Dice) -> tuple[str, reveal_final.Body]:
    """By its creator, one time in eight by another; some are never revealed."""
    waiting = find_finals(world, "reveal")
    if not waiting or dice.is_one_in(8):
        return dice.pick(world.actors), reveal_final.Body(pick_task(world, dice))
    task, _ = dice.pick(waiting)
    return world.names[task.creator], reveal_final.Body(task.id)


def make_judge_final(world: World, dice: Dice) -> tuple[str, judge_final.Body]:
    owing = _find_judges(world)
    if not owing or dice.is_one_in(10):
        root = sha256(b"nobody's")
        return dice.pick(world.actors), judge_final.Body(pick_task(world, dice), _judge(b"", root, 1, 0))
    task, judge = dice.pick(owing)
    entry = _judge(judge, task.global_root, len(task.spec.domains), hash_number("work", task.id) % 4)
    return world.names[judge], judge_final.Body(task.id, entry)


def _judge(judge: bytes, root: bytes, domains: int, quality: int) -> AdapterFigures:
    """Three tasks in four improved; one judge in eight cannot read the file."""
    if hash_number("blind", judge, root) % 8 == 0:
        return AdapterFigures(root, "malformed", "simulated", (), ())
    change = (20_000 if quality == 3 else -40_000) + hash_number("noise", judge, root) % 100
    return AdapterFigures(
        root, "scored", "", tuple(DomainFigure(d, change, 900, change, 900) for d in range(domains)), ()
    )
