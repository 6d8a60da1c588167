"""What becomes of an entry: from its trial, by rules with hysteresis, unless a person has said otherwise. Pure.

    candidate ──low > 0──────────────────────► active          half of its runs are control │ a tenth
        ▲  ▲                                     │
        │  └───────────low < SLACK───────────────┤
        │                                        │
        │     high < 0, or no use shown          │
        ├──────────────► withheld ◄──────────────┘              nobody gets it
        │                   │ its evidence has grown by half
        └───────────────────┤                                   a new trial: the counts start from nothing
                            │ withheld for the `TRIES_MAX`th time
                            ▼
                         retired                                nobody gets it, for good

``low`` and ``high`` are the ends of the always-valid interval of the lift (`lift`). To be kept as helpful an entry has
to show it at `ALPHA`; to be withheld it is enough to be harmful at `ALPHA_HARM`: to go without some help costs less
than to be harmed. So the two have different bars, and between them nothing changes: that is the hysteresis.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from observer_actors.playbook.lift import Trial, lift

__all__ = ["ALPHA", "ALPHA_HARM", "HANDED_OUT", "EntryState", "Ruling", "Standing", "judged", "ruled", "share_of"]

ALPHA: Final = 0.05
"""The chance that an entry's interval ever misses the truth; it is also what is shown."""
ALPHA_HARM: Final = 0.2
"""The same, for withholding."""
SLACK: Final = -0.05
"""An active entry is on trial again when it may cost more than 5 points."""
RUNS_WITHOUT_USE_MAX: Final = 1_000
"""Runs with an outcome, both arms together, by which a candidate has to have shown that it helps. One that lifts by 20
points nearly always has, one by 15 points three times of four."""
TRIES_MAX: Final = 3
CANDIDATE_SHARE: Final = 0.5
"""The control's share while an entry is a candidate: even arms tell the most."""


class EntryState(StrEnum):
    """How an entry stands."""

    CANDIDATE = "candidate"
    ACTIVE = "active"
    WITHHELD = "withheld"
    RETIRED = "retired"


HANDED_OUT: Final = frozenset({EntryState.CANDIDATE, EntryState.ACTIVE})


class Ruling(StrEnum):
    """What a person has said of an entry; it stands above the interval."""

    PINNED = "pinned"
    """Handed out as an active one is, whatever the interval says."""
    WITHHELD = "withheld"
    """Given to nobody."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where an entry stands, and why."""

    state: EntryState = EntryState.CANDIDATE
    reason: str = ""
    """Why it is in this state; empty for one that was never in another."""
    since_seq: int = 0
    """The op that brought it there."""
    tries: int = 1
    """Its trials so far, the present one too."""
    evidence_then: int = 0
    """Its evidence when it was withheld."""
    ruling: Ruling | None = None
    """What a person has said."""

    @property
    def effective(self) -> EntryState:
        """How it is treated: by the person's word, if there is one."""
        if self.ruling is None:
            return self.state
        return EntryState.ACTIVE if self.ruling is Ruling.PINNED else EntryState.WITHHELD


def judged(standing: Standing, trial: Trial, *, evidence: int, seq: int) -> Standing:
    """Say where an entry stands now; the same object when nothing changes.

    A person's ruling does not stop the judging: it stands above it, and when it is taken back the state is true.

    :param evidence: how many ops speak for the entry; a withheld one is tried again when they have grown by half.
    :param seq: of the op that is being taken in.
    """
    match standing.state:
        case EntryState.RETIRED:
            return standing
        case EntryState.WITHHELD:
            return _tried_again(standing, evidence, seq)
    against = _against(standing.state, trial)
    if against:
        state = EntryState.RETIRED if standing.tries >= TRIES_MAX else EntryState.WITHHELD
        return _moved(standing, state, against, seq, evidence_then=evidence)
    low = lift(trial, ALPHA).low
    if standing.state is EntryState.CANDIDATE and low > 0:
        return _moved(standing, EntryState.ACTIVE, "it helps", seq)
    if standing.state is EntryState.ACTIVE and low < SLACK:
        return _moved(standing, EntryState.CANDIDATE, "it may no longer help", seq)
    return standing


def ruled(standing: Standing, ruling: Ruling | None, *, seq: int) -> Standing:
    """Put a person's word above the interval; None takes it back."""
    return msgspec.structs.replace(standing, ruling=ruling, since_seq=seq)


def share_of(standing: Standing, active_share: float) -> float:
    """Give the control's share of the runs of an entry that is handed out.

    :param active_share: that of an active one (`advice.control_share`).
    """
    return active_share if standing.effective is EntryState.ACTIVE else max(active_share, CANDIDATE_SHARE)


def _against(state: EntryState, trial: Trial) -> str:
    """Say what speaks against handing an entry out; empty where nothing does."""
    if lift(trial, ALPHA_HARM).high < 0:
        return "it does harm"
    runs = trial.exposed.total + trial.control.total
    if state is EntryState.CANDIDATE and runs >= RUNS_WITHOUT_USE_MAX and lift(trial, ALPHA).low <= 0:
        return f"no use shown in {runs:,} runs"
    return ""


def _tried_again(standing: Standing, evidence: int, seq: int) -> Standing:
    if 2 * evidence < 3 * max(1, standing.evidence_then):
        return standing
    return _moved(standing, EntryState.CANDIDATE, "its evidence has grown", seq, tries=standing.tries + 1)


def _moved(standing: Standing, state: EntryState, reason: str, seq: int, **also: int) -> Standing:
    return msgspec.structs.replace(standing, state=state, reason=reason, since_seq=seq, **also)
