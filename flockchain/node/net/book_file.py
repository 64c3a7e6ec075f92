"""`data/peers.json`: the address book from one run to the next, replaced as a whole."""

import os
from pathlib import Path
from random import Random
from typing import Annotated

import msgspec
import structlog
from msgspec import Meta

from flockchain.errors import Malformed
from flockchain.files import replace_file
from flockchain.node.net.address_book import MAX_CONTACTS, AddressBook, Entry
from flockchain.node.net.contacts import Contact, check_contact
from flockchain.node.ports import PeerId

log = structlog.get_logger()

SECRET_BYTES = 32
_FORMAT = 1


class _Line(msgspec.Struct, frozen=True):
    contact: Contact
    source_group: Annotated[bytes, Meta(max_length=4)]
    succeeded_s: float
    failures: Annotated[int, Meta(ge=0)]


class _Document(msgspec.Struct, frozen=True):
    format: int
    secret: Annotated[bytes, Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    contacts: Annotated[tuple[_Line, ...], Meta(max_length=MAX_CONTACTS)]


def load_book(path: Path, own: PeerId, rng: Random) -> AddressBook:
    """The book kept at `path`; an empty one when there is none, or when the file, then set aside, cannot be read."""
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
        if document.format != _FORMAT:
            raise Malformed(f"format {document.format} is not {_FORMAT}")
        for line in document.contacts:
            check_contact(line.contact)
    except FileNotFoundError:
        return AddressBook(own, os.urandom(SECRET_BYTES), rng)
    except (OSError, msgspec.DecodeError, Malformed) as error:
        damaged = path.with_name(path.name + ".damaged")
        log.warning("address-book-damaged", path=str(path), reason=str(error), kept_as=str(damaged))
        if path.exists():
            os.replace(path, damaged)
        return AddressBook(own, os.urandom(SECRET_BYTES), rng)
    book = AddressBook(own, document.secret, rng)
    for line in document.contacts:
        book.restore(Entry(line.contact, line.source_group, line.succeeded_s, line.failures))
    book.is_changed = False
    return book


def format_book(book: AddressBook) -> bytes:
    """The file's bytes."""
    lines = tuple(_Line(entry.contact, entry.source_group, entry.succeeded_s, entry.failures) for entry in book)
    return msgspec.json.format(msgspec.json.encode(_Document(_FORMAT, book.secret, lines)), indent=1)


def save_book(path: Path, data: bytes) -> None:
    """Durably; raises `Fault`."""
    replace_file(path, data)
