"""The daemon as it is: whatever way a secret comes in, no file and no line of the log holds it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Final

from tests.harness import running_daemon

SECRET: Final = "sk-proj-abcdefghijklmnopqrstuv"  # made up


async def test_no_way_to_write_json_brings_a_secret_to_the_disk(tmp_path: Path) -> None:
    data = tmp_path / "data"
    bodies = [
        b'{"error":"got Bearer ab1\\/cd2\\/ef3\\/gh4\\/ij5\\/NEEDLE refused"}',
        b'{"error":"got Bearer\\tab1cd2ef3gh4ij5NEEDLE refused"}',
        b'{"error":"caf\\u00e9-NEEDLE"}',
        b'{"error":"key sk-proj-\\u200babcdefghijklmnopqrNEEDLE"}',
    ]
    config = tmp_path / "observer.toml"
    config.write_text('[secrets]\nextra = ["staff=café-(\\\\w+)"]\n')
    async with running_daemon(data, "--config", str(config)) as daemon:
        for body in bodies:
            assert (await daemon.post("/event", body)).status_code == 200
        assert (await daemon.post("/events", b"\n".join(bodies))).json()["accepted"] == len(bodies)
    files = [file for file in data.rglob("*") if file.is_file()]
    assert len(files) > 3
    for file in files:
        assert b"NEEDLE" not in file.read_bytes(), file
    assert "NEEDLE" not in str(daemon.log)


async def test_no_file_and_no_log_line_holds_a_secret(tmp_path: Path) -> None:
    data = tmp_path / "data"
    event = json.dumps({"source": SECRET, "error": f"refused: {SECRET}", "own": SECRET, "endpoint": "x"}).encode()
    async with running_daemon(data, environment={"OBSERVER_CYCLE": "0.1"}) as daemon:
        answers = [
            await daemon.post("/event", event),
            await daemon.post("/events", b"\n".join([event] * 3)),
            await daemon.post("/events", b"[" + event + b"]"),
            await daemon.post("/event", gzip.compress(event), headers={"Content-Encoding": "gzip"}),
            await daemon.post("/event?by=web", event),
        ]
        (pattern, *_) = (await daemon.json("/failures"))["failures"]
        noted = {"action": "note", "note": f"it was {SECRET}"}
        answers.append(await daemon.post(f"/failures/{pattern['id']}", json.dumps(noted).encode()))
        refused = await daemon.post("/event", json.dumps({"id": SECRET}).encode())
        seen = [await daemon.get(path) for path in ("/ops", "/failures", "/stats", "/metrics")]
        for answer in (*answers, refused, *seen):
            assert SECRET not in answer.text
        assert [answer.status_code for answer in answers] == [200] * 6
        assert refused.status_code == 400
        assert 'observer_secrets_redacted_total{kind="api_key"} 22.0' in seen[-1].text
    files = [file for file in data.rglob("*") if file.is_file()]
    assert len(files) > 3
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file
    assert SECRET not in str(daemon.log)
