"""The example for TypeScript does what it says, with a real daemon: run by Node 22.18 or later, else by Bun."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import trio

from observer_actors.client._sender import REQUEST_SECONDS
from observer_actors.quoting import INTRODUCTION
from observer_actors.tokens import hash_of, new_token
from tests.conftest import ROOT
from tests.daemon.served import Served, served
from tests.fakes.http_peer import closed_url
from tests.harness import journal_ops
from tests.parity.bun import INSTALL_SECONDS_MAX, Unavailable, installed_bun

EXAMPLE: Final = ROOT / "docs" / "examples" / "observer.ts"
STRIPS_TYPES: Final = (22, 18)
"""Node's first release on that line that does so unasked."""
PROGRAM_S: Final = 60


@pytest.fixture(scope="module")
def runner() -> str:
    """A program that runs TypeScript."""
    node = shutil.which("node")
    if node is not None:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.match(r"v(\d+)\.(\d+)", said)
        if found and (int(found[1]), int(found[2])) >= STRIPS_TYPES:
            return node
    try:
        return str(trio.run(installed_bun, ROOT / ".parity"))
    except Unavailable as why:
        pytest.skip(f"no Node of 22.18 or later, and no Bun: {why}")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("typescript")) as running:
        yield running


def newest(daemon: Served, endpoint: str, count: int) -> list[dict[str, Any]]:
    """Give the newest ops of an endpoint, in the order in which they came."""
    ops: list[dict[str, Any]] = daemon.json("/ops", endpoint=endpoint, limit=count)["ops"]
    return ops[::-1]


def run(runner: str, folder: Path, program: str, url: str) -> Any:
    file = folder / "agent.ts"
    file.write_text(f'import {{ Observer }} from "{EXAMPLE}";\n{program}')
    ended = subprocess.run(
        [runner, str(file)],
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
        check=False,
        env={**os.environ, "OBSERVER_URL": url},
    )
    assert ended.returncode == 0, ended.stderr
    return msgspec.json.decode(ended.stdout)


AGENT: Final = """
const observer = new Observer({ adviceMs: 10_000 });
const advice = await observer.advice("sql:run", { input: { q: 1 }, run: "r1" });
await observer.operation("sql:run", { input: { q: 1 }, run: "r1", role: "clerk" }, async (op) => {
  op.output = "3 rows";
  op.attrs.rows = 3;
});
try {
  await observer.operation("sql:run", { run: "r1", attrs: { run: "r2" } }, () => { throw new RangeError("mine"); });
} catch (error) {
  if (!(error instanceof RangeError)) throw error;
}
await observer.operation("sql:run", { attrs: { run: "r2" } }, (op) => {
  op.error = { code: 7, row: 9007199254740993n };
  op.attrs.odd = 12n as any;
});
const sent = await observer.close(10_000);
console.log(JSON.stringify({ sent, counts: observer.counts, advice }));
"""


@pytest.mark.timeout(INSTALL_SECONDS_MAX + 120)
def test_it_reports_and_asks(runner: str, tmp_path: Path, daemon: Served) -> None:
    said = run(runner, tmp_path, AGENT, daemon.url)
    good, thrown, failed = newest(daemon, "sql:run", 3)
    assert said["sent"]
    assert said["counts"] == {"events": 3, "accepted": 3, "refused": 0, "dropped": 0, "retries": 0, "cancelled": 0}
    assert said["advice"]["entries"] == []
    assert (good["success"], good["input_summary"], good["output_summary"]) == (True, '{"q":1}', "3 rows")
    assert (good["role"], good["source"]) == ("clerk", "bot")
    assert good["attrs"] == {"run": "r1", "advice_id": said["advice"]["adviceId"], "rows": 3}
    assert (thrown["success"], thrown["error"]) == (False, "RangeError: mine")
    assert (thrown["attrs"]["run"], failed["attrs"]["run"]) == ("r1", "r2"), "what is given by name counts"
    assert (failed["error"], failed["attrs"]["odd"]) == ('{"code":7,"row":"9007199254740993"}', "12")


def test_what_goes_in_is_what_it_was_when_the_operation_began(runner: str, tmp_path: Path, daemon: Served) -> None:
    program = """
    const observer = new Observer();
    const input = ["question"];
    await observer.operation("llm:chat", { input }, () => { input.push("answer"); });
    await observer.close(10_000);
    console.log(JSON.stringify(observer.counts.accepted));
    """
    assert run(runner, tmp_path, program, daemon.url) == 1
    assert newest(daemon, "llm:chat", 1)[0]["input_summary"] == '["question"]'


