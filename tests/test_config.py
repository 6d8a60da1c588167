"""Settings: flag, then environment, then file, then default; and every mistake in one line that helps."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect as types

from observer_actors.config import (
    LEAVES,
    Places,
    default_file,
    leaves_of,
    read_secret,
    read_settings,
    reload_settings,
    toml_value,
)
from observer_actors.config.reading import PATHS
from observer_actors.config.reloading import RELOADABLE
from observer_actors.errors import ConfigInvalid
from observer_actors.settings import INT_MAX, CycleSettings, LogSettings, Settings, SourcesSettings
from tests.commands.typed import as_ordinary_user
from tests.conftest import ROOT
from tests.harness import STOP_S, own_environment


def load_settings(file: Path | None, flags: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    return read_settings(Places(flags=flags, environment=environment, file=file)).settings


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "observer.toml"
    file.write_text(text)
    return file


def refusal(
    file: Path | None = None, flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(file, flags or {}, environment or {})
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_pipe_that_has_been_read_does_not_count_as_an_empty_configuration() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"[sources]\nextra = ['crm']\n")
    os.close(writer)
    file = Path(f"/dev/fd/{reader}")  # as of `--config <(…)`
    assert load_settings(file, {}, {}).sources.extra == ("crm",)
    assert f"{file} is a pipe, and gives nothing" in str(refusal(file)), "as at a reload"
    os.close(reader)


@pytest.mark.parametrize("name", sorted(PATHS))
def test_a_tilde_stands_for_nobodys_home(name: str) -> None:
    """Else a folder of that name would be made, or be the home of whoever looks."""
    told = refusal(environment={f"OBSERVER_{name.upper().replace('.', '__')}": "~/x"})
    assert f"{name}: a path that begins with ~" in str(told)
    assert told.hint == "write the whole path, from / on"


def test_the_file_of_a_local_model_is_a_path_too() -> None:
    environment = {"OBSERVER_DIAGNOSIS__BACKEND": "llama.cpp", "OBSERVER_DIAGNOSIS__MODEL": "~/m.gguf"}
    told = refusal(environment=environment)
    assert "OBSERVER_DIAGNOSIS__MODEL: diagnosis.model: a path that begins with ~" in str(told)
    assert told.hint == "write the whole path, from / on"


def test_the_name_of_a_model_is_no_path() -> None:
    diagnosis = {"diagnosis.backend": "ollama", "diagnosis.url": "http://127.0.0.1:1", "diagnosis.model": "~m"}
    assert load_settings(None, diagnosis, {}).diagnosis.model == "~m"


def test_a_path_may_hold_a_tilde(tmp_path: Path) -> None:
    assert load_settings(None, {"data_dir": f"{tmp_path}/~"}, {}).data_dir == tmp_path / "~"
    assert load_settings(None, {"listen.unix": "./~/s"}, {}).listen.unix == "./~/s"


def test_with_nothing_given_the_defaults_hold() -> None:
    assert load_settings(None, {}, {}) == Settings()


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, "[listen]\nport = 1\n[ring]\ncapacity_ops = 7\n")
    variables = {"OBSERVER_PORT": "2"}

    def port(file: Path | None, flag: int | None, environment: dict[str, str]) -> int:
        return load_settings(file, {"listen.port": flag}, environment).listen.port

    assert port(file, 3, variables) == 3
    assert port(file, None, variables) == 2
    assert port(file, None, {}) == 1
    assert port(None, None, {}) == 3800
    assert load_settings(file, {"listen.port": 3}, variables).ring.capacity_ops == 7
    assert port(file, 0, variables) == 0


def test_the_seeds_variables_work() -> None:
    settings = load_settings(
        None,
        {},
        {
            "OBSERVER_PORT": "3900",
            "OBSERVER_CYCLE": "5",
            "GATEWAY_URL": "http://g:1",
            "LAKEHOUSE_URL": "http://l:2",
            "OBSERVER_DATA_DIR": "/somewhere",
            "OBSERVER_HOST": "::1",
        },
    )
    assert (settings.listen.port, settings.listen.host) == (3900, "::1")
    assert settings.cycle.seconds == 5
    assert (settings.gateway.url, settings.model.lakehouse_url) == ("http://g:1", "http://l:2")
    assert settings.data_dir == Path("/somewhere")


@pytest.mark.parametrize("text", ["", "\n", " "])
def test_an_empty_variable_counts_as_not_given(text: str) -> None:
    variables = dict.fromkeys(("OBSERVER_PORT", "GATEWAY_URL", "OBSERVER_DATA_DIR"), text)
    assert load_settings(None, {}, variables) == Settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.level", "debug"),
        ("failures.webhook_url", "http://a/x"),
        ("gateway.url", "http://a"),
        ("data_dir", "/srv/x"),
        ("auth.tokens_file", "/srv/tokens"),
        ("listen.unix_mode", "0600"),
    ],
)
def test_a_variable_that_ends_with_a_newline_says_what_stands_before_it(name: str, text: str) -> None:
    variable = f"OBSERVER_{name.upper().replace('.', '__')}"
    assert leaves_of(load_settings(None, {}, {variable: f"{text}\n"}))[name] == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.level", "info"),
        ("diagnosis.backend", ""),
        ("listen.unix_mode", "0660"),
        ("failures.webhook_url", "http://a/x"),
        ("gateway.url", "http://a"),
    ],
)
def test_a_value_of_a_file_that_ends_with_a_newline_is_none(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / "observer.toml"
    file.write_text(f'{name} = "{text}"')
    assert leaves_of(load_settings(file, {}, {}))[name] == text
    file.write_text(f'{name} = "{text}\\n"')
    with pytest.raises(ConfigInvalid, match=re.escape(name)):
        load_settings(file, {}, {})


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("[listen]\nprot = 1", "listen.prot is no setting", "did you mean listen.port?"),
        ("[lisen]\nport = 1", "lisen is no setting", "did you mean listen?"),
        ("prot = 1", "prot is no setting", ""),
        ("port = 1", "port is no setting", "did you mean listen.port?"),
        (
            "[journal]\nsegment_bytes = 1",
            "journal.segment_bytes is no setting",
            "did you mean journal.segment_bytes_max?",
        ),
        ("[listen]\nport = 'x'", "listen.port: Expected `int`, got `str`", ""),
        ("[listen]\nport = 65536", "listen.port: Expected `int` <= 65535", ""),
        ("[listen]\nport = true", "listen.port: Expected `int`, got `bool`", ""),
        ("[cycle]\nseconds = 0", "cycle.seconds: Expected `", ""),
        ("[cycle]\nseconds = nan", "cycle.seconds: Expected `", ""),
        ("[cycle]\nseconds = inf", "cycle.seconds: Expected `", ""),
        ("[secrets]\nextra = ['K=(']", "secrets.extra: K: missing ): (", "no look-around"),
        ("[sources]\nextra = 'a'", "sources.extra: Expected `array`, got `str`", ""),
        ("[sources]\nextra = [1]", "sources.extra[0]: Expected `str`, got `int`", ""),
        ("[sources]\nextra = ['observer']", "observer is what the daemon itself writes", "name another"),
        ("[log]\nlevel = 'loud'", "log.level: no such value", "it may be debug, info, warning or error"),
        ("[log]\nlevel = 5", "log.level: Expected `str`, got `int`", "it may be debug"),
        ("listen = 5", "listen is a section, not a value", "[listen]"),
        ("data_dir = 5", "data_dir: Expected `str`, got `int`", ""),
        ("data_dir = ''", "data_dir: an empty path", ""),
        ("[gateway]\nrequired = true", "gateway.required is set, but gateway.url is not", ""),
        ("[diagnosis]\nbackend = 'openai'\nmodel = 'm'", "diagnosis.url is not set", ""),
        ("[diagnosis]\nbackend = 'llama.cpp'", "diagnosis.model is not set", ""),
        ("[listen]\nbody_bytes_max = 100\nbodies_bytes_max = 99", "no such body could ever pass", ""),
        (f"[listen]\nunix = '/{'ü' * 53}x'", "a path of 108 bytes is too long for a Unix socket", "107 bytes at most"),
        ("[listen", "is not TOML", ""),
        ("\x00", "is not TOML", ""),
        (f"data_dir = {'9' * 5_000}", "is not TOML", ""),
        (f"data_dir = {'[' * 5_000}", "is not TOML", ""),
        (f"data_dir = {'{a=' * 5_000}", "is not TOML", ""),
        ('[listen]\ntls_cert = "a\\u0000b"', "listen.tls_cert holds a NUL character", ""),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, said: str, hint: str) -> None:
    error = refusal(written(tmp_path, text))
    assert said in str(error)
    assert hint in error.hint


@pytest.mark.parametrize("name", [name for name, leaf in LEAVES.items() if isinstance(leaf.kind, types.IntType)])
def test_no_number_is_taken_that_sqlite_or_the_system_would_refuse(tmp_path: Path, name: str) -> None:
    section, _, key = name.rpartition(".")
    error = refusal(written(tmp_path, f"[{section}]\n{key} = {2**63}\n"))
    assert f"{name}: Expected `int` <= " in str(error)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert f"cannot read {tmp_path / 'none'}" in str(refusal(tmp_path / "none"))
    assert f"cannot read {tmp_path}" in str(refusal(tmp_path))
    file = tmp_path / "latin"
    file.write_bytes(b"a = '\xff'")
    assert "is not TOML" in str(refusal(file))


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "marked.toml"
    file.write_bytes(b"\xef\xbb\xbf[listen]\nport = 81\n")
    assert load_settings(file, {}, {}).listen.port == 81
    file.write_bytes(b"\xef\xbb\xbf# tokens\n")
    assert read_secret(str(file)) == "# tokens\n"
    (tmp_path / "gateway.url").write_bytes(b"\xef\xbb\xbfhttp://127.0.0.1:3700\n")
    assert load_settings(None, {}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).gateway.url == "http://127.0.0.1:3700"


@pytest.mark.parametrize("kind", ["a dangling link", "a folder"])
def test_a_system_file_that_is_there_and_is_no_file_is_an_error(tmp_path: Path, kind: str) -> None:
    system = tmp_path / "config.toml"
    if kind == "a folder":
        system.mkdir()
    else:
        system.symlink_to(tmp_path / "none")
    with pytest.raises(ConfigInvalid, match=f"cannot read {system}: "):
        read_settings(Places(environment={}, system_file=system))
    assert read_settings(Places(environment={}, system_file=tmp_path / "none")).settings == Settings()


@pytest.mark.parametrize(("mode", "doing"), [(0, "look for"), (0o700, "read")])
def test_a_system_file_that_may_not_be_looked_at_is_named(tmp_path: Path, mode: int, doing: str) -> None:
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o700)
    (folder / "config.toml").touch(mode=0)
    folder.chmod(mode)
    script = f"""
