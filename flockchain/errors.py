"""Every error a caller can meet.

    FlockchainError
    +-- Refused            what others sent breaks a rule: a code for programs, a sentence for people
    |   +-- Malformed      the bytes are not a canonical message of the expected type
    +-- Fault              this machine cannot go on: disk, lock, corrupt file; says what is safe to do next
        +-- UpgradeNeeded  the chain goes on by rules that this software does not know

What we believe about our own code is an `assert`, never one of these.
"""


class FlockchainError(Exception):
    """Base of all errors raised on purpose."""


class Refused(FlockchainError):
    """Input from a person, a peer or a file breaks a rule.

    `code` is a stable slug such as ``insufficient-balance``; `message` is one sentence with its numbers.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Malformed(Refused):
    """Bytes that do not decode, or decode but are not in canonical form."""

    def __init__(self, message: str) -> None:
        super().__init__("malformed", message)


class Fault(FlockchainError):
    """The local machine or its files are in a state that needs a person; the sentence says what to do."""


class UpgradeNeeded(Fault):
    """The next block follows a protocol version that this software does not run: nothing of it may be executed."""