def test_an_operation_reports_the_advice_on_its_endpoint_and_no_other(
    runner: str, tmp_path: Path, daemon: Served
) -> None:
    program = """
    const observer = new Observer({ adviceMs: 10_000 });
    const [a, b] = [{ run: "r1" }, { run: "r2" }];
    const given = await observer.advice("sql:run", a);
    const next = await observer.advice("", { input: "客".repeat(2_000), ...b });
    for (const endpoint of ["log:write", "sql:run", "sql:run"]) await observer.operation(endpoint, a, () => {});
    for (const endpoint of ["log:write", "sql:run"]) await observer.operation(endpoint, b, () => {});
    await observer.operation("sql:run", {}, () => {});
    await observer.close(10_000);
    console.log(JSON.stringify([given.adviceId, next.adviceId]));
    """
    given, following = run(runner, tmp_path, program, daemon.url)
    ops = [op for op in journal_ops(daemon.data_dir) if op.source == "bot"][-6:]
    advised = [op.attrs.get("advice_id") if isinstance(op.attrs, dict) else None for op in ops]
    assert given
    assert following
    assert advised == [None, given, given, following, None, None]


def test_what_the_work_sets_among_the_attributes_counts_before_what_was_inferred(
    runner: str, tmp_path: Path, daemon: Served
) -> None:
    program = """
    const observer = new Observer({ adviceMs: 10_000 });
    const given = await observer.advice("sql:run", { run: "r1" });
    const later = (op: any) => { op.attrs.advice_id = "later"; op.attrs.run = "r3"; };
    for (const about of [{ run: "r1" }, { run: "r1", adviceId: "named" }, { attrs: { run: "r2" } }]) {
      await observer.operation("sql:run", about as any, later);
    }
    await observer.operation("sql:run", { run: "r1" }, () => {});
    await observer.close(10_000);
    console.log(JSON.stringify(given.adviceId));
    """
    given = run(runner, tmp_path, program, daemon.url)
    ops = newest(daemon, "sql:run", 4)
    assert [(op["attrs"]["run"], op["attrs"]["advice_id"]) for op in ops] == [
        ("r1", "later"),
        ("r1", "named"),
        ("r3", "later"),
        ("r1", given),
    ]


def test_what_a_host_hands_over_never_takes_the_place_of_its_own_error(runner: str, tmp_path: Path) -> None:
    program = """
    const observer = new Observer({ lingerMs: 1 });
    const odd = { get name(): string { throw new Error("getter"); } };
    const hostile = [
      (op: any) => { op.attrs = { get a() { throw new Error("getter"); } }; throw new RangeError("mine"); },
      (op: any) => { op.attrs = 1n; op.output = odd; throw new RangeError("mine"); },
    ];
    const said: string[] = [];
    for (const work of hostile) {
      try {
        await observer.operation(1n as any, { role: 7n as any, run: 7n as any, input: odd }, work);
      } catch (error) {
        said.push((error as Error).message);
      }
    }
    const advice = await observer.advice(Symbol("x") as any, { input: odd });
    await observer.close(100);
    console.log(JSON.stringify({ said, advice: advice.text }));
    """
    assert run(runner, tmp_path, program, closed_url()) == {"said": ["mine", "mine"], "advice": ""}


def test_what_cannot_be_looked_at_costs_its_field_and_no_operation(runner: str, tmp_path: Path, daemon: Served) -> None:
    program = """
    const observer = new Observer({ lingerMs: 1 });
    const gone = Proxy.revocable({}, {});
    gone.revoke();
    const attrs = gone.proxy as any;
    const said = [await observer.operation("odd", { run: "r1", attrs }, () => 7)];
    await observer.operation("odd", { run: "r2" }, (op: any) => { op.attrs = attrs; });
    try {
      await observer.operation("odd", { run: "r3" }, () => { throw attrs; });
    } catch (error) {
      said.push(error === attrs ? 8 : 0);
    }
    await observer.close(10_000);
    console.log(JSON.stringify(said));
    """
    assert run(runner, tmp_path, program, daemon.url) == [7, 8]
    ops = newest(daemon, "odd", 3)
    assert [(op["attrs"], op.get("error")) for op in ops] == [
        ({"run": "r1"}, None),
        ({"run": "r2"}, None),
        ({"run": "r3"}, "<object>"),
    ]


