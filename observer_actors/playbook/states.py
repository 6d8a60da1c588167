"""What becomes of an entry: from its trial, by rules with hysteresis, unless a person has said otherwise. Pure.

    candidate ──low > 0──────────────────────► active          half of its runs are control │ a tenth
        ▲  ▲                                     │
        │  └───────────high < USE_MIN────────────┤              either way a new trial begins
        │                                        │
        │     high < 0, or no use shown          │              for an active one also of late
        ├──────────────► withheld ◄──────────────┘              nobody gets it
        │                   │ its evidence has grown by half, or it advises something else
        └───────────────────┤                                   a new trial: the counts start from nothing
                            │ withheld for the `TRIES_MAX`th time
                            ▼
                         retired                                nobody gets it, for good

``low`` and ``high`` are the ends of the always-valid interval of the lift (`lift`). To be found helpful an entry has
to show it at `ALPHA`; to be found harmful, or of no use any more, it is enough to be so at `ALPHA_HARM`: to go without
some help costs less than to be harmed. So the two have different bars, and between them nothing changes: that is the
hysteresis.

A trial has one share of control. Where another one is due (`is_trusted`: an entry becomes active or a candidate, is
pinned or no longer) the next trial begins. Were the runs of both counted together, and had the tools become harder in
between, most of the control would be from the easy time, and most of the exposed from the hard one: what helps would
look harmful (Simpson's paradox). What an entry's state was decided by is kept (`Standing.decided_by`).

Where several sources use an entry, none of them alone decides: without its runs the rates must differ the same way
(`lift.none_alone`). Those that have hardly used it have no say.
"""

from __future__ import annotations

from typing import Final

import msgspec

from observer_actors.playbook.entries import Entry, Mark, State
from observer_actors.playbook.lift import Sides, Trial, in_all, lift, none_alone, runs_beside_any

ALPHA: Final = 0.05
"""The chance that an entry's interval ever misses the truth; it is also what is shown."""
ALPHA_HARM: Final = 0.2
"""The same, for withholding."""
USE_MIN: Final = 0.05
"""An active entry is a candidate again when it helps by less than 5 points, if at all."""
RUNS_WITHOUT_USE_MAX: Final = 1_000
"""Runs with an outcome, both arms together, by which a candidate has to have shown that it helps. One that lifts by 20
points nearly always has, one by 15 points three times of four."""
RUNS_OF_OTHERS_MIN: Final = 250
"""Of those, where several sources use the entry (`lift.runs_beside_any`), so many have to be left without any one."""
EXPOSED_MIN: Final = 250
"""Of those, so many have to have had it: runs that heed it by going another way have no outcome (`trial`), and the
control alone shows nothing."""
TRIES_MAX: Final = 3
HARM_NOW: Final = "it does harm now"
CANDIDATE_SHARE: Final = 0.5
"""The control's share while an entry is a candidate: even arms tell the most."""

_HELD_BACK: Final = (State.WITHHELD, State.RETIRED)


class Standing(msgspec.Struct, frozen=True):
    """Where the trial of an entry has led, and why."""

    state: State = State.CANDIDATE
    reason: str = ""
    """Why it is in this state; empty for one that was never in another."""
    tries: int = 1
    """Its trials so far, the present one too."""
    evidence_then: int = 0
    """Its evidence when it was withheld."""
    decided_by: Sides = Sides()
    """The runs that have shown it; none where it is not a trial that has decided."""


def judged(standing: Standing, trial: Trial, evidence: int) -> Standing:
    """Say where an entry stands now; the same object when nothing changes.

    A person's mark does not stop the judging: it stands above it, and when it is taken back the state is true. The
    caller begins a new trial (`Trials.restart`) where ``tries`` has grown, and where another share is due
    (`is_trusted`).

    :param evidence: how many ops speak for the entry; a withheld one is tried again when they have grown by half.
    """
    match standing.state:
        case State.RETIRED:
            return standing
        case State.WITHHELD:
            return _tried_again(standing, evidence)
    sides = Sides(trial.exposed, trial.control)
    against = _against(standing.state, trial)
    if against:
        state = State.RETIRED if standing.tries >= TRIES_MAX else State.WITHHELD
        decided_by = in_all(trial.recent) if against == HARM_NOW else sides
        return Standing(state, against, standing.tries, evidence, decided_by)
    if standing.state is State.ACTIVE:
        if lift(sides, ALPHA_HARM).high < USE_MIN and none_alone(trial.by_source, -1, USE_MIN):
            return Standing(State.CANDIDATE, "it may no longer help", standing.tries, decided_by=sides)
    elif lift(sides, ALPHA).low > 0 and none_alone(trial.by_source, 1):
        return Standing(State.ACTIVE, "it helps", standing.tries, decided_by=sides)
    return standing


def joined(standing: Standing, other: Standing, evidence: int) -> Standing:
    """Say where an entry stands that another one has become part of; the same object when nothing changes.

    :param evidence: of both together. It is to grow by half from there before what is withheld is tried again.
    """
    strictest = max(standing, other, key=lambda one: _HELD_BACK.index(one.state) if one.state in _HELD_BACK else -1)
    if strictest.state not in _HELD_BACK:
        return standing
    return msgspec.structs.replace(strictest, evidence_then=evidence)


def is_trusted(entry: Entry) -> bool:
    """Say whether a small share of the runs of an entry is enough as control."""
    return entry.mark is Mark.PINNED or entry.state is State.ACTIVE


def share_of(entry: Entry, active_share: float) -> float:
    """Give the control's share of the runs of an entry that is handed out.

    :param active_share: that of an active or pinned one (`advice.control_share`).
    """
    return active_share if is_trusted(entry) else max(active_share, CANDIDATE_SHARE)


def _against(state: State, trial: Trial) -> str:
    """Say what speaks against handing an entry out; empty where nothing does."""
    if lift(trial, ALPHA_HARM).high < 0 and none_alone(trial.by_source, -1):
        return "it does harm"
    if state is State.ACTIVE and lift(in_all(trial.recent), ALPHA).high < 0 and none_alone(trial.recent, -1):
        return HARM_NOW
    runs = trial.exposed.total + trial.control.total
    is_tried = runs >= RUNS_WITHOUT_USE_MAX and trial.exposed.total >= EXPOSED_MIN
    is_tried = is_tried and runs_beside_any(trial.by_source) >= RUNS_OF_OTHERS_MIN
    if state is State.CANDIDATE and is_tried and lift(trial, ALPHA).low <= 0:
        return f"no use shown in {runs:,} runs"
    return ""


def _tried_again(standing: Standing, evidence: int) -> Standing:
    if 2 * evidence < 3 * max(1, standing.evidence_then):
        return standing
    return Standing(State.CANDIDATE, "its evidence has grown", standing.tries + 1)
