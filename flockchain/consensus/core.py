"""The driver: one mutable core per node, `core.step(event)` returns the effects in order.

    core = Core(address, proposer_of=lambda height, round: compute_proposer(rotation_of(height), round))
    effects = core.step(StartHeight(1, validators))

The core is a deterministic function of its events, so a node that replays its write-ahead log gets the same effects.
It counts its own messages at once: the node never feeds them back. What the node owes:

- log an event before `step`; have the log on disk before a signature leaves. Otherwise a restart forgets a lock;
- sign and send only what an effect asks for; answer a repeated request with the signature given before;
- feed only what it verified; feed certificates before the proposals and values that lean on them;
- keep messages of the next height until it sends `StartHeight`; help a peer at an older height with its decided block
  and commit certificate; send `current_messages()` again while a height stays undecided.
"""

from collections.abc import Callable

from flockchain.consensus import machine
from flockchain.consensus.effects import Effect, ReportEquivocation, SendProposal, SendVote
from flockchain.consensus.events import (
    CertificateReceived,
    Event,
    ProposalReceived,
    StartHeight,
    Timeout,
    ValueReady,
    ValueReceived,
    VoteReceived,
)
from flockchain.consensus.messages import CommitCertificate, Message, PolkaCertificate, Proposal, Step, Vote, VoteKind
from flockchain.consensus.powers import ValidatorPowers
from flockchain.consensus.proposals import ProposalKeeper
from flockchain.consensus.votes import Conflicting, VoteKeeper, VoteResult