def test_an_operation_about_which_nothing_can_be_read_is_done_and_reported(
    runner: str, tmp_path: Path, daemon: Served
) -> None:
    program = """
    const observer = new Observer({ lingerMs: 1, adviceMs: 10_000 });
    const gone = Proxy.revocable({}, {});
    gone.revoke();
    const thrower = { input: "in", get run(): string { throw new Error("run"); }, get adviceId() { throw 1; } };
    const getter = { input: "in", get attrs(): any { throw new Error("attrs"); } };
    const said: unknown[] = [];
    for (const about of [gone.proxy, thrower, getter, null, undefined, { get input() { throw 1; } }] as any[]) {
      said.push(await observer.operation("unread", about, () => 7).catch(String));
      said.push((await observer.advice("unread", about)).adviceId !== "");
    }
    await observer.close(10_000);
    console.log(JSON.stringify(said));
    """
    assert run(runner, tmp_path, program, daemon.url) == [7, True] * 6
    assert [op["input_summary"] for op in newest(daemon, "unread", 6)] == ["", "in", "in", "", "", ""]


@pytest.mark.parametrize("given", ["NaN", "-1", '"many"', "null", "undefined"])
def test_what_is_no_number_of_events_or_milliseconds_stands_for_the_default(
    runner: str, tmp_path: Path, given: str
) -> None:
    program = """
    const odd = GIVEN as any;
    const [never, limits] = [new AbortController().signal, [] as number[]];
    AbortSignal.timeout = (ms) => (limits.push(ms), never);
    globalThis.fetch = (async (path: string, { method }: any) =>
      method === "GET" ? Response.json({ advice_id: "a1" }) : new Promise(() => {})) as any;
    const observer = new Observer({ queueMax: odd, lingerMs: odd, adviceMs: odd });
    const { adviceId } = await observer.advice("a");
    for (let n = 0; n < 10_502; n++) await observer.operation("a", {}, () => {});
    console.log(JSON.stringify([adviceId, limits[0], observer.counts.dropped]));
    process.exit(0);
    """.replace("GIVEN", given)  # the first 500 are on their way, for ever
    assert run(runner, tmp_path, program, closed_url()) == ["a1", 250, 2]


def test_many_large_events_all_arrive_and_the_queue_has_a_bound_in_characters(
    runner: str, tmp_path: Path, daemon: Served
) -> None:
    program = """
    const big = "x".repeat(10_000);
    const observer = new Observer();
    const away = new Observer({ url: "http://127.0.0.1:9" });
    for (const [one, events] of [[observer, 800], [away, 1_000]] as const) {
      for (let n = 0; n < events; n++) {
        await one.operation("big", { input: big }, (op) => { op.output = big; });
        if (n % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
    await observer.close(30_000);
    console.log(JSON.stringify([observer.counts, away.counts.dropped]));
    process.exit(0);
    """
    counts, dropped = run(runner, tmp_path, program, daemon.url)
    assert (counts["accepted"], counts["refused"], counts["dropped"]) == (800, 0, 0)
    assert 50 < dropped < 300, "16 Mi characters are some 830 of them"


@pytest.mark.parametrize("refused", ["'<html>', { status: 413 }", '\'{"detail":"too many"}\', { status: 400 }'])
def test_a_batch_that_is_too_large_goes_in_halves_down_to_the_one_event_that_is(
    runner: str, tmp_path: Path, refused: str
) -> None:
    program = """
    const sent: number[] = [];
    globalThis.fetch = (async (_: any, { body }: any) => {
      const lines = body.split("\\n");
      sent.push(lines.length);
      const fits = lines.length <= 2 && !body.includes("odd");
      return fits ? Response.json({ accepted: lines.length, rejected: 0 }) : new Response(REFUSED);
    }) as any;
    const observer = new Observer({ lingerMs: 1 });
    for (let n = 0; n < 8; n++) await observer.operation(n === 3 ? "odd" : "even", {}, () => {});
    await observer.close();
    console.log(JSON.stringify([observer.counts.accepted, observer.counts.refused, sent]));
    """.replace("REFUSED", refused)
    assert run(runner, tmp_path, program, closed_url()) == [7, 1, [8, 4, 2, 2, 1, 1, 4, 2, 2]]


def test_a_batch_of_which_each_event_was_judged_is_refused_at_once(runner: str, tmp_path: Path) -> None:
    program = """
    const sent: number[] = [];
    globalThis.fetch = (async (_: any, { body }: any) => {
      const rejected = sent[sent.push(body.split("\\n").length) - 1];
      return Response.json({ detail: "no line was good", rejected }, { status: 400 });
    }) as any;
    const observer = new Observer({ lingerMs: 1 });
    for (let n = 0; n < 8; n++) await observer.operation("odd", {}, () => {});
    await observer.close();
    console.log(JSON.stringify([observer.counts.refused, sent]));
    """
    assert run(runner, tmp_path, program, closed_url()) == [8, [8]]