from pathlib import Path
from observer_actors.config import Places, read_settings
from observer_actors.errors import ConfigInvalid
try:
    read_settings(Places(environment={{}}, system_file=Path({str(folder / "config.toml")!r})))
except ConfigInvalid as error:
    print(error, error.hint, sep=chr(10))
"""
    command = [*as_ordinary_user(), sys.executable, "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    assert said[0] == f"cannot {doing} {folder / 'config.toml'}: Permission denied"
    assert "as root" in said[1]


@pytest.mark.parametrize(
    ("variable", "text"),
    [("OBSERVER_PORT", "x"), ("OBSERVER_PORT", "65536"), ("OBSERVER_CYCLE", "soon"), ("OBSERVER_CYCLE", "-1"),
     ("OBSERVER_CYCLE", "nan")],
)  # fmt: skip
def test_a_mistake_in_a_variable_names_the_variable(variable: str, text: str) -> None:
    assert variable in str(refusal(environment={variable: text}))


def test_a_mistake_in_a_flag_names_the_flag(tmp_path: Path) -> None:
    file = written(tmp_path, "[listen]\nport = 1\n")
    assert str(refusal(file, {"listen.port": 70_000}, {"OBSERVER_PORT": "2"})).startswith("--port: listen.port: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "0:0:0:0:0:0:0:1"])
def test_a_loopback_address_needs_no_leave(host: str) -> None:
    assert load_settings(None, {"listen.host": host}, {}).listen.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "127.example.org", "localhost.example.org", ""])  # noqa: S104
def test_any_other_address_needs_leave(host: str) -> None:
    error = refusal(None, {"listen.host": host})
    assert f"listen.host: {host!r} can be reached from other machines, and no tokens are set" in str(error)
    assert "--insecure-no-auth" in error.hint
    assert load_settings(None, {"listen.host": host, "listen.insecure_no_auth": True}, {}).listen.host == host


@pytest.mark.parametrize("host", ["a..b", "é..com", "a b", "http://a", "a:1", "[::1]", "*"])
def test_a_host_to_listen_on_that_names_none_is_refused(host: str) -> None:
    error = refusal(None, {"listen.host": host, "listen.insecure_no_auth": True})
    assert str(error) == f"--host: listen.host: {host!a} is no host name"


@pytest.mark.parametrize("host", ["::", "fe80::1%eth0", "0.0.0.0", "my_host.local.", "bücher.example"])  # noqa: S104
def test_a_host_to_listen_on_may_be_any_that_can_be_one(host: str) -> None:
    assert load_settings(None, {"listen.host": host, "listen.insecure_no_auth": True}, {}).listen.host == host


@pytest.mark.parametrize("name", ["http://b.example", "b.example ", "*.example", "", "-b.example", "b..example", "b:x"])
def test_what_is_no_host_name_is_none_that_a_request_may_say(name: str) -> None:
    error = refusal(None, {"listen.hosts": ["a.example:1", "10.0.0.1", "::1", name]})
    assert str(error) == f"--hosts: listen.hosts: {name!r} is no host name"
    assert error.hint.startswith("e.g. observer.example")


def test_a_reload_tells_what_changes_at_once_from_what_needs_a_restart() -> None:
    new = Settings(
        cycle=CycleSettings(seconds=5, consolidate_every=3),
        log=LogSettings(level="debug"),
        sources=SourcesSettings(extra=("a",)),
        data_dir=Path("elsewhere"),
    )
    in_force, now, later = reload_settings(Settings(), new)
    assert sorted(now) == ["cycle.seconds", "log.level", "sources.extra"]
    assert sorted(later) == ["cycle.consolidate_every", "data_dir"]
    assert (in_force.cycle, in_force.sources) == (CycleSettings(seconds=5), new.sources)
    assert in_force.data_dir == Settings().data_dir
    assert sorted(reload_settings(in_force, new)[2]) == sorted(later), "what waits for a restart goes on waiting"
    assert reload_settings(new, new)[1:] == ([], [])


def test_each_place_beats_the_ones_below_it_and_is_named(tmp_path: Path) -> None:
    system, file, credentials = tmp_path / "system.toml", tmp_path / "mine.toml", tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "gateway.url").write_text("http://secret@gateway:1\n")
    (credentials / "ring.capacity_ops").write_text("5")
    (credentials / "tls-key").write_text("of another program")
    system.write_text("[listen]\nport = 1\n[tail]\nreaders_max = 1\n[ring]\ncapacity_ops = 1\n[cycle]\nseconds = 1\n")
    file.write_text("[listen]\nport = 2\n[tail]\nreaders_max = 2\n[ring]\ncapacity_ops = 2\n")
    environment = {
        "CREDENTIALS_DIRECTORY": str(credentials),
        "OBSERVER_LISTEN__PORT": "3",
        "OBSERVER_PORT": "4",
        "OBSERVER_SOURCES__EXTRA": "gateway, batch",
        "OBSERVER_JOURNAL__COMPRESS": "false",
    }
    places = Places(
        flags={"listen.port": None, "data_dir": "/d"},
        assignments=("admission.waiting_ops_max=9",),
        environment=environment,
        file=file,
        system_file=system,
    )
    loaded = read_settings(places)
    given = {name: origin for name, origin in loaded.origins.items() if origin != "default"}
    assert given == {
        "data_dir": "--data-dir",
        "admission.waiting_ops_max": "--set admission.waiting_ops_max",
        "listen.port": "OBSERVER_LISTEN__PORT",
        "sources.extra": "OBSERVER_SOURCES__EXTRA",
        "journal.compress": "OBSERVER_JOURNAL__COMPRESS",
        "gateway.url": str(credentials / "gateway.url"),
        "ring.capacity_ops": str(credentials / "ring.capacity_ops"),
        "tail.readers_max": str(file),
        "cycle.seconds": str(system),
    }
    settings = loaded.settings
    assert (settings.data_dir, settings.admission.waiting_ops_max, settings.listen.port) == (Path("/d"), 9, 3)
    assert (settings.sources.extra, settings.journal.compress) == (("gateway", "batch"), False)
    assert (settings.gateway.url, settings.ring.capacity_ops) == ("http://secret@gateway:1", 5)
    assert (settings.tail.readers_max, settings.cycle.seconds) == (2, 1)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [("OBSERVER_LISEN__PORT", "OBSERVER_LISTEN__PORT"), ("OBSERVER_LISTEN__PROT", "OBSERVER_LISTEN__PORT")],
)
def test_a_variable_that_begins_like_ours_and_is_no_setting_is_an_error(variable: str, hint: str) -> None:
    error = refusal(environment={variable: "1"})
    assert str(error) == f"{variable} is no setting"
    assert error.hint == f"did you mean {hint}?"
    assert load_settings(None, {}, {"OBSERVER_URL": "http://x", "LISTEN__PORT": "1"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("OBSERVER_PROT", "OBSERVER_PORT"),
        ("OBSERVER_LISTEN_PORT", "OBSERVER_LISTEN__PORT"),
        ("OBSERVER_DATADIR", "OBSERVER_DATA_DIR"),
    ],
)
def test_a_variable_that_is_nearly_one_of_ours_is_a_slip_of_the_pen(variable: str, meant: str) -> None:
    error = refusal(environment={variable: "3"})
    assert variable in str(error)
    assert meant in error.hint
    load_settings(None, {}, {"OBSERVER_URL": "http://x", "OBSERVER_TOKEN": "x", "OBSERVER_HOME": "x"})


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("OBSERVER_TLS_CERT", "did you mean OBSERVER_LISTEN__TLS_CERT?"),
        ("OBSERVER_TLS_KEY", "did you mean OBSERVER_LISTEN__TLS_KEY?"),
        ("OBSERVER_TOKENS", "did you mean OBSERVER_AUTH__TOKENS_FILE?"),
        ("OBSERVER_API_KEY_FILE", "did you mean OBSERVER_DIAGNOSIS__API_KEY_FILE?"),
        ("OBSERVER_WEBHOOK_URL", "did you mean OBSERVER_FAILURES__WEBHOOK_URL?"),
        ("OBSERVER_TOKENS_FILE", "did you mean OBSERVER_AUTH__TOKENS_FILE?"),
        ("OBSERVER_AUTH", "a setting is, e.g., OBSERVER_AUTH__TOKENS_FILE"),
        ("OBSERVER_AUTH_FILE", "a setting is, e.g., OBSERVER_AUTH__TOKENS_FILE"),
        ("OBSERVER_SOURCES", "a setting is, e.g., OBSERVER_SOURCES__EXTRA"),
        ("OBSERVER_SECRETS", "a setting is, e.g., OBSERVER_SECRETS__EXTRA"),
        ("OBSERVER_LOG", "a setting is, e.g., OBSERVER_LOG__LEVEL"),
        ("OBSERVER_LOG_FORMAT", "a setting is, e.g., OBSERVER_LOG__LEVEL"),
        ("OBSERVER_LISTEN", "a setting is, e.g., OBSERVER_LISTEN__HOST"),
        ("OBSERVER_LISTEN__", "a setting is, e.g., OBSERVER_LISTEN__HOST"),
        ("OBSERVER_GATEWAY", "a setting is, e.g., OBSERVER_GATEWAY__URL"),
        ("OBSERVER_NOTHING__LIKE_IT", ""),
    ],
)
def test_a_variable_that_names_part_of_a_setting_is_an_error_and_the_hint_names_a_variable(
    variable: str, hint: str
) -> None:
    error = refusal(environment={variable: "x"})
    assert (str(error).partition(" is no setting")[0], error.hint) == (variable, hint)


@pytest.mark.parametrize(
    "word", ["NAME", "API_KEY", "TIMEOUT", "BACKEND", "RETRIES", "LEVEL", "UNIX", "EXTRA", "TLS", "FILE", "UNIX_SOCKET"]
)
def test_a_variable_of_another_program_is_passed_over(word: str) -> None:
    assert load_settings(None, {}, {f"OBSERVER_{word}": "x"}) == Settings()


@pytest.mark.parametrize("name", ["listn.port", "gatewayurl"])
def test_a_credential_that_is_nearly_a_setting_is_a_slip_of_the_pen(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert f"{name} is no setting" in str(refusal(environment={"CREDENTIALS_DIRECTORY": str(tmp_path)}))


def test_no_password_is_told(tmp_path: Path) -> None:
    (tmp_path / "gateway.url").write_text("http://user:hunter2@127.0.0.1:3700?x")
    assert "hunter2" not in str(refusal(environment={"CREDENTIALS_DIRECTORY": str(tmp_path)}))


def test_a_credential_of_a_setting_that_names_a_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "auth.tokens_file").write_text("a ingest sha256:...\n")
    (tmp_path / "listen.tls_key").write_text("\n")
    settings = load_settings(None, {}, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert settings.auth.tokens_file == str(tmp_path / "auth.tokens_file")
    assert settings.listen.tls_key == ""


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("auth.tokens_file", "", "holds no token"),
        ("auth.tokens_file", "# the last one was taken out\n", "holds no token"),
        ("auth.tokens_file", "\n\n", "holds no token"),
        ("listen.tls_cert", "", "listen.tls_cert"),
    ],
)
def test_a_credential_that_was_emptied_opens_nothing(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    ended = started("--data-dir", str(tmp_path / "data"), "--port=0", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert (ended.returncode, said in ended.stderr) == (78, True), ended.stderr


def test_what_the_unit_puts_in_the_place_of_a_credential_counts_as_not_given(tmp_path: Path) -> None:
    unit = (ROOT / "systemd" / "observer-actors.service").read_text()
    for name, text in re.findall(r"^SetCredential=([^:]+):(.*)$", unit, re.MULTILINE):
        (tmp_path / name).write_bytes(text.encode().decode("unicode_escape").encode())
    assert {file.name for file in tmp_path.iterdir()} == {"auth.tokens_file", "gateway.url"}
    assert load_settings(None, {}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == Settings()


def test_a_credential_that_begins_like_a_setting_and_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gateway.ulr").write_text("x")
    error = refusal(environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (str(error), error.hint) == (
        f"{tmp_path / 'gateway.ulr'}: gateway.ulr is no setting",
        "did you mean gateway.url?",
    )
    (tmp_path / "gateway.ulr").rename(tmp_path / "gateway.url")
    (tmp_path / "gateway.url").write_bytes(b"\xff")
    assert "is no text" in str(refusal(environment={"CREDENTIALS_DIRECTORY": str(tmp_path)}))
    assert "cannot read" in str(refusal(environment={"CREDENTIALS_DIRECTORY": str(tmp_path / "none")}))


@pytest.mark.parametrize(
    ("assignment", "said", "hint"),
    [
        ("listen.port", "--set listen.port: wants NAME=VALUE", "--set listen.port=3900"),
        ("listen.prot=1", "--set: listen.prot is no setting", "did you mean listen.port?"),
        ("listen=3", "--set: listen holds settings, and is none", "such as listen."),
        ("listen.port=x", "--set listen.port='x' is not a number", ""),
        (f"listen.port={'9' * 5_000}", "--set listen.port: listen.port: Integer value out of range", ""),
        ("listen.port=70000", "--set listen.port: listen.port: Expected `int` <= 65535", "it may be 0 to 65,535"),
        ("sources.extra=[1", "is not TOML", ""),
        (f"sources.extra={'[' * 5_000}", "is not TOML", ""),
        ('data_dir="a\\u0000b"', "data_dir holds a NUL character", ""),
        ("sources.extra=[1]", "sources.extra[0]: Expected `str`", ""),
        ("journal.compress=perhaps", "journal.compress: Expected `bool`", "it may be true or false"),
        ("listen.unix_scopes=read,write", "listen.unix_scopes[1]: ", "it may be any of admin, ingest and read"),
        ("listen.unix_mode=660x", "listen.unix_mode: no such value", "three octal digits"),
        ("failures.webhook_url=ftp://hunter2", "failures.webhook_url: no such value", "an http or https URL"),
        ("failures.webhook_url=http://[::1", "failures.webhook_url: no such value", "an http or https URL"),
        ("failures.webhook_url=http://a:x/", "failures.webhook_url: no such value", "an http or https URL"),
        ("diagnosis.url=http://[::1", "diagnosis.url: no such value", "an http or https URL"),
        ("data_dir=", "--set data_dir: data_dir: an empty path", ""),
        ("gateway.url=ftp://x", "--set gateway.url: gateway.url: no such value", "e.g. http"),
        ("gateway.url=http://u:p@h:1/p?token=hunter2", "gateway.url: no such value", "URL without query"),
        ("gateway.url=http://h:65536", "gateway.url: no such value", "an http or https URL"),
        ("model.lakehouse_url=http://h:99999/", "model.lakehouse_url: no such value", "an http or https URL"),
        ("diagnosis.url=http://h:65536", "diagnosis.url: no such value", "an http or https URL"),
        ("failures.webhook_url=http://h:65536/", "failures.webhook_url: no such value", "an http or https URL"),
    ],
)
def test_a_mistake_in_an_assignment_is_named(assignment: str, said: str, hint: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        read_settings(Places(assignments=(assignment,), environment={}))
    assert said in str(caught.value)
    assert hint in caught.value.hint
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "http://[::1]:80/x", "https://me:p@ss@hooks.example/T0/B0?token=x#y", "http://127.0.0.1:3800", "http://a"],
)
def test_a_webhook_may_be_any_address_that_can_be_one(url: str) -> None:
    read = read_settings(Places(assignments=(f"failures.webhook_url={url}",), environment={}))
    assert read.settings.failures.webhook_url == url


@pytest.mark.parametrize("name", ["gateway.url", "model.lakehouse_url", "diagnosis.url", "failures.webhook_url"])
@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64 + ".example", "-a", "[::g]", "a%2e.b"])
def test_an_address_to_send_to_that_names_no_host_is_refused(name: str, host: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        read_settings(Places(assignments=(f"{name}=http://me:hunter2@{host}:3700/x",), environment={}))
    assert str(caught.value) == f"--set {name}: {name}: {host!r} is no host name"


@pytest.mark.parametrize("name", ["gateway.url", "model.lakehouse_url", "diagnosis.url", "failures.webhook_url"])
@pytest.mark.parametrize(
    "host", ["gateway", "my_gateway.local.", "Observer.Example", "b\u00fccher.example", "[fe80::1%25eth0]", "10.0.0.1"]
)
def test_an_address_to_send_to_may_name_any_host(name: str, host: str) -> None:
    read_settings(Places(assignments=(f"{name}=https://me:p[@{host}:3700/x",), environment={}))


@pytest.mark.parametrize("name", [name for name, leaf in LEAVES.items() if getattr(leaf.kind, "pattern", None)])
def test_each_setting_that_takes_certain_texts_says_which(name: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        read_settings(Places(assignments=(f"{name}=?",), environment={}))
    assert str(caught.value) == f"--set {name}: {name}: no such value"
    assert caught.value.hint.startswith("it may be ")


@pytest.mark.parametrize("name", LEAVES)
def test_what_the_default_file_says_of_a_setting_can_be_assigned_as_it_stands(name: str) -> None:
    assignment = f"{name}={toml_value(LEAVES[name].default)}"
    loaded = read_settings(Places(assignments=(assignment,), environment={}))
    assert (loaded.settings, loaded.origins[name]) == (Settings(), f"--set {name}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("secrets.extra", ("door=[0-9]{4,6}", "key=k-[a-z]+")),
        ("sources.extra", ()),
        ("journal.segment_seconds_max", math.inf),
        ("journal.segment_bytes_max", INT_MAX),
        ("model.name", 'a "b", c'),
    ],
)
def test_a_value_as_it_is_shown_can_be_assigned(name: str, value: object) -> None:
    loaded = read_settings(Places(assignments=(f"{name}={toml_value(value)}",), environment={}))
    assert leaves_of(loaded.settings)[name] == value


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("journal.segment_bytes_max=67_108_864", 67_108_864),
        ("cycle.seconds=2_0.5", 20.5),
        ('log.level="debug"', "debug"),
        ("log.level='debug'", "debug"),
        ('model.name="q\\u0077en"', "qwen"),
        ("model.name=5", "5"),
        ("model.name=it's", "it's"),
        ("model.name='a' and 'b'", "'a' and 'b'"),
        ('data_dir="/srv/x"', "/srv/x"),
        ('sources.extra=["a", "b"]', ("a", "b")),
        ("sources.extra=a,b", ("a", "b")),
        (f"model.name={'[' * 9_000}", "[" * 9_000),
    ],
)
def test_a_text_that_is_toml_of_the_right_type_is_read_as_that_and_any_other_as_it_stands(
    assignment: str, value: object
) -> None:
    name = assignment.partition("=")[0]
    assert leaves_of(read_settings(Places(assignments=(assignment,), environment={})).settings)[name] == value


@pytest.mark.parametrize(
    "assignment", ["listen.port=true", "listen.port=1979-05-27", "cycle.seconds='5'", "listen.port=[5]"]
)
def test_a_text_that_is_toml_of_another_type_is_no_number(assignment: str) -> None:
    with pytest.raises(ConfigInvalid, match="is not a number"):
        read_settings(Places(assignments=(assignment,), environment={}))


def test_the_default_file_changes_nothing_and_uncommented_says_every_default(tmp_path: Path) -> None:
    text = default_file()
    assert load_settings(written(tmp_path, text), {}, {}) == Settings()
    lines = text.splitlines()
    settings = [line.removeprefix("# ") for line in lines if re.match(r"# [a-z_]+ = ", line)]
    assert len(settings) == len(LEAVES)
    uncommented = "\n".join(line if line.startswith("[") else line.removeprefix("# ") for line in lines
                            if line.startswith("[") or re.match(r"# [a-z_]+ = ", line))  # fmt: skip
    loaded = read_settings(Places(environment={}, file=written(tmp_path, uncommented)))
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {str(tmp_path / "observer.toml")}


@pytest.mark.parametrize("name", LEAVES)
def test_each_setting_is_explained(name: str) -> None:
    leaf = LEAVES[name]
    assert leaf.doc().endswith((".", "(reload)")), "the text below the setting"
    assert ("(reload)" in leaf.doc()) == (name in RELOADABLE)


def started(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = own_environment(**environment)
    command = [sys.executable, "-m", "observer_actors", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=STOP_S, check=False, env=env)


@pytest.mark.parametrize(
    ("text", "arguments", "environment", "said"),
    [
        ("[listen]\nprot = 1\n", [], {}, ["listen.prot is no setting", "  did you mean listen.port?"]),
        ("", ["--host", "0.0.0.0"], {}, ["no tokens are set", "--insecure-no-auth"]),  # noqa: S104
        ("", [], {"OBSERVER_PORT": "x"}, ["OBSERVER_PORT='x' is not a number"]),
    ],
)
def test_the_process_says_it_in_one_line_and_a_hint_and_exits_78(
    tmp_path: Path, text: str, arguments: list[str], environment: dict[str, Any], said: list[str]
) -> None:
    file = written(tmp_path, text)
    ended = started("--data-dir", str(tmp_path), "--config", str(file), *arguments, **environment)
    assert ended.returncode == 78
    lines = ended.stderr.splitlines()
    assert len(lines) == len(said)
    assert lines[0].startswith("observer-actors: ")
    assert all(part in line for part, line in zip(said, lines, strict=True))


def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over() -> None:
    told = {
        f"{service}_{name}": text
        for service in ("OBSERVER", "OBSERVER_GATEWAY", "OBSERVER_LOG")
        for name, text in {
            "PORT": "tcp://10.0.0.1:3800",
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "3800",
            "SERVICE_PORT_HTTP": "3800",
            "PORT_3800_TCP": "tcp://10.0.0.1:3800",
            "PORT_3800_TCP_ADDR": "10.0.0.1",
            "PORT_3800_TCP_PORT": "3800",
            "PORT_3800_TCP_PROTO": "tcp",
        }.items()
    }
    assert load_settings(None, {}, told) == Settings()