class Core:
    """One validator's consensus (an observer's when `address` is None or has no power at this height)."""

    def __init__(self, address: bytes | None, proposer_of: Callable[[int, int], bytes]) -> None:
        self.address = address
        self._proposer_of = proposer_of
        self._speaker: bytes | None = None
        self._state = machine.RoundState(height=0)
        self._votes: VoteKeeper | None = None
        self._proposals = ProposalKeeper()
        self._effects: list[Effect] = []

    # -- the one way in -----------------------------------------------------------------------------------------------

    def step(self, event: Event) -> tuple[Effect, ...]:
        """Take one event; what does not concern this height changes nothing."""
        assert not self._effects, "step is never called from within"
        match event:
            case VoteReceived(vote):
                self._take_vote(vote)
            case ProposalReceived(proposal, is_valid, is_timely):
                self._take_proposal(proposal, is_valid, is_timely)
            case CertificateReceived(certificate):
                self._take_certificate(certificate)
            case Timeout(step, height, round):
                self._take_timeout(step, height, round)
            case ValueReady(height, round, value_id):
                self._take_value(height, round, value_id)
            case ValueReceived(height, value_id, is_valid):
                self._take_helped_value(height, value_id, is_valid)
            case StartHeight(height, validators):
                self._start_height(height, validators)
        self._settle()
        effects, self._effects = tuple(self._effects), []
        return effects

    # -- what others may ask; nothing here changes the core -----------------------------------------------------------

    @property
    def height(self) -> int:
        return self._state.height

    @property
    def round(self) -> int:
        return self._state.round

    @property
    def current_step(self) -> Step:
        """The step within the round (`step` is the verb)."""
        return self._state.step

    @property
    def locked_round(self) -> int:
        return self._state.locked_round

    @property
    def locked_value(self) -> bytes | None:
        return self._state.locked_value

    @property
    def valid_round(self) -> int:
        return self._state.valid_round

    @property
    def valid_value(self) -> bytes | None:
        return self._state.valid_value

    @property
    def decided(self) -> tuple[int, bytes] | None:
        """Round and value id of this height's decision."""
        return self._state.decided

    def polka(self, height: int, round: int) -> PolkaCertificate | None:
        """The proof of lock of a round, if more than 2/3 prevoted one value in it."""
        if self._votes is None or height != self.height:
            return None
        tally = self._votes.tally(round, VoteKind.PREVOTE)
        if not tally.has_quorum or tally.quorum_id is None:
            return None
        return PolkaCertificate(height, round, tally.quorum_id, tally.votes_for(tally.quorum_id))

    def commit_certificate(self) -> CommitCertificate | None:
        """The proof of this height's decision; it grows while late precommits arrive."""
        if self._votes is None or self.decided is None:
            return None
        round, value_id = self.decided
        votes = self._votes.tally(round, VoteKind.PRECOMMIT).votes_for(value_id)
        return CommitCertificate(self.height, round, value_id, votes)

    def votes_of(self, round: int, kind: VoteKind) -> tuple[Vote, ...]:
        """Every vote kept of a round and kind, in the order of the validator set."""
        return () if self._votes is None else self._votes.tally(round, kind).all_votes()

    def proposals_of(self, round: int) -> tuple[Proposal, ...]:
        """Every proposal kept of a round: more than one only if its proposer equivocated."""
        return self._proposals.of_round(round)

    def current_messages(self) -> tuple[Message, ...]:
        """What to send again to a peer that lags, most useful first.

        A decision needs only its certificate. Before it: the round's proposal, behind the polka it leans on; the
        precommits that ended the round before, without which a peer stays there for ever; everyone's votes of this
        round, for an equivocator may have sent its vote to us alone.
        """
        if (commit := self.commit_certificate()) is not None:
            return (commit,)
        messages: list[Message] = []
        for proposal in self._proposals.of_round(self.round):
            polka = self.polka(self.height, proposal.valid_round)
            messages += [proposal] if polka is None else [polka, proposal]
        messages += self.votes_of(self.round - 1, VoteKind.PRECOMMIT)
        messages += self.votes_of(self.round, VoteKind.PREVOTE)
        messages += self.votes_of(self.round, VoteKind.PRECOMMIT)
        return tuple(messages)

    # -- events -------------------------------------------------------------------------------------------------------

    def _start_height(self, height: int, validators: ValidatorPowers) -> None:
        assert height > self.height, "heights only grow"
        is_validator = self.address is not None and validators.power_of(self.address) > 0
        self._speaker = self.address if is_validator else None
        self._votes = VoteKeeper(validators)
        self._proposals = ProposalKeeper()
        self._state = machine.RoundState(height=height)
        self._enter_round(0)

    def _take_vote(self, vote: Vote) -> None:
        if self._votes is not None and vote.height == self.height:
            self._note(self._votes.add(vote))

    def _take_certificate(self, certificate: PolkaCertificate | CommitCertificate) -> None:
        if self._votes is not None and certificate.height == self.height:
            for result in self._votes.add_certificate(certificate):
                self._note(result)

    def _take_proposal(self, proposal: Proposal, is_valid: bool, is_timely: bool) -> None:
        if self._votes is None or proposal.height != self.height or not self._is_plausible(proposal):
            return
        is_wanted = self._has_quorum_for(proposal)
        conflict = self._proposals.add(proposal, is_valid, is_timely, is_wanted)
        if conflict is not None:
            self._effects.append(ReportEquivocation(conflict, proposal))

    def _take_timeout(self, step: Step, height: int, round: int) -> None:
        if (height, round) != (self.height, self.round) or self.decided is not None:
            return
        match step:
            case Step.PROPOSE:
                self._apply(machine.ProposeTimeout())  # L57, arXiv:1807.04938
            case Step.PREVOTE:
                self._apply(machine.PrevoteTimeout())  # L61
            case Step.PRECOMMIT:
                self._enter_round(round + 1)  # L65

    def _take_value(self, height: int, round: int, value_id: bytes) -> None:
        is_asked = (height, round) == (self.height, self.round) and self._is_proposer(round)
        if is_asked and self.decided is None:
            self._apply(machine.ValueBuilt(value_id))

    def _take_helped_value(self, height: int, value_id: bytes, is_valid: bool) -> None:
        commit = None if self._votes is None else self._votes.commit
        if height == self.height and is_valid and commit is not None and commit[1] == value_id:
            self._proposals.helped_value = value_id

    # -- Algorithm 1's guards -----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Fire rules until none is enabled."""
        while self._votes is not None and self.decided is None:
            if (commit := self._votes.commit) is not None and self._proposals.is_valid_value(commit[1]):
                self._apply(machine.CommitValue(*commit))  # L49, arXiv:1807.04938
            elif (ahead := self._votes.skip_round()) is not None:
                self._enter_round(ahead)  # L55
            elif (round_input := self._enabled_input(self._votes)) is not None:
                self._apply(round_input)
            else:
                return

    def _enabled_input(self, votes: VoteKeeper) -> machine.RoundInput | None:
        state = self._state
        if state.step is Step.PROPOSE:
            if (judged := self._judged_proposal()) is not None:
                return judged  # L22, L28
        else:
            prevotes = votes.tally(state.round, VoteKind.PREVOTE)
            if prevotes.has_quorum and not state.is_polka_seen:
                if prevotes.quorum_id is None:
                    if state.step is Step.PREVOTE:
                        return machine.PolkaNil()  # L44
                elif self._proposals.is_valid_in(state.round, prevotes.quorum_id):
                    return machine.PolkaValue(prevotes.quorum_id)  # L36
            if state.step is Step.PREVOTE and prevotes.has_any_quorum and not state.is_prevote_timeout_set:
                return machine.PolkaAny()  # L34
        precommits = votes.tally(state.round, VoteKind.PRECOMMIT)
        if precommits.has_any_quorum and not state.is_precommit_timeout_set:
            return machine.PrecommitAny()  # L47
        return None

    def _judged_proposal(self) -> machine.ProposalJudged | None:
        """The first of the round's proposals that may be judged: fresh, or with its proof of lock seen here."""
        for judgement in self._proposals.judgements(self.round):
            proposal = judgement.proposal
            if proposal.valid_round < 0:
                is_acceptable = judgement.is_valid and judgement.is_timely
                return machine.ProposalJudged(proposal.value_id, proposal.valid_round, is_acceptable)  # L22
            if self._has_proof_of_lock(proposal):
                return machine.ProposalJudged(proposal.value_id, proposal.valid_round, judgement.is_valid)  # L28
        return None

    def _has_proof_of_lock(self, proposal: Proposal) -> bool:
        assert self._votes is not None
        prevotes = self._votes.tally(proposal.valid_round, VoteKind.PREVOTE)
        return prevotes.has_quorum and prevotes.quorum_id == proposal.value_id

    def _has_quorum_for(self, proposal: Proposal) -> bool:
        assert self._votes is not None
        tallies = (self._votes.tally(proposal.round, kind) for kind in VoteKind)
        return any(tally.has_quorum and tally.quorum_id == proposal.value_id for tally in tallies)

    # -- small verbs --------------------------------------------------------------------------------------------------

    def _enter_round(self, round: int) -> None:
        assert self._votes is not None
        self._votes.advance(round, kept_round=self.valid_round)
        self._proposals.advance(round)
        self._apply(machine.NewRound(round, self._is_proposer(round)))

    def _apply(self, round_input: machine.RoundInput) -> None:
        """Run the machine; our own messages count here at once, before anyone else sees them."""
        assert self._votes is not None
        self._state, effects = machine.apply(self._state, self._speaker, round_input)
        self._effects += effects
        for effect in effects:
            if isinstance(effect, SendVote):
                self._note(self._votes.add(effect.vote))
            elif isinstance(effect, SendProposal):
                self._proposals.add(effect.proposal, is_valid=True, is_timely=True, is_wanted=True)

    def _note(self, result: VoteResult) -> None:
        if isinstance(result, Conflicting):
            self._effects.append(ReportEquivocation(result.first, result.second))

    def _is_proposer(self, round: int) -> bool:
        return self._speaker is not None and self._proposer_of(self.height, round) == self._speaker

    def _is_plausible(self, proposal: Proposal) -> bool:
        """From the round's proposer, of a round we keep, leaning on an earlier round only."""
        return (
            self._proposals.admits(proposal.round)
            and -1 <= proposal.valid_round < proposal.round
            and proposal.proposer == self._proposer_of(proposal.height, proposal.round)
        )