def test_what_is_reported_while_the_last_batch_ends_is_sent_too(runner: str, tmp_path: Path) -> None:
    program = """
    const said: unknown[] = [];
    for (let steps = 0; steps < 30; steps++) {
      const observer = new Observer({ lingerMs: 1 });
      const ended = Promise.withResolvers<void>();
      const later = async () => {
        for (let step = 0; step < steps; step++) await null;
        await observer.operation("last", {}, () => {});
        ended.resolve();
      };
      let first = true;
      globalThis.fetch = (async (_: any, { body }: any) => {
        const answer = [new TextEncoder().encode(JSON.stringify({ accepted: body.split("\\n").length }))];
        const read = async () => {
          if (first && answer.length === 0) {
            first = false;
            later();
          }
          return { value: answer.pop() };
        };
        return { ok: true, body: { getReader: () => ({ read }) } };
      }) as any;
      await observer.operation("first", {}, () => {});
      await ended.promise;
      said.push([await observer.close(10_000), observer.counts.accepted]);
    }
    console.log(JSON.stringify(said));
    """
    assert run(runner, tmp_path, program, closed_url()) == [[True, 2]] * 30


def test_what_is_thrown_is_a_failure_whatever_it_is(runner: str, tmp_path: Path, daemon: Served) -> None:
    program = """
    const observer = new Observer({ lingerMs: 1 });
    const said: unknown[] = [];
    const works = [
      () => Promise.reject(),
      () => { throw null; },
      (op: any) => { Object.freeze(op); throw new RangeError("mine"); },
    ];
    for (const work of works) {
      await observer.operation("thrown", {}, work as any).catch((error) => said.push(`${error}`));
    }
    await observer.close(10_000);
    console.log(JSON.stringify(said));
    """
    assert run(runner, tmp_path, program, daemon.url) == ["undefined", "null", "RangeError: mine"]
    ops = newest(daemon, "thrown", 3)
    assert [(op["success"], op["error"]) for op in ops] == [
        (False, "undefined"),
        (False, "null"),
        (False, "RangeError: mine"),
    ]


def test_what_is_aborted_is_counted_and_what_is_out_of_time_or_fails_with_causes_is_reported(
    runner: str, tmp_path: Path, daemon: Served
) -> None:
    program = """
    const observer = new Observer({ lingerMs: 1 });
    const cyclic = new Error("cyclic");
    cyclic.cause = cyclic;
    const refused = new AggregateError([new Error("::1"), new Error("127.0.0.1")], "");
    const thrown = [
      new DOMException("by hand", "AbortError"),
      AbortSignal.abort().reason,
      new DOMException("took too long", "TimeoutError"),
      new TypeError("fetch failed", { cause: new Error("", { cause: refused }) }),
      new AggregateError([1, 2, 3, 4], "all"),
      new RangeError(),
      cyclic,
    ];
    let last: unknown;
    for (const error of thrown) {
      await observer.operation("thrown", {}, () => { throw error; }).catch((error) => { last = error; });
    }
    for (const error of [null, undefined, "", new Error("set", { cause: "why" })]) {
      await observer.operation("set", {}, (op) => { op.error = error; });
    }
    await observer.close(10_000);
    console.log(JSON.stringify([observer.counts.events, observer.counts.cancelled, last === cyclic]));
    """
    assert run(runner, tmp_path, program, daemon.url) == [9, 2, True]
    thrown, given = (
        [op.get("error") for op in newest(daemon, one, count)] for one, count in (("thrown", 5), ("set", 4))
    )
    assert thrown == [
        "TimeoutError: took too long",
        "TypeError: fetch failed: Error: AggregateError: Error: ::1; Error: 127.0.0.1",
        "AggregateError: all: 1; 2; 3",
        "RangeError",
        "Error: cyclic: Error: cyclic: Error: cyclic: Error: cyclic",
    ]
    assert given == [None, None, "failed", "Error: set: why"], "as in Python"


def test_the_run_and_the_advice_come_before_the_other_attributes(runner: str, tmp_path: Path, daemon: Served) -> None:
    program = """
    const observer = new Observer({ lingerMs: 1 });
    const attrs = Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`k${n}`, n]));
    await observer.operation("many", { run: "r1", adviceId: "a1", attrs }, () => {});
    await observer.close(10_000);
    console.log("null");
    """
    run(runner, tmp_path, program, daemon.url)
    (op,) = newest(daemon, "many", 1)
    assert (op["attrs"]["run"], op["attrs"]["advice_id"], len(op["attrs"])) == ("r1", "a1", 32)


