"""`config check | show | default`."""

from __future__ import annotations

from pathlib import Path

import pytest

from observer_actors.config import LEAVES
from tests.commands.typed import answered, typed, typed_for_real


def test_check_says_good_or_exits_78_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "observer.toml"
    file.write_text("[ring]\ncapacity_ops = 7\n")
    good = typed("config", "check", "--config", str(file), "--port", "0")
    assert (good.returncode, good.stderr) == (0, "")
    assert "the configuration is good: 2 of " in good.stdout
    file.write_text("[ring]\ncapacity = 7\n")
    bad = typed("config", "check", "--config", str(file))
    assert (bad.returncode, bad.stdout) == (78, "")
    assert bad.stderr.splitlines() == [
        f"observer-actors: {file}: ring.capacity is no setting",
        "  did you mean ring.capacity_ops?",
    ]


def test_a_model_that_nobody_asks_is_told(tmp_path: Path) -> None:
    file = tmp_path / "observer.toml"
    file.write_text('[diagnosis]\nurl = "http://127.0.0.1:11434"\nmodel = "m"\n')
    found = typed("config", "check", "--config", str(file))
    assert (found.returncode, found.stdout.split("\n")[0]) == (
        0,
        "diagnosis.url is set, and diagnosis.backend is not: no model is asked",
    )


@pytest.mark.parametrize("command", [["config", "check"], ["serve", "--port", "0"]])
@pytest.mark.parametrize("where", [["--data-dir", "d\udcff"], ["--set", "model.name=m\udcff"]])
def test_check_refuses_a_text_that_is_no_utf_8_in_the_words_of_serve(
    tmp_path: Path, command: list[str], where: list[str]
) -> None:
    ended = typed_for_real(*command, *where, cwd=tmp_path)
    name = "--data-dir: data_dir" if where[0] == "--data-dir" else "--set model.name: model.name"
    hint = "  write it in UTF-8; reach what has another name through a link"
    assert (ended.returncode, ended.stderr.splitlines()) == (78, [f"observer-actors: {name} is no UTF-8", hint])
    assert list(tmp_path.iterdir()) == []


def test_show_says_each_value_and_where_it_comes_from_but_no_password(tmp_path: Path) -> None:
    gateway = "http://me:hunter2@gateway:1"
    answer = answered("config", "show", "--port", "0", GATEWAY_URL=gateway, OBSERVER_TAIL__READERS_MAX="3")
    settings = {entry["name"]: entry for entry in answer}
    assert list(settings) == list(LEAVES)
    assert settings["listen.port"] == {"name": "listen.port", "value": 0, "origin": "--port", "default": 3800}
    assert settings["tail.readers_max"]["origin"] == "OBSERVER_TAIL__READERS_MAX"
    assert settings["gateway.url"]["value"] == "http://•••@gateway:1"
    assert settings["ring.capacity_ops"]["origin"] == "default"
    shown = typed("config", "show", GATEWAY_URL=gateway, OBSERVER_TAIL__READERS_MAX="3")
    assert "hunter2" not in shown.stdout
    assert "# OBSERVER_TAIL__READERS_MAX" in shown.stdout
    again = tmp_path / "again.toml"
    again.write_text(shown.stdout.replace("•••@", ""))
    assert typed("config", "check", "--config", str(again)).returncode == 0, "what it prints is a configuration"


@pytest.mark.parametrize(
    ("setting", "value", "shown"),
    [
        ("gateway.url", "http://me:p@hunter2@gateway:1/api", "http://•••@gateway:1/api"),
        ("failures.webhook_url", "https://hook.test/in?token=hunter2", "https://hook.test/•••"),
        ("failures.webhook_url", "https://me:hunter2@hook.test/T1/hunter2", "https://•••@hook.test/•••"),
        ("failures.webhook_url", "https://hook.test", "https://hook.test"),
    ],
)
def test_show_hides_what_is_secret_in_a_url(setting: str, value: str, shown: str) -> None:
    answer = answered("config", "show", "--set", f"{setting}={value}")
    assert shown in [entry["value"] for entry in answer]
    assert "hunter2" not in str(answer)


def test_a_password_that_makes_a_url_none_is_refused_and_not_told() -> None:
    bad = typed("config", "check", GATEWAY_URL="http://me:hun/ter2@gateway:1")
    assert bad.returncode == 78
    assert "http://" in bad.stderr
    assert "hun" not in bad.stderr


@pytest.mark.parametrize(
    "url", ["http://me:hunter2@127.0.0.1:1", "http://me:hun/ter2@127.0.0.1:1", "ftp://me:hunter2@h"]
)
def test_no_command_tells_the_password_of_its_address(url: str) -> None:
    asked = typed("stats", "--url", url)
    assert asked.returncode != 0
    assert "•••@" in asked.stderr or r"\u2022@" in asked.stderr
    assert "hun" not in asked.stdout + asked.stderr


def test_default_prints_a_file_that_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "observer.toml"
    file.write_text(typed("config", "default").stdout)
    assert typed("config", "check", "--config", str(file)).stdout.startswith("the configuration is good: 0 of ")
