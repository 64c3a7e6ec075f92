"""The node of the round of large adapters: `python -m bench.adapter_set_node FORM FOLDER` serves until stdin ends.

The API over a real store, reader and blob store; only the chain behind it is made by hand.
"""

import json
import sys
from pathlib import Path

import msgspec

from bench.adapter_set_steps import FORMS, AdapterSet
from bench.rest import serving
from tests.api.node import running_node
from tests.api.rows import make_round


def main(form: str, folder: str) -> int:
    given = AdapterSet(FORMS[form], Path(folder))
    home = given.folder / "node"
    home.mkdir()
    with running_node(home) as node:
        published = msgspec.structs.replace(make_round("publish"), number=2)
        node.produce(given.task, published, *(given.make_adapter(root) for root in given.read_roots()))
        with serving(node.app) as url:
            print(json.dumps({"url": url}), flush=True)
            sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