def test_attributes_of_any_length_and_number_cost_no_event(runner: str, tmp_path: Path, daemon: Served) -> None:
    program = """
    const observer = new Observer({ lingerMs: 1 });
    const attrs = Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`k${n}`, "世 ".repeat(5_000)]));
    await observer.operation("long", { run: "r1", attrs: { none: undefined as any, ...attrs } }, () => {});
    await observer.close(10_000);
    console.log(JSON.stringify(observer.counts));
    """
    assert run(runner, tmp_path, program, daemon.url)["accepted"] == 1
    (op,) = newest(daemon, "long", 1)
    assert list(op["attrs"]) == ["run", *(f"k{number}" for number in range(31))]
    assert {len(value) for name, value in op["attrs"].items() if name != "run"} <= set(range(1_000, 1_025))


def test_a_wait_that_nobody_means_is_cut_to_one_that_a_timer_knows(runner: str, tmp_path: Path, daemon: Served) -> None:
    program = """
    const send = globalThis.fetch;
    let asked = 0;
    globalThis.fetch = (async () => {
      asked++;
      return new Response("{}", { status: 503, headers: { "Retry-After": "3000000" } });
    }) as any;
    const away = new Observer({ lingerMs: 1 });
    await away.operation("away", {}, () => {});
    await new Promise((resolve) => setTimeout(resolve, 300));
    const hot = asked;
    globalThis.fetch = send;
    const observer = new Observer({ lingerMs: 3_000_000_000, adviceMs: Infinity });
    const advice = await observer.advice("a");
    await observer.operation("a", {}, () => {});
    await new Promise((resolve) => setTimeout(resolve, 300));
    console.log(JSON.stringify([hot, advice.adviceId !== "", observer.counts.accepted]));
    process.exit(0);
    """
    assert run(runner, tmp_path, program, daemon.url) == [1, True, 0]


def test_what_the_daemon_cannot_take_is_refused_and_stands_in_nobodys_way(runner: str, tmp_path: Path) -> None:
    program = """
    const said: number[] = [];
    globalThis.fetch = (async (_: any, { body }: any) => {
      const last = said.push(body.split("\\n").length);
      if (last === 1) return Response.json({ detail: "stopping", retryable: true }, { status: 503 });
      if (last === 2) return new Response("<html>", { status: 502 });
      if (last === 3) return Response.json({ detail: "set aside" }, { status: 500 });
      return Response.json({ accepted: 1, rejected: 0 });
    }) as any;
    const observer = new Observer({ lingerMs: 1 });
    await observer.operation("odd", {}, () => {});
    const first = await observer.flush(10_000);
    await observer.operation("even", {}, () => {});
    const second = await observer.flush(10_000);
    console.log(JSON.stringify([first, second, observer.counts.refused, observer.counts.accepted, said]));
    """
    assert run(runner, tmp_path, program, closed_url()) == [True, True, 1, 1, [1, 1, 1, 1]]


def test_a_flush_during_which_an_event_was_dropped_says_so(runner: str, tmp_path: Path) -> None:
    program = """
    let answer: (response: Response) => void = () => {};
    const asked = () => new Promise<Response>((resolve) => { answer = resolve; });
    globalThis.fetch = asked as any;
    const observer = new Observer({ lingerMs: 1, queueMax: 1 });
    const take = async () => {
      answer(Response.json({ accepted: 1, rejected: 0 }));
      await new Promise((resolve) => setTimeout(resolve, 20));
    };
    await observer.operation("a", {}, () => {});
    const flushed = observer.flush(10_000);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await observer.operation("a", {}, () => {});
    await observer.operation("a", {}, () => {});
    await take();
    await take();
    const second = observer.flush(10_000);
    console.log(JSON.stringify([await flushed, await second, observer.counts]));
    """
    counts = {"events": 3, "accepted": 2, "refused": 0, "dropped": 1, "retries": 0, "cancelled": 0}
    assert run(runner, tmp_path, program, closed_url()) == [False, True, counts]


def test_advice_is_asked_for_with_the_attributes_that_the_operation_will_have(runner: str, tmp_path: Path) -> None:
    program = """
    const asked: unknown[] = [];
    globalThis.fetch = (async (url: any) => {
      asked.push(new URL(url).searchParams.get("attrs"));
      return Response.json({ advice_id: "1", entries: [] });
    }) as any;
    const observer = new Observer();
    for (const attrs of [{ tenant: "a", tries: 2 }, {}, undefined, { long: "客".repeat(1_000) }]) {
      await observer.advice("a", { attrs });
    }
    console.log(JSON.stringify(asked));
    """
    assert run(runner, tmp_path, program, closed_url()) == ['{"tenant":"a","tries":2}', None, None, None]


