"""`flockchain demo`: the main job from nothing."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from flockchain.cli.common import HomeOption, JsonFlag, console, print_json
from flockchain.errors import Refused


def demo(
    model: Annotated[
        str, typer.Option(help="demo (SmolLM2-135M-Instruct) or tiny (random weights, seconds).")
    ] = "demo",
    attack: Annotated[
        str, typer.Option(help="What the poisoner sends, such as gradient_ascent or sign_flip (docs/attacks.md).")
    ] = "gradient_ascent",
    seed: Annotated[int, typer.Option(help="Deals the documents and orders the training data.")] = 0,
    rounds: Annotated[int | None, typer.Option(help="Training rounds. Default: 3.", min=1, max=100)] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda, for trainers and judges.")] = "cpu",
    home: HomeOption = None,
    base_port: Annotated[int | None, typer.Option(help="First port of the network. Default: a free range.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the nodes running afterwards.")] = False,
    json: JsonFlag = False,
) -> None:
    """Four validators and seven participants fine-tune a real language model; one of them poisons.

    Example: flockchain demo --model tiny
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' bars would break ours
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from flockchain.demo.plan import SIZES
    from flockchain.demo.run import Options, run_demo
    from flockchain.demo.summary import make_document, print_summary
    from flockchain.demo.watch import Watcher
    from ml.attacks import list_lone_attacks

    if model not in SIZES:
        raise Refused("unknown-model", f"no demo of model {model!r}; there are: {', '.join(SIZES)}")
    if attack not in list_lone_attacks():
        raise Refused("unknown-attack", f"no attack {attack!r}; there are: {', '.join(list_lone_attacks())}")
    folder = home or Path(tempfile.mkdtemp(prefix="flockchain-demo-"))
    options = Options(
        home=folder,
        size=model,
        attack=attack,
        seed=seed,
        keep=keep,
        base_port=base_port,
        rounds=rounds,
        device=device,
    )
    out = console(stderr=json)
    outcome = run_demo(options, Watcher(out))
    if json:
        print_json(make_document(outcome))
    else:
        print_summary(outcome, out)
