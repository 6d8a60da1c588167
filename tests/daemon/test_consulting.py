"""A real daemon and a model behind a chat API: asked once for its evidence; one that hangs or lies harms nothing."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from observer_actors.store import LEARNED_PATH
from observer_actors.store.files import BUSY_SECONDS
from tests.commands.typed import typed
from tests.daemon.inside import eventually
from tests.fakes.http_peer import Bytes, Garbage, Hang, Held, HttpPeer, Json, Reply, Request, Status, http_peer
from tests.harness import Daemon, running_daemon, seen

CHAT = "/v1/chat/completions"


def completion(content: str) -> Reply:
    return Json({"choices": [{"message": {"role": "assistant", "content": content}}], "usage": {"total_tokens": 321}})


def statement(*claims: tuple[str, list[int]]) -> str:
    return json.dumps(
        {"cause": "not_found", "claims": [{"text": t, "ops": o} for t, o in claims], "advice": "look first"}
    )


def sound(request: Request) -> Reply:
    """Answer with a claim that rests on the first op that is shown."""
    shown = re.search(r"^op (\d+): ", request.json()["messages"][1]["content"], re.MULTILINE)
    assert shown
    return completion(statement(("x", [int(shown[1])])))


def configured(tmp_path: Path, peer: HttpPeer, *, backend: str = "openai", more: str = "") -> str:
    config = tmp_path / "observer.toml"
    (tmp_path / "key").write_text("secret\n")
    url = peer.url + ("/v1" if backend == "openai" else "")
    config.write_text(
        f'[cycle]\nseconds = 0.2\n[diagnosis]\nbackend = "{backend}"\nurl = "{url}"\nmodel = "m"\n'
        f'api_key_file = "{tmp_path / "key"}"\ntimeout_seconds = 1.0\n{more}\n'
    )
    return str(config)


async def fail_and_find(daemon: Daemon) -> str:
    await daemon.event(endpoint="sql:run", ok=False, error="row 1 gone")
    found = await seen(lambda: daemon.json("/failures"), lambda answer: answer["failures"])
    key: str = found["failures"][0]["id"]
    return key


async def diagnosed(daemon: Daemon, key: str) -> dict[str, Any]:
    found = await seen(lambda: daemon.json(f"/failures/{key}"), lambda answer: answer["diagnosis"])
    diagnosis: dict[str, Any] = found["diagnosis"]
    return diagnosis


async def test_a_pattern_is_asked_about_once_and_what_is_made_up_is_thrown_out(tmp_path: Path) -> None:
    async with http_peer() as peer:
        peer.on(CHAT, completion(statement(("the row was deleted", [1]), ("it was Tuesday", [42]))))
        async with running_daemon(tmp_path / "data", "--config", configured(tmp_path, peer)) as daemon:
            key = await fail_and_find(daemon)
            found = await diagnosed(daemon, key)
            assert found["statement"]["claims"] == [{"text": "the row was deleted", "ops": [1]}]
            assert (found["statement"]["cause"], found["statement"]["thrown_out"], found["model"]) == (
                "not_found",
                1,
                "m",
            )
            shown = (await trio.to_thread.run_sync(typed, "failures", "show", key, "--url", daemon.url)).stdout
            said = shown.partition("diagnosis by m, ")[2].splitlines()
            assert said[1:4] == ["  Cause: not_found", "  the row was deleted (ops 1)", "  look first"]
            assert await daemon.metric("observer_model_fabrication_ratio") == 0.5
            assert await daemon.metric("observer_model_tokens_total") == 321
            [request] = peer.received(CHAT)
            asked = request.json()
            assert request.headers["authorization"] == "Bearer secret"
            schema = asked["response_format"]["json_schema"]["schema"]
            assert schema["required"] == ["cause", "claims", "advice"]
            assert schema["properties"]["claims"]["items"]["properties"]["ops"]["items"]["enum"] == [1]
            assert [message["role"] for message in asked["messages"]] == ["system", "user"]
            assert "op 1: " in asked["messages"][1]["content"]
            await daemon.stop()
        async with running_daemon(tmp_path / "data", "--config", configured(tmp_path, peer)) as daemon:
            assert (await diagnosed(daemon, key))["statement"] == found["statement"]
            await _cycles(daemon, 3)
            assert len(peer.received(CHAT)) == 1


async def _cycles(daemon: Daemon, count: int) -> None:
    """Wait until so many more cycles have been logged."""
    before = sum(line.get("event") == "cycle" for line in daemon.log)
    await eventually(lambda: sum(line.get("event") == "cycle" for line in daemon.log) >= before + count)


async def test_a_server_that_knows_no_schema_is_asked_without(tmp_path: Path) -> None:
    async with http_peer() as peer:
        peer.on(CHAT, Status(400), Status(400), completion("```json\n" + statement(("x", [1])) + "\n```"))
        async with running_daemon(tmp_path / "data", "--config", configured(tmp_path, peer)) as daemon:
            await diagnosed(daemon, await fail_and_find(daemon))
            assert ["response_format" in request.json() for request in peer.received(CHAT)] == [True, True, False]


async def test_a_server_that_knows_no_bounds_in_a_schema_is_asked_with_the_rest_of_it(tmp_path: Path) -> None:
    def answered(request: Request) -> Reply:
        known = not re.search(rb"maxLength|minItems|maxItems", request.body)
        return sound(request) if known else Status(422)

    async with http_peer() as peer:
        peer.on(CHAT, answered)
        async with running_daemon(tmp_path / "data", "--config", configured(tmp_path, peer)) as daemon:
            await diagnosed(daemon, await fail_and_find(daemon))
            await daemon.event(endpoint="other", ok=False, error="no route to host")
            with trio.fail_after(10):
                await peer.wait_requests(3, CHAT)
            _, second, third = [request.json()["response_format"]["json_schema"] for request in peer.received(CHAT)]
            assert second["strict"] is third["strict"] is True
            op = {"type": "integer", "enum": [1]}
            claim = {"text": {"type": "string"}, "ops": {"type": "array", "items": op}}
            assert second["schema"]["properties"]["claims"]["items"]["properties"] == claim
            assert second["schema"]["properties"]["advice"] == {"type": "string"}


async def test_a_server_that_knew_the_schema_and_does_no_more_is_asked_without(tmp_path: Path) -> None:
    """A model was exchanged behind the same address."""

    def without(request: Request) -> Reply:
        return Status(400) if "response_format" in request.json() else sound(request)

    async with http_peer() as peer:
        peer.on(CHAT, sound, without)
        config = configured(tmp_path, peer, more="concurrency_max = 1")
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            await diagnosed(daemon, await fail_and_find(daemon))
            events = [{"endpoint": f"e{number}", "ok": False, "error": "x"} for number in range(5)]
            await daemon.post("/events", events)
            await seen(lambda: daemon.metric('observer_model_claims_total{outcome="kept"}'), lambda kept: kept >= 4)
            asked = ["response_format" in request.json() for request in peer.received(CHAT)]
            assert asked == [True] * 5 + [False] * 3, "two are given up, the third is asked in each form"


async def test_questions_under_way_when_schemas_are_refused_are_put_without_too(tmp_path: Path) -> None:
    def answered(request: Request) -> Reply:
        return Status(400) if "response_format" in request.json() else sound(request)

    async with http_peer() as peer:
        refused = trio.Event()

        async def until_both_are_there() -> None:
            await eventually(lambda: len(peer.received(CHAT)) >= 2)
            refused.set()

        peer.on(CHAT, Held(refused, Status(400)), Held(refused, Status(400)), answered)
        async with (
            running_daemon(tmp_path / "data", "--config", configured(tmp_path, peer)) as daemon,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(until_both_are_there)
            await daemon.post("/events", [{"endpoint": f"e{number}", "ok": False, "error": "x"} for number in range(4)])
            await eventually(lambda: sum("response_format" not in one.json() for one in peer.received(CHAT)) >= 4)
            asked = ["response_format" in one.json() for one in peer.received(CHAT)]
            assert asked[:2] == [True, True]
            assert asked.count(True) <= 4, "with bounds and without, by the first two alone"


async def test_ollama_is_spoken_to_in_its_own_way(tmp_path: Path) -> None:
    async with http_peer() as peer:
        peer.on(
            "/api/chat", Json({"message": {"content": statement(("x", [1]))}, "prompt_eval_count": 5, "eval_count": 6})
        )
        config = configured(tmp_path, peer, backend="ollama")
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            await diagnosed(daemon, await fail_and_find(daemon))
            [request] = peer.received("/api/chat")
            assert (request.json()["stream"], request.json()["format"]["type"]) == (False, "object")
            assert request.json()["options"] == {"temperature": 0.2, "num_predict": 400, "num_ctx": 8_192}
            assert request.headers["authorization"] == "Bearer secret"
            assert await daemon.metric("observer_model_tokens_total") == 11


@pytest.mark.parametrize(
    "reply",
    [
        Hang(),
        Garbage(),
        Status(503),
        Bytes(b"x" * 2_000_000),
    ],
    ids=lambda reply: type(reply).__name__,
)
async def test_a_model_that_fails_harms_nothing_and_is_left_alone(tmp_path: Path, reply: Reply) -> None:
    async with http_peer() as peer:
        peer.on(CHAT, reply)
        config = configured(tmp_path, peer, more="retries_max = 0")
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            key = await fail_and_find(daemon)
            await _refusal(daemon)
            assert await daemon.metric("observer_model_questions_total") == 3
            assert (await daemon.json(f"/failures/{key}"))["diagnosis"] is None
            await daemon.event(endpoint="sql:run", ok=True)
            assert all(actor["restarts"] == 0 for actor in (await daemon.json("/actors"))["actors"])


async def test_a_question_whose_answer_is_of_no_use_keeps_no_other_from_being_asked(tmp_path: Path) -> None:
    async with http_peer() as peer:
        peer.on(CHAT, completion("I have no idea"), sound)
        config = configured(tmp_path, peer, more="concurrency_max = 1")
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            events = [{"endpoint": f"e{number}", "success": False, "error": "x"} for number in range(7)]
            await daemon.post("/events", [*events, *events[:1]])
            await seen(lambda: daemon.metric("observer_model_questions_total"), lambda asked: asked >= 7)
            await _cycles(daemon, 3)
            asked = [request.json()["messages"][1]["content"] for request in peer.received(CHAT)]
            assert len(asked) == len({question.splitlines()[0] for question in asked}) == 7, "each once"


async def test_what_is_resolved_is_not_asked_about_and_the_newest_comes_first(tmp_path: Path) -> None:
    async with http_peer() as peer:
        peer.on(CHAT, sound)
        async with running_daemon(tmp_path / "data") as daemon:
            events = [{"endpoint": f"e{number}", "ok": False, "error": "x"} for number in range(10) for _ in range(3)]
            await daemon.post("/events", events)
            found = {one["endpoint"]: one["id"] for one in (await daemon.json("/failures"))["failures"]}
            for endpoint in ("e5", "e7", "e9"):
                await daemon.post(f"/failures/{found[endpoint]}", {"action": "resolve"})
            await daemon.event(endpoint="fresh", ok=False, error="x")
            await daemon.stop()
        config = configured(tmp_path, peer, more="calls_per_hour_max = 5")
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            await _refusal(daemon)
            asked = [request.json()["messages"][1]["content"].splitlines()[0] for request in peer.received(CHAT)]
            assert sorted(asked) == [f'Endpoint: <data>"{name}"</data>' for name in ("e3", "e4", "e6", "e8", "fresh")]


async def test_a_store_that_another_process_holds_has_no_question_put_twice(tmp_path: Path) -> None:
    """Neither the one under way nor the one whose cost, or whose answer, is to be saved."""
    goes_on = trio.Event()
    async with http_peer() as peer:
        peer.on(CHAT, lambda request: Held(goes_on, sound(request)))
        flags = ("--config", configured(tmp_path, peer), "--set", "diagnosis.timeout_seconds=60")
        async with running_daemon(tmp_path / "data", *flags) as daemon:
            await daemon.post("/events", [{"endpoint": name, "ok": False, "error": "x"} for name in ("a", "b", "c")])
            await eventually(lambda: len(peer.received(CHAT)) >= 2)
            with closing(sqlite3.connect(tmp_path / "data" / LEARNED_PATH, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                goes_on.set()
                await trio.sleep(2 * BUSY_SECONDS + 0.5)
            for failure in (await daemon.json("/failures"))["failures"]:
                await diagnosed(daemon, failure["id"])
            assert len(peer.received(CHAT)) == 3
            events = [line["event"] for line in daemon.log]
            assert ("store_refused" in events, "actor_failed" in events) == (True, False)


async def test_an_answer_is_kept_while_another_question_goes_on_and_survives_a_kill(tmp_path: Path) -> None:
    def answered(request: Request) -> Reply:
        return Hang() if '"slow"' in request.json()["messages"][1]["content"] else sound(request)

    async with http_peer() as peer:
        peer.on(CHAT, answered)
        flags = ("--config", configured(tmp_path, peer), "--set", "diagnosis.timeout_seconds=600")
        async with running_daemon(tmp_path / "data", *flags) as daemon:
            await daemon.post("/events", [{"endpoint": name, "ok": False, "error": "x"} for name in ("slow", "fast")])
            [fast] = [one["id"] for one in (await daemon.json("/failures"))["failures"] if one["endpoint"] == "fast"]
            said = await diagnosed(daemon, fast)
            assert await daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        async with running_daemon(tmp_path / "data", *flags) as daemon:
            assert await diagnosed(daemon, fast) == said
            questions = [request.json()["messages"][1]["content"] for request in peer.received(CHAT)]
            assert sum('"fast"' in question for question in questions) == 1


async def test_a_question_that_is_refused_keeps_no_other_from_being_asked(tmp_path: Path) -> None:
    refusal = Json({"error": {"message": "too many\u202e tokens: Bearer secret"}}, 413)

    def answered(request: Request) -> Reply:
        is_long = "long" in request.json()["messages"][1]["content"].splitlines()[0]
        return refusal if is_long else sound(request)

    async with http_peer() as peer:
        peer.on(CHAT, answered)
        config = configured(tmp_path, peer, more="concurrency_max = 1")
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            events = [{"endpoint": f"long{number}", "ok": False, "error": "x"} for number in range(10)]
            await daemon.post("/events", events)
            failed = await daemon.logged("consultation_failed")
            assert failed["error"].startswith(f"{peer.url}/v1/chat/completions: status 413: ")
            assert "too many\\u202e tokens" in failed["error"]
            assert "secret" not in failed["error"]
            await daemon.event(endpoint="fresh", ok=False, error="x")
            [fresh] = [one["id"] for one in (await daemon.json("/failures"))["failures"] if one["endpoint"] == "fresh"]
            await diagnosed(daemon, fresh)
            await _cycles(daemon, 3)
            asked = [request.json()["messages"][1]["content"].splitlines()[0] for request in peer.received(CHAT)]
            assert asked.count('Endpoint: <data>"fresh"</data>') == 1
            assert len(set(asked)) == 11, "each of the others had its turn, and waits for its next"
            assert await daemon.metric("observer_model_refusals_total") == 0


async def test_an_answer_of_which_nothing_is_left_is_no_diagnosis_and_nobody_is_told(tmp_path: Path) -> None:
    async with http_peer() as peer:
        peer.on("/log", Status(200))
        peer.on(CHAT, completion(statement(("it was Tuesday", [42]))), sound)
        config = configured(tmp_path, peer, more=f'[gateway]\nurl = "{peer.url}"')
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            key = await fail_and_find(daemon)
            await daemon.logged("consultation_unusable")
            assert await daemon.metric("observer_model_fabrication_ratio") == 1
            assert await daemon.metric("observer_model_unusable_total") == 1
            await daemon.event(endpoint="other", ok=False, error="no route to host")
            await daemon.logged("consultation")
            assert (await daemon.json(f"/failures/{key}"))["diagnosis"] is None
            await _cycles(daemon, 3)
            assert len(peer.received(CHAT)) == 2, "it waits for its next turn"
            assert all("Cause: unknown" not in str(request.json()) for request in peer.received("/log"))


async def test_a_server_that_wants_its_limit_by_another_name_gets_it(tmp_path: Path) -> None:
    refusal = {
        "error": {
            "message": "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
        }
    }

    def answered(request: Request) -> Reply:
        is_new = "max_tokens" not in request.json() and "temperature" not in request.json()
        return sound(request) if is_new else Json(refusal, 400)

    async with http_peer() as peer:
        peer.on(CHAT, answered)
        async with running_daemon(tmp_path / "data", "--config", configured(tmp_path, peer)) as daemon:
            await diagnosed(daemon, await fail_and_find(daemon))
            first, second = [request.json() for request in peer.received(CHAT)]
            assert first["max_tokens"] == second["max_completion_tokens"]
            assert "response_format" in second, "it was not the schema"
            assert await daemon.metric("observer_model_questions_total") == 2, "each counts"


async def test_a_pattern_that_takes_others_in_has_their_newest_diagnosis_and_is_muted_only_if_they_all_were(
    tmp_path: Path,
) -> None:
    async with http_peer() as peer:
        peer.on(CHAT, sound)
        config = configured(tmp_path, peer)
        async with running_daemon(tmp_path / "data") as daemon:
            await daemon.event(endpoint="sql:run", ok=False, error="Invalid user alice here")
            [alice] = (await daemon.json("/failures"))["failures"]
            assert (await daemon.post(f"/failures/{alice['id']}", {"action": "mute"})).json()["state"] == "muted"
            await daemon.stop()
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            await daemon.event(endpoint="sql:run", ok=False, error="Invalid user bob here")
            _, bob = sorted((await daemon.json("/failures"))["failures"], key=lambda found: found["first_seq"])
            said = await diagnosed(daemon, bob["id"])
            more = [f"Invalid user {name} here" for name in ("carol", "dave")]
            await daemon.post("/events", [{"endpoint": "sql:run", "ok": False, "error": error} for error in more])
            [joined] = (await daemon.json("/failures"))["failures"]
            assert (joined["id"], joined["count"], joined["state"]) == (alice["id"], 4, "new")
            assert [case["pattern_id"] for case in said["cases"]] == [bob["id"]]
            assert (await daemon.json(f"/failures/{alice['id']}"))["diagnosis"] == said
            await daemon.stop()
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            assert (await daemon.json(f"/failures/{alice['id']}"))["diagnosis"] == said


async def test_the_budget_of_an_hour_is_kept(tmp_path: Path) -> None:
    async with http_peer() as peer:
        peer.on(CHAT, completion(statement(("x", [1]))))
        config = configured(tmp_path, peer, more="calls_per_hour_max = 1")
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            await diagnosed(daemon, await fail_and_find(daemon))
            await daemon.event(endpoint="other", ok=False, error="no route to host")
            await _refusal(daemon)
            await _cycles(daemon, 2)
            assert len(peer.received(CHAT)) == 1
            [spent] = [line for line in daemon.log if line["event"] == "consultation_budget_spent"]
            assert (spent["calls"], spent["tokens"]) == (1, 321)
            assert await daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            await _refusal(daemon)
            assert len(peer.received(CHAT)) == 1, "what was spent stays spent"


async def test_the_tokens_of_an_answer_without_words_are_spent(tmp_path: Path) -> None:
    """A model that thinks may use up all its tokens for that."""
    async with http_peer() as peer:
        peer.on(CHAT, completion(""))
        config = configured(tmp_path, peer, more="tokens_per_hour_max = 600")
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            await fail_and_find(daemon)
            await _refusal(daemon)
            assert await daemon.metric("observer_model_tokens_total") == 642
            [said] = [line["error"] for line in daemon.log if line["event"] == "consultation_failed"][:1]
            assert "diagnosis.answer_tokens_max, 400" in said
            assert len(peer.received(CHAT)) == 2
            await daemon.stop()
        async with running_daemon(tmp_path / "data", "--config", config) as daemon:
            await _refusal(daemon)
            assert len(peer.received(CHAT)) == 2, "what was spent stays spent"


async def _refusal(daemon: Daemon) -> None:
    await seen(lambda: daemon.metric("observer_model_refusals_total"))