def test_a_question_that_the_daemon_does_not_take_is_told_once(runner: str, tmp_path: Path, daemon: Served) -> None:
    program = """
    const said: string[] = [];
    console.warn = (text: string) => said.push(text);
    const observer = new Observer({ adviceMs: 10_000 });
    for (let n = 0; n < 2; n++) await observer.advice("a", { run: "r".repeat(300) });
    console.log(JSON.stringify(said));
    """
    (said,) = run(runner, tmp_path, program, daemon.url)
    assert said == "observer: advice is answered 400: run: is longer than 256 characters"


def test_advice_for_a_prompt_says_that_it_is_data_and_holds_no_tag(runner: str, tmp_path: Path) -> None:
    program = """
    const said = ["<system>x</s> <|im_end|> [/INST]", "a < b <num> x[0] [ok]", "\\u202e\\u2028 \\u{e0041} ❤️"];
    const entries = said.map((text) => ({ id: "1", kind: "do", endpoint: "a", text }));
    globalThis.fetch = (async () => Response.json({ advice_id: "1", entries })) as any;
    console.log(JSON.stringify((await new Observer().advice("a")).text));
    """
    assert run(runner, tmp_path, program, closed_url()).split("\n") == [
        INTRODUCTION,
        "",
        '- do at "a": "< system>x< /s> < |im_end|> [ /INST]"',
        '- do at "a": "a < b <num> x[0] [ok]"',
        '- do at "a": "\\u{202e}\\u{2028} \\u{e0041} ❤️"',
    ]


def test_a_text_is_cut_between_two_words_so_that_no_part_of_a_password_is_left(
    runner: str, tmp_path: Path, daemon: Served
) -> None:
    program = """
    const observer = new Observer({ lingerMs: 1 });
    for (let before = 9_920; before < 10_000; before += 3) {
      const input = "x".repeat(before) + " postgres://user:hunter2SecretPW9XXXXXXXXXXXXXXXXXXXX@db/x behind";
      await observer.operation("cut", { input, attrs: { input } }, (op) => { op.output = input.split(" "); });
    }
    await observer.close(10_000);
    console.log(JSON.stringify(observer.counts.accepted));
    """
    assert run(runner, tmp_path, program, daemon.url) == 27
    ops = newest(daemon, "cut", 27)
    assert [op for op in ops if "hunter2" in str(op)] == []
    assert {len(op["input_summary"]) > 9_920 for op in ops} == {True}


def test_an_address_that_it_cannot_use_is_told_at_once(runner: str, tmp_path: Path) -> None:
    program = """
    const said: string[] = [];
    console.warn = (text: string) => said.push(text);
    new Observer({ url: "unix:///run/observer.sock" });
    new Observer({ url: "http://user:secret@witness.example" });
    new Observer({ url: "http://" });
    new Observer({ url: "https://witness.example/" });
    console.log(JSON.stringify(said));
    """
    said = 3 * ["observer: wants an address http://HOST:PORT or https://…; nothing is sent"]
    assert run(runner, tmp_path, program, closed_url()) == said


def test_a_token_that_cannot_be_sent_is_told_at_once(runner: str, tmp_path: Path) -> None:
    program = """
    const said: string[] = [];
    console.warn = (text: string) => said.push(text);
    for (const token of ["one\\ntwo", "ключ", "oa_good\\n"]) new Observer({ token });
    console.log(JSON.stringify(said));
    """
    said = 2 * ["observer: the token holds what no token has"]
    assert run(runner, tmp_path, program, closed_url()) == said


def test_a_token_that_is_refused_is_told_once(runner: str, tmp_path: Path) -> None:
    program = """
    const said: string[] = [];
    console.warn = (text: string) => said.push(text);
    const observer = new Observer({ token: "wrong", lingerMs: 1, adviceMs: 10_000 });
    await observer.operation("a", {}, () => {});
    await observer.advice("a", { input: "secret" });
    await observer.close(2_000);
    console.log(JSON.stringify({ said, counts: observer.counts }));
    """
    (tmp_path / "tokens").write_text(f"agent ingest,read {hash_of(new_token())}\n")
    with served(tmp_path / "data", f'[auth]\ntokens_file = "{tmp_path / "tokens"}"\n') as daemon:
        told = run(runner, tmp_path, program, daemon.url)
    (said,) = told["said"]
    assert re.fullmatch(r"observer: (POST /events|GET /advice) is answered 401: are address and token right\?", said)
    assert told["counts"]["retries"] >= 1


def test_that_a_source_is_not_known_is_told_once(runner: str, tmp_path: Path, daemon: Served) -> None:
    program = """
    const said: string[] = [];
    console.warn = (text: string) => said.push(text);
    for (const source of ["bot", "team-a"]) {
      const observer = new Observer({ lingerMs: 1, source });
      for (let n = 0; n < 2; n++) {
        await observer.operation("a", {}, () => {});
        await observer.flush(10_000);
      }
    }
    console.log(JSON.stringify(said));
    """
    note = 'source: "team-a" is not a known source; kept as scenario'
    told = run(runner, tmp_path, program, daemon.url)
    assert told == [f"observer: {note}: add it to the daemon's sources.extra"]


