"""`observer-actors playbook`: what is known to work and to fail, whence, and what a person decides of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import cyclopts
import msgspec
from cyclopts import Parameter, validators

from observer_actors.commands._answers import ArmAnswer, EntryAnswer, EntryDetailAnswer, PlaybookAnswer, SidesAnswer
from observer_actors.commands._options import ApiOptions, ConfigOptions, Folder, Id, JsonFlag, Note, NoteText
from observer_actors.commands._screen import LISTED_MAX, Listing, LongWork, console, print_json, say_more
from observer_actors.visible import visible

app = cyclopts.App(name="playbook", help="Show what is known to work and to fail, and decide what is handed out.")

EXIT_DIFFERENT: Final = 1


@app.default
def playbook(
    api: ApiOptions = ApiOptions(),
    *,
    endpoint: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    kind: Literal["do", "avoid", "recipe"] | None = None,
    handed_out: Annotated[bool | None, Parameter(negative="--held-back")] = None,
    seq: int | None = None,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=LISTED_MAX))] = 100,
    json: JsonFlag = False,
) -> None:
    """Show what is known to work and to fail, the most evidence first.

    Example: observer-actors playbook

    Parameters
    ----------
    endpoint
        Only of this endpoint.
    kind
        Only these.
    handed_out
        Only what agents may be given, or only what they may not.
    seq
        Only what this op, or the run that it judges, is evidence of.
    limit
        Most entries to show.
    """
    asked = {"endpoint": endpoint, "kind": kind, "handed_out": handed_out, "seq": seq, "limit": limit}
    body, answer = api.get(PlaybookAnswer, "/playbook", asked)
    if json:
        print_json(body)
        return
    if not answer.entries:
        print("there is no such entry: nothing has been learned yet, or the filters leave nothing")
        return
    columns = ("succeeded", "failed", "handed out", "kind", "endpoint", "text", "id")
    below = (("succeeded", "failed", "kind"), ("handed out", "id"), ("endpoint", "text"))
    rows = tuple(map(_cells, answer.entries))
    console().print(Listing(columns, rows, numbers=("succeeded", "failed"), below=below))
    say_more(answer.total, len(answer.entries), "--endpoint, --kind, --handed-out or --held-back")
    if answer.outdated:
        print("evidence was revoked: the playbook is being made anew")


@app.command
def show(entry: Id, api: ApiOptions = ApiOptions(), *, json: JsonFlag = False) -> None:
    """Show one entry: where it comes from, what its uses have come to, and how it became what it is.

    Example: observer-actors playbook show 8d7b13ab5acc1357
    """
    body, answer = api.get(EntryDetailAnswer, f"/playbook/{entry}")
    if json:
        print_json(body)
    else:
        print("\n".join(map(visible, _in_words(answer))))


@app.command
def pin(entry: Id, api: ApiOptions = ApiOptions(), *, note: Note = "", json: JsonFlag = False) -> None:
    """Hand an entry out whatever its trial says, as long as it is corroborated.

    Example: observer-actors playbook pin 8d7b13ab5acc1357 --note "known to be right"
    """
    _decide(api, entry, "pin", note, json=json)


@app.command
def unpin(entry: Id, api: ApiOptions = ApiOptions(), *, note: Note = "", json: JsonFlag = False) -> None:
    """Let an entry's trial decide again.

    Example: observer-actors playbook unpin 8d7b13ab5acc1357
    """
    _decide(api, entry, "unpin", note, json=json)


@app.command
def withhold(entry: Id, api: ApiOptions = ApiOptions(), *, note: Note = "", json: JsonFlag = False) -> None:
    """Hand an entry out no more until it is released.

    Example: observer-actors playbook withhold 8d7b13ab5acc1357 --note "looks wrong"
    """
    _decide(api, entry, "withhold", note, json=json)


@app.command
def release(entry: Id, api: ApiOptions = ApiOptions(), *, note: Note = "", json: JsonFlag = False) -> None:
    """Take back what was decided; one that its trial has withheld or retired is tried again.

    Example: observer-actors playbook release 8d7b13ab5acc1357
    """
    _decide(api, entry, "release", note, json=json)


@app.command
def retire(entry: Id, api: ApiOptions = ApiOptions(), *, note: Note = "", json: JsonFlag = False) -> None:
    """Hand an entry out no more.

    Example: observer-actors playbook retire 8d7b13ab5acc1357 --note "the tool is gone"
    """
    _decide(api, entry, "retire", note, json=json)


@app.command
def note(entry: Id, text: NoteText, api: ApiOptions = ApiOptions(), *, json: JsonFlag = False) -> None:
    """Note something with an entry.

    Example: observer-actors playbook note 8d7b13ab5acc1357 "see the incident of May"
    """
    _decide(api, entry, "note", text, json=json)


@app.command
def check(data_dir: Folder | None = None, *, config: Path | None = None, json: JsonFlag = False) -> int:
    """Make the playbook anew from the journal, and compare it with what is stored, byte for byte.

    Exits 1 when they differ, or cannot be compared. Works on a stopped and on a running daemon's directory; changes
    nothing.

    Example: observer-actors playbook check --data-dir ./data

    Parameters
    ----------
    data_dir
        The directory to check; unless given, the one that `serve` would take.
    config
        A TOML file with settings, as `serve` takes it.
    """
    from observer_actors.commands._rebuild import rebuilt  # noqa: PLC0415 - the other commands need none of it

    folder = ConfigOptions(config=config, data_dir=data_dir).load(is_strict=False).settings.data_dir
    with LongWork("making the playbook anew", "ops") as progress:
        report = rebuilt(folder, progress)
    if json:
        print_json(msgspec.json.encode(report))
    elif report.is_same:
        print(
            f"{visible(str(folder))}: the same to the byte; {report.entries:,} entries in {report.parts:,} parts,"
            f" {report.bytes:,} bytes, from seq {report.first_seq:,} to {report.last_seq:,}"
        )
    else:
        print("\n".join(map(visible, [f"{folder}: {report.problem or 'not the same'}", *report.different])))
    return 0 if report.is_same else EXIT_DIFFERENT


def _decide(api: ApiOptions, entry: str, action: str, note: str, *, json: bool) -> None:
    body, answer = api.post(EntryAnswer, f"/playbook/{entry}", msgspec.json.encode({"action": action, "note": note}))
    if json:
        print_json(body)
    else:
        print(f"{visible(answer.id)}: {_standing(answer)}")


def _cells(entry: EntryAnswer) -> tuple[str, ...]:
    numbers = f"{entry.succeeded:,}", f"{entry.failed:,}"
    return (*numbers, _standing(entry), entry.kind, entry.endpoint, entry.text, entry.id)


def _standing(entry: EntryAnswer) -> str:
    """Say whether an entry is handed out, and why not."""
    if entry.handed_out:
        return entry.mark or entry.state
    if entry.suspended:
        return "no: revoked"
    if not entry.corroborated:
        return "no: uncorroborated"
    if not entry.supported:
        return "no: unsupported"
    return f"no: {entry.mark or entry.state}"


def _in_words(entry: EntryDetailAnswer) -> Iterable[str]:
    from observer_actors.playbook.markdown import counted  # noqa: PLC0415 - with all that it needs: for `show` alone

    yield entry.text
    yield ""
    yield f"{entry.kind} of {entry.endpoint}, version {entry.version}, handed out: {_standing(entry)}"
    witnesses = f"{counted(entry.runs)} runs, {counted(len(entry.sources))} sources"
    sources = ": " + ", ".join(entry.sources) if entry.sources else ""
    yield f"evidence: {entry.succeeded:,} succeeded, {entry.failed:,} failed; {witnesses}{sources}"
    trial = entry.trial
    yield (
        f"uses: exposed {_rate(trial.exposed)} succeeded, control {_rate(trial.control)};"
        f" fixed {trial.fixed:,}, broken {trial.broken:,}; lift {entry.lift.low:+.2f} to {entry.lift.high:+.2f}"
    )
    if (by := entry.decided_by) != SidesAnswer():
        runs = f"{_rate(by.exposed)} runs with it, {_rate(by.control)} without"
        yield f"it became {entry.state} ({entry.reason}) by {runs}"
    yield f"shown by ops: {_seqs(entry.example_seqs)}; against: {_seqs(entry.contrary_seqs)}"
    for pattern in entry.patterns:
        yield f"pattern {pattern.id}: {pattern.template} (ops {_seqs(pattern.seqs)})"
    for verdict in entry.verdicts:
        judged = "good" if verdict.good else "failed"
        yield f"run {verdict.run}: judged {judged} by op {verdict.seq} (ops {_seqs(verdict.seqs)})"
    for change in entry.history:
        state = f" {change.state}" if change.state else ""
        yield f"version {change.version} by op {change.seq}: {change.what}{state}"
    for noted in entry.notes:
        yield f"note of {noted.time}: {noted.text}"


def _rate(arm: ArmAnswer) -> str:
    return f"{arm.succeeded:,} of {arm.succeeded + arm.failed:,}"


def _seqs(seqs: Iterable[int]) -> str:
    return ", ".join(map(str, seqs)) or "none"
