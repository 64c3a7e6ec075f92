"""Who sends transactions: someone pays somewhere all the time, and when all is healed one wish goes to each node."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from flockchain.crypto import sha256
from flockchain.errors import Refused
from flockchain.node.ports import PeerId

from .dice import Dice
from .genesis import PAYERS, Pen, key_of
from .machine import Machine

PAYMENT_MS = 150
WISH_MS = 500
"""How long after healing the wishes are sent."""


class World(Protocol):
    now_ms: int
    dice: Dice
    pen: Pen
    machines: Mapping[PeerId, Machine]

    def call_in(self, delay_ms: int, action: Callable[[], None]) -> None: ...
    def note(self, *what: object) -> None: ...


class Clients:
    """`wishes_left`: wishes that are in no block yet; None before they were sent."""

    def __init__(self, world: World) -> None:
        self.wishes_left: set[bytes] | None = None
        self._world = world
        self._included: set[bytes] = set()

    def begin(self) -> None:
        self._world.call_in(PAYMENT_MS, self._pay)

    def on_healed(self) -> None:
        self._world.call_in(WISH_MS, self._wish)

    def on_included(self, hashes: Iterable[bytes]) -> None:
        """A block with these transactions was decided."""
        self._included.update(hashes)
        if self.wishes_left is not None:
            self.wishes_left -= self._included

    def _pay(self) -> None:
        """So that there is work."""
        world = self._world
        world.call_in(world.dice.between(1, 2 * PAYMENT_MS), self._pay)
        machine = world.dice.pick(list(world.machines.values()))
        if machine.node is not None:
            payer = world.dice.pick(PAYERS)
            nonce = machine.node.ledger.next_nonce(key_of(payer).address)
            self._submit(machine, world.pen.transfer(payer, nonce, world.now_ms, world.dice.between(1, 9)))

    def _wish(self) -> None:
        """One transaction for each honest node, of an account that sends nothing else."""
        world = self._world
        wishes = [world.pen.transfer(f"wish{i}", 0, world.now_ms) for i in range(len(world.machines))]
        self.wishes_left = {sha256(data) for data in wishes}
        for machine, data in zip(world.machines.values(), wishes, strict=True):
            self._submit(machine, data)

    def _submit(self, machine: Machine, data: bytes) -> None:
        def submit() -> None:
            try:
                machine.running.submit(data)
            except Refused as refusal:
                self._world.note(machine.name, "refuses", refusal.code)

        machine.handling = "client"
        machine.guard(submit)