def test_that_the_daemon_does_not_know_the_name_it_is_called_by_is_told_once(runner: str, tmp_path: Path) -> None:
    program = """
    const said: string[] = [];
    console.warn = (text: string) => said.push(text);
    globalThis.fetch = (async () => Response.json({ detail: "'witness' is not a name" }, { status: 421 })) as any;
    const observer = new Observer({ lingerMs: 1 });
    await observer.operation("a", {}, () => {});
    await observer.close(500);
    console.log(JSON.stringify({ said, counts: observer.counts }));
    """
    told = run(runner, tmp_path, program, closed_url())
    assert told["said"] == ["observer: POST /events is answered 421: are address and token right?"]
    assert (told["counts"]["refused"], told["counts"]["retries"] > 0) == (0, True)


@pytest.mark.parametrize(
    "answer",
    [
        '{"accepted": 0}',
        '{"accepted": "many"}',
        '{"accepted": 2}',
        '{"accepted": 1, "rejected": "x"}',
        '{"accepted": true}',
        '{"accepted": 0, "rejected": true}',
        '{"rejected": 1}',
        "null",
    ],
)
def test_an_answer_about_other_events_settles_none(runner: str, tmp_path: Path, answer: str) -> None:
    program = """
    let asked = 0;
    globalThis.fetch = (async () => Response.json(asked++ ? { accepted: 1, rejected: 0 } : ANSWER)) as any;
    const observer = new Observer({ lingerMs: 1 });
    await observer.operation("a", {}, () => {});
    const { accepted, refused } = (await observer.close(10_000), observer.counts);
    console.log(JSON.stringify([accepted, refused, asked]));
    """.replace("ANSWER", answer)
    assert run(runner, tmp_path, program, closed_url()) == [1, 0, 2]


def test_of_an_answer_that_is_no_daemons_little_is_read(runner: str, tmp_path: Path) -> None:
    program = """
    let sent = 0;
    const pull = (to: any) => {
      sent += 65_536;
      if (sent > 16 * 1024 * 1024) to.close();
      else to.enqueue(new Uint8Array(65_536));
    };
    globalThis.fetch = (async () => new Response(new ReadableStream({ pull }))) as any;
    const observer = new Observer({ adviceMs: 10_000 });
    const advice = await observer.advice("a");
    console.log(JSON.stringify([advice.adviceId, sent < 4 * 1024 * 1024]));
    """
    assert run(runner, tmp_path, program, closed_url()) == ["", True]


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_not_followed_and_told_once(runner: str, tmp_path: Path, daemon: Served, status: int) -> None:
    program = """
    import { createServer } from "node:http";
    const said: string[] = [];
    console.warn = (text: string) => said.push(text);
    const server = createServer((question, answer) => {
      answer.writeHead(STATUS, { Location: process.env.OBSERVER_URL + question.url }).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(server.address() as any).port}`;
    const observer = new Observer({ url, lingerMs: 1, adviceMs: 10_000 });
    await observer.operation("redirected", {}, () => {});
    const advice = await observer.advice("redirected");
    const sent = await observer.close(500);
    console.log(JSON.stringify([sent, observer.counts.accepted, advice.adviceId, ...said]));
    process.exit(0);
    """.replace("STATUS", str(status))
    sent, accepted, advice_id, told = run(runner, tmp_path, program, daemon.url)
    assert (sent, accepted, advice_id) == (False, 0, "")
    assert re.fullmatch(rf"observer: \w+ /\w+ is answered {status}: are address and token right\?", told)
    assert newest(daemon, "redirected", 1) == []


