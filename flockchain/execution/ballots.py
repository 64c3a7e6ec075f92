"""What a committee member may say: the seal over a ballot, and the form of ballots and attestations.

The form is checked when a vote is opened, so that verdicts only ever see figures that mean something.
"""

from collections.abc import Sequence

from flockchain.codec import encode
from flockchain.crypto import tagged_hash
from flockchain.errors import Refused
from flockchain.params import PPM
from flockchain.types.task import AdapterFigures, AttestationBody, Ballot, Screen

MAX_SCREENS = 16
MAX_FIGURE_PPM = 1_000_000_000
"""A thousandfold loss; what is beyond says nothing more."""
BALLOT_ENTRY_BYTES = 600
BALLOT_DOMAIN_BYTES = 24
"""Room for one entry (root, status, a long reason, ten screens) and for one figure in a ballot."""


def compute_seal(genesis_hash: bytes, ballot: Ballot, voter: bytes, salt: bytes) -> bytes:
    """32 bytes that commit `voter` to `ballot` on this chain; `salt` is HMAC(voter key, task, round), kept secret."""
    place = (ballot.task.to_bytes(8, "big"), ballot.round.to_bytes(8, "big"))
    return tagged_hash("flockchain/seal", (genesis_hash, *place, voter, encode(ballot), salt))


def compute_ballot_bytes(adapters: int, domains: int) -> int:
    """Bytes that a ballot over so many adapters may need."""
    return adapters * (BALLOT_ENTRY_BYTES + domains * BALLOT_DOMAIN_BYTES)


def check_ballot(ballot: Ballot, assigned: Sequence[bytes], covered: Sequence[int]) -> None:
    """Refuse a ballot that is not exactly about the `assigned` roots, or speaks of domains outside `covered`."""
    roots = tuple(entry.root for entry in ballot.figures)
    if roots != tuple(assigned):
        missing, foreign = len(set(assigned) - set(roots)), len(set(roots) - set(assigned))
        raise Refused(
            "bad-ballot",
            f"a ballot has one entry for each of its {len(assigned)} assigned adapters, sorted by root; "
            f"of {len(roots)} entries {foreign} are of other adapters, and {missing} are missing",
        )
    for entry in ballot.figures:
        _check_entry(entry, covered)


def _check_entry(entry: AdapterFigures, covered: Sequence[int]) -> None:
    name = f"the entry of adapter {entry.root.hex()[:12]}"
    if entry.status != "scored" and entry.domains:
        raise Refused("bad-ballot", f"{name} has status {entry.status} and must hold no figures")
    if entry.status == "malformed" and not entry.reason:
        raise Refused("bad-ballot", f"{name} has status malformed and must give a reason")
    _check_domains(name, [figure.domain for figure in entry.domains], covered)
    for figure in entry.domains:
        _check_change(name, figure.change_ppm, figure.se_ppm)
        _check_change(name, figure.best_change_ppm, figure.best_se_ppm)
    _check_screens(name, entry.screens)


def check_attestation(
    body: AttestationBody, accepted: Sequence[bytes], covered: Sequence[int], max_size_bytes: int
) -> None:
    """Refuse an attestation that is not about the `accepted` roots, or gives figures outside `covered`."""
    name = "the attestation"
    if tuple(coefficient.root for coefficient in body.coefficients) != tuple(accepted):
        raise Refused("bad-attestation", f"{name} needs one coefficient for each of {len(accepted)} accepted adapters")
    for coefficient in body.coefficients:
        if coefficient.ppm > PPM:
            raise Refused("bad-attestation", f"a coefficient of {coefficient.ppm} ppm is above {PPM}")
    if not 1 <= body.size_bytes <= max_size_bytes:
        raise Refused(
            "bad-attestation", f"a candidate of {body.size_bytes} bytes is not between 1 and {max_size_bytes}"
        )
    _check_domains(name, [figure.domain for figure in body.figures], covered)
    for figure in body.figures:
        _check_change(name, figure.change_ppm, figure.se_ppm)
        _check_change(name, figure.base_change_ppm, figure.base_se_ppm)
    keys = [(gain.root, gain.domain) for gain in body.gains]
    if keys != sorted(set(keys)) or any(root not in accepted or domain not in covered for root, domain in keys):
        raise Refused("bad-attestation", f"{name} lists gains sorted by accepted root and covered domain, none twice")
    if any(abs(gain.gain_ppm) > MAX_FIGURE_PPM for gain in body.gains):
        raise Refused("bad-attestation", f"a gain lies beyond {MAX_FIGURE_PPM} ppm")
    _check_screens(name, body.screens)


def _check_domains(name: str, domains: Sequence[int], covered: Sequence[int]) -> None:
    if list(domains) != sorted(set(domains)):
        raise Refused("bad-figures", f"{name} must list domains in order, none twice, got {list(domains)[:20]}")
    for domain in domains:
        if domain not in covered:
            raise Refused("bad-figures", f"{name} has a figure on domain {domain}, which its committed holdout lacks")


def _check_change(name: str, change_ppm: int, se_ppm: int) -> None:
    if not -PPM <= change_ppm <= MAX_FIGURE_PPM:
        raise Refused("bad-figures", f"{name}: a change of {change_ppm} ppm is not in -{PPM}..{MAX_FIGURE_PPM}")
    if not 1 <= se_ppm <= MAX_FIGURE_PPM:
        raise Refused("bad-figures", f"{name}: a standard error of {se_ppm} ppm is not in 1..{MAX_FIGURE_PPM}")


def _check_screens(name: str, screens: Sequence[Screen]) -> None:
    names = [screen.name for screen in screens]
    if names != sorted(set(names)) or len(names) > MAX_SCREENS:
        raise Refused(
            "bad-figures", f"{name} lists at most {MAX_SCREENS} screens by name, none twice, got {len(names)}"
        )
