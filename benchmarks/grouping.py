"""How well failures are grouped, how fast, in how much memory: ours beside drain3, each with one configuration.

drain3 is no dependency: `pip install drain3` into the environment has it take part, else its rows are reported absent.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, Final

import msgspec
import trio

from benchmarks.bench import ROOT, Bench
from benchmarks.contest import Contest, Figure, Run, Unmeasured
from benchmarks.scores import adjusted_rand, grouping_scores
from observer_actors.patterns import Catalogue
from observer_actors.patterns.masking import marked
from tests.processes import resident_bytes

SHARED_VARIABLE: Final = "OBSERVER_SHARED"
"""The folder of real data; without it, `shared` beside the repository, as in the tests."""
SETS: Final = ("Apache", "HPC", "Linux", "OpenSSH", "Spark")
AIRLINE: Final = "airline errors"
ALL: Final = "all five"
OURS: Final = "ours"
DRAIN: Final = "drain3"
NOTHING_IN_COMMON: Final = "nothing in common"
SHUFFLES: Final = 5
REPEATS: Final = 10
DISTINCT: Final = 100_000
WORDS: Final = 12

GROUPING: Final = Contest(
    "grouping",
    "Failures into patterns",
    "GA: share of messages in a group that is exactly a true one; FGA: F1 of groups. The sets are Loghub-2k's with"
    " corrected labels and the errors of an airline agent, each read from its beginning by a grouping that knows"
    " nothing, endpoints aside; ids as they stand at the end. Order: lowest adjusted Rand index between that and"
    f" {SHUFFLES} shuffled orders. Speed: all five {REPEATS} times over, from nothing, one core, where most have been"
    " seen before; once over; and once over, each with a hexadecimal id of its own behind it. Memory: how much"
    f" larger the process is after {DISTINCT:,} messages of {WORDS} random words that have nothing in common."
    " Cut: share of messages that, cut by an ellipsis at 40 to 90 % of their length, are then found to belong to the"
    " whole one's group; those that begin like messages of one group alone, as far as their words are whole, and in"
    " brackets the rest, of which nobody can tell."
    " drain3: depth 4, similarity 0.4, masks for addresses, hexadecimal and other numbers. Once.",
    (
        Figure("ga", "GA", "{:.3f}"),
        Figure("fga", "FGA", "{:.3f}"),
        Figure("order", "order", "{:.3f}"),
        Figure("cut", "cut", "{:.3f}"),
        Figure("cut_unclear", "(unclear)", "({:.3f})"),
        Figure("per_second", "messages/s"),
        Figure("once_per_second", "once over"),
        Figure("unlike_per_second", "each with an id"),
        Figure("memory_mb", "MB", "{:.1f}"),
    ),
    once=True,
    without_wrk=True,
)

Grouper = Callable[[Sequence[str]], list[str]]
"""Gives the group of each message, as it stands at the end."""
Measure = Callable[[Callable[[], Grouper]], Mapping[str, float]]


def runs(_bench: Bench) -> dict[str, Run]:
    """Give the contestants: who, on what."""
    measures: dict[str, Measure] = {name: partial(_scored, partial(_loghub, name)) for name in SETS}
    measures |= {AIRLINE: partial(_scored, _airline), ALL: _all}
    found = {
        f"{who}, {what}": partial(_in_thread, partial(measure, make))
        for who, make in {OURS: _ours, DRAIN: _drain}.items()
        for what, measure in measures.items()
    }
    return {**found, f"{OURS}, {NOTHING_IN_COMMON}": partial(_in_thread, _memory)}


async def _in_thread(measure: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    return await trio.to_thread.run_sync(measure)


def _scored(read: Callable[[], tuple[list[str], list[str]]], make: Callable[[], Grouper]) -> Mapping[str, float]:
    texts, truth = read()
    found = make()(texts)
    accuracy, f1 = grouping_scores(truth, found)
    order = min(_shuffled(make, texts, found))
    return {"ga": accuracy, "fga": f1, "order": order, **_cut(make, texts)}


def _shuffled(make: Callable[[], Grouper], texts: Sequence[str], found: Sequence[str]) -> Iterator[float]:
    for seed in range(SHUFFLES):
        order = list(range(len(texts)))
        Random(seed).shuffle(order)
        groups = dict(zip(order, make()([texts[place] for place in order]), strict=True))
        yield adjusted_rand(found, [groups[place] for place in range(len(texts))])


def _cut(make: Callable[[], Grouper], texts: Sequence[str]) -> Mapping[str, float]:
    """Score messages that were cut, after all whole ones have come."""
    random = Random(1)
    beginnings = [text[: int(len(text) * random.uniform(0.4, 0.9))] for text in texts]
    groups = make()([*texts, *(f"{beginning}..." for beginning in beginnings)])
    of_whole, of_cut = groups[: len(texts)], groups[len(texts) :]
    alike: dict[str, set[str]] = defaultdict(set)
    for text, group in zip(texts, of_whole, strict=True):
        words = marked(text).split(" ")
        for count in range(len(words) + 1):
            alike[" ".join(words[:count])].add(group)
    clear: list[bool] = []
    unclear: list[bool] = []
    for beginning, whole, cut in zip(beginnings, of_whole, of_cut, strict=True):
        same = alike.get(" ".join(marked(beginning).split(" ")[:-1]), set())
        (unclear if len(same) > 1 else clear).append(whole == cut)
    return {name: fmean(found) for name, found in (("cut", clear), ("cut_unclear", unclear)) if found}


def _all(make: Callable[[], Grouper]) -> Mapping[str, float]:
    scores = [_scored(partial(_loghub, name), make) for name in SETS]
    texts = [text for name in SETS for text in _loghub(name)[0]]
    random = Random(1)
    rates = {
        "per_second": _rate(make, texts * REPEATS),
        "once_per_second": _rate(make, texts),
        "unlike_per_second": _rate(make, [f"{text} {random.getrandbits(64):016x}" for text in texts]),
    }
    means = {name: fmean(score[name] for score in scores) for name in ("ga", "fga", "cut")}
    return {**means, "order": min(score["order"] for score in scores), **rates}


def _rate(make: Callable[[], Grouper], texts: Sequence[str]) -> float:
    group = make()
    began = time.perf_counter()
    group(texts)
    return len(texts) / (time.perf_counter() - began)


def _memory() -> Mapping[str, float]:
    """Measure ours alone: the rival compares each message with all before, and would take hours.

    In a process of its own: where others were measured before there is room left over that it would grow into.
    """
    script = f"from {__name__} import grown_bytes; print(grown_bytes())"
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    return {"memory_mb": int(said.stdout) / 1e6}


def grown_bytes() -> int:
    """Group messages that have nothing in common, and give how much larger the process is then."""
    random = Random(1)
    words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(5_000)]
    catalogue = Catalogue()
    before = resident_bytes(os.getpid())
    for _ in range(DISTINCT):
        catalogue.place("", " ".join(random.choices(words, k=WORDS)))
    return max(0, resident_bytes(os.getpid()) - before)


def _ours() -> Grouper:
    catalogue = Catalogue()

    def group(texts: Sequence[str]) -> list[str]:
        groups = [catalogue.place("", text) for text in texts]
        return [found.last().id for found in groups]

    return group


def _drain() -> Grouper:
    """Set the rival up as its documentation does, with one configuration for all."""
    try:
        drain: Any = importlib.import_module("drain3")
        settings: Any = importlib.import_module("drain3.template_miner_config")
        masking: Any = importlib.import_module("drain3.masking")
    except ModuleNotFoundError as error:
        raise Unmeasured("drain3 is not installed") from error
    config = settings.TemplateMinerConfig()
    config.drain_depth, config.drain_sim_th = 4, 0.4
    config.masking_instructions = [
        masking.MaskingInstruction(pattern, name)
        for pattern, name in (
            (r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.]\d)", "IP"),
            (r"(?<!\w)0x[0-9a-fA-F]+(?!\w)", "HEX"),
            (r"(?<!\w)[+-]?\d+(?!\w)", "NUM"),
        )
    ]
    miner = drain.TemplateMiner(config=config)

    def group(texts: Sequence[str]) -> list[str]:
        return [str(miner.add_log_message(text)["cluster_id"]) for text in texts]

    return group


class _Message(msgspec.Struct):
    error: str = ""
    truth: str = ""


def _data() -> Path:
    folder = Path(os.environ.get(SHARED_VARIABLE) or ROOT.parent / "shared") / "data"
    if not folder.is_dir():
        raise Unmeasured(f"no real data: {SHARED_VARIABLE} names the folder that holds data/")
    return folder


def _loghub(name: str) -> tuple[list[str], list[str]]:
    path = _data() / "loghub2k" / f"{name}.jsonl"
    messages = msgspec.json.Decoder(_Message).decode_lines(path.read_bytes())
    return [message.error for message in messages], [message.truth for message in messages]


def _airline() -> tuple[list[str], list[str]]:
    kinds = msgspec.json.decode((_data() / "taubench_airline_truth.json").read_bytes(), type=dict[str, str])
    ops = msgspec.json.Decoder(_Message).decode_lines((_data() / "taubench_airline_ops.jsonl").read_bytes())
    errors = [op.error for op in ops if op.error in kinds]
    return errors, [kinds[error] for error in errors]