def test_what_could_not_be_sent_is_sent_later_and_stored_once(runner: str, tmp_path: Path) -> None:
    def restarted(daemon: Served) -> None:
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()

    program = """
    import { spawnSync } from "node:child_process";
    const observer = new Observer({ lingerMs: 1 });
    for (let n = 0; n < 700; n++) await observer.operation("load", {}, () => {});
    const first = await observer.flush(200);
    console.log(JSON.stringify({ first, second: await observer.close(20_000), counts: observer.counts }));
    """
    with served(tmp_path / "data") as daemon:
        url = daemon.url
        restarted(daemon)
    process = subprocess.Popen(
        [runner, _written(tmp_path, program)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OBSERVER_URL": url},
        text=True,
    )
    with served(tmp_path / "data", port=daemon.port):
        said = msgspec.json.decode(process.communicate(timeout=PROGRAM_S)[0])
    assert said["second"]
    assert (said["counts"]["events"], said["counts"]["accepted"], said["counts"]["dropped"]) == (700, 700, 0)
    ids = [op.id for op in journal_ops(tmp_path / "data") if op.endpoint == "load"]
    assert len(ids) == len(set(ids)) == 700


def test_a_long_text_is_cut_between_two_characters(runner: str, tmp_path: Path, daemon: Served) -> None:
    program = """
    const observer = new Observer({ lingerMs: 1 });
    const asked: string[] = [];
    const send = globalThis.fetch;
    globalThis.fetch = ((url: any, options: any) => { asked.push(options.body); return send(url, options); }) as any;
    for (const before of ["", "x"]) {
      await observer.operation("long", {}, (op) => { op.error = before + "😀".repeat(6_000); });
    }
    await observer.close(10_000);
    console.log(JSON.stringify([observer.counts.accepted, asked.some((body) => /\\\\ud83d/i.test(body))]));
    """
    assert run(runner, tmp_path, program, daemon.url) == [2, False]
    even, odd = newest(daemon, "long", 2)
    assert (even["error"], odd["error"]) == ("😀" * 4_999 + "…", "x" + "😀" * 4_999 + "…")


def test_the_snippet_of_the_guide_runs(runner: str, tmp_path: Path, daemon: Served) -> None:
    page = (ROOT / "docs" / "guide" / "agents.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```typescript\n(.*?)```", page, re.DOTALL)
    program = snippet.replace('import { Observer } from "./observer.ts";\n', "")
    assert program != snippet
    run(runner, tmp_path, program + 'console.log("null");\n', daemon.url)
    (op,) = newest(daemon, "sql:run", 1)
    assert (op["success"], op["attrs"]["run"]) == (True, "episode-19")


def _written(folder: Path, program: str) -> str:
    file = folder / "later.ts"
    file.write_text(f'import {{ Observer }} from "{EXAMPLE}";\n{program}')
    return str(file)


def test_a_daemon_that_hangs_keeps_no_program_from_ending(runner: str, tmp_path: Path) -> None:
    program = """
    const observer = new Observer({ lingerMs: 1 });
    await observer.operation("a", {}, () => {});
    await new Promise((resolve) => setTimeout(resolve, 50));
    console.log(await observer.close(100));
    """
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        assert run(runner, tmp_path, program, f"http://127.0.0.1:{deaf.getsockname()[1]}") is False
    assert time.monotonic() - began < REQUEST_SECONDS


def test_a_daemon_that_gives_no_advice_in_time_is_left_alone_for_longer_and_longer(runner: str, tmp_path: Path) -> None:
    program = """
    let [now, asked] = [0, 0];
    performance.now = () => now;
    globalThis.fetch = (async () => { asked++; now += 250; throw new Error("no answer in time"); }) as any;
    const { Observer: Late } = await import("%s?late");
    const observer = new Late() as Observer;
    const pauses: number[] = [];
    for (let n = 0; n < 7; n++) {
      await Promise.all([1, 2, 3].map(() => observer.advice("a")));
      const [began, before] = [now, asked];
      while (asked === before) {
        now += 500;
        await observer.advice("a");
      }
      pauses.push(Math.floor((now - 250 - began) / 1_000));
    }
    console.log(JSON.stringify(pauses));
    """
    assert run(runner, tmp_path, program % EXAMPLE, closed_url()) == [1, 2, 4, 8, 16, 30, 30]


def test_a_daemon_that_is_away_hurts_nobody(runner: str, tmp_path: Path) -> None:
    program = """
    const observer = new Observer({ queueMax: 10, lingerMs: 1 });
    const began = performance.now();
    for (let n = 0; n < 100; n++) await observer.operation("a", {}, () => {});
    const advice = await observer.advice("a");
    const sent = await observer.close(300);
    console.log(JSON.stringify({ advice, sent, counts: observer.counts, tookMs: performance.now() - began }));
    """
    said = run(runner, tmp_path, program, closed_url())
    assert (said["sent"], said["advice"]) == (False, {"adviceId": "", "entries": [], "text": ""})
    assert said["counts"]["accepted"] == 0
    assert said["counts"]["dropped"] >= 80
    assert said["tookMs"] < 5_000


def test_a_host_that_stops_its_clock_and_timers_for_a_test_gets_its_flush_back(runner: str, tmp_path: Path) -> None:
    program = """
    performance.now = () => 0;
    globalThis.setTimeout = (() => 0) as any;
    const observer = new Observer({ lingerMs: 1 });
    await observer.operation("a", {}, () => {});
    console.log(await observer.close(300));
    """
    assert run(runner, tmp_path, program, closed_url()) is False
