"""Peer exchange: a node asks whom it dialled for contacts, and answers who dialled it (sans-I/O).

Only peers that we chose are asked, and only answers to a question are taken: who dials us cannot push contacts
into our book beyond its own (Heilman and others 2015, section 7).
"""

from typing import Annotated

from msgspec import Meta

from flockchain.codec import Canonical, encode
from flockchain.errors import Malformed, Refused
from flockchain.node.messages import decode_tagged, make_decoder
from flockchain.node.net.contacts import Contact, check_contact
from flockchain.node.ports import PeerId

MAX_CONTACTS_TOLD = 64
"""Of one answer."""
SHARE_TOLD_PERCENT = 23
"""Of a large book, as Bitcoin tells: nobody learns the whole of it at once."""


class ContactRequest(Canonical, frozen=True, tag=1):
    """Ask for contacts; `own` holds the asker's, when it has one of its own to tell."""

    own: Annotated[tuple[Contact, ...], Meta(max_length=1)]


class Contacts(Canonical, frozen=True, tag=2):
    """The answer."""

    contacts: Annotated[tuple[Contact, ...], Meta(max_length=MAX_CONTACTS_TOLD)]


ExchangeMessage = ContactRequest | Contacts
_decoder = make_decoder(ExchangeMessage)


class Exchange:
    """The rules of one connection, for both sides of it."""

    def __init__(self, peer: PeerId, *, is_outbound: bool, ask_interval_s: float) -> None:
        self._peer = peer
        self._is_outbound = is_outbound
        self._ask_interval_s = ask_interval_s
        self._asked_s: float | None = None
        self._is_answer_due = False
        self._heard_s: float | None = None

    def ask(self, now_s: float, own: tuple[Contact, ...]) -> bytes | None:
        """The question to send now; None when it is not time, or not ours to ask."""
        is_early = self._asked_s is not None and now_s < self._asked_s + self._ask_interval_s
        if not self._is_outbound or is_early:
            return None
        self._asked_s = now_s
        self._is_answer_due = True
        return encode(ContactRequest(own))

    def read(self, data: bytes, now_s: float) -> ExchangeMessage:
        """What the peer said, checked; raises `Refused` when it is at fault."""
        message: ExchangeMessage = decode_tagged(_decoder, data, "peer exchange")
        if isinstance(message, ContactRequest):
            self._check_request(message, now_s)
        else:
            self._check_answer(message)
        return message

    def _check_request(self, request: ContactRequest, now_s: float) -> None:
        if self._is_outbound:
            raise Refused("bad-exchange", "a peer that we dialled asks for contacts: only who dials may")
        # Half of the asker's own interval, for the clocks and the network between.
        if self._heard_s is not None and now_s < self._heard_s + self._ask_interval_s / 2:
            raise Refused(
                "bad-exchange",
                f"contacts were asked for twice in {now_s - self._heard_s:.1f} s, once in {self._ask_interval_s:g} s "
                "is the rule",
            )
        self._heard_s = now_s
        for contact in request.own:
            check_contact(contact)
            if contact.peer != self._peer:
                raise Malformed("a peer tells another's contact as its own")

    def _check_answer(self, answer: Contacts) -> None:
        if not self._is_answer_due:
            raise Refused("bad-exchange", f"{len(answer.contacts)} contacts came that nobody asked for")
        self._is_answer_due = False
        for contact in answer.contacts:
            check_contact(contact)


def count_told(book_size: int) -> int:
    """How many contacts an answer holds: all of a small book, a share of a large one."""
    return min(MAX_CONTACTS_TOLD, max(16, book_size * SHARE_TOLD_PERCENT // 100))
