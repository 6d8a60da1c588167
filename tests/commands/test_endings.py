"""How commands end when what they are given, or what they write to, is no good: in words, never in a traceback."""

from __future__ import annotations

import os
import pwd
import subprocess
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from observer_actors.addresses import ADDRESS_HINT
from tests.commands.typed import COMMAND, answered, environment, typed, typed_for_real
from tests.conftest import ROOT
from tests.daemon.served import Served, served
from tests.daemon.test_doors import certificate
from tests.fakes.http_peer import Json, http_peer

USAGE, UNAVAILABLE, OUTPUT, CONFIG = 64, 69, 74, 78
LOGIN: Final = "me:hunter2"


def ended(*arguments: str | bytes, shell: str = "", **variables: str) -> tuple[int, str]:
    """Give the status and what was said of a command, with a redirection of the shell's."""
    given = [os.fsencode(argument) for argument in (*COMMAND, *arguments)]
    command = [b"sh", b"-c", f'"$@" {shell}'.encode(), b"sh", *given]
    done = subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, check=False, timeout=60)
    return done.returncode, done.stderr.decode(errors="replace")


@pytest.mark.parametrize(
    ("arguments", "shell", "status"),
    [
        (("config", "default"), ">/dev/full", OUTPUT),
        (("--help",), ">/dev/full", OUTPUT),
        (("config", "default"), ">&-", 0),
        (("stats", "--url", "http://127.0.0.1:9"), "2>/dev/full", UNAVAILABLE),
        (("stats", "--url", "http://[::1"), "", USAGE),
        (("stats", "--url", "nowhere"), "", USAGE),
        (("mcp", "--url", "nowhere"), "", USAGE),
        (("mcp", "--url", "http://é..com"), "", USAGE),
        (("exec", "--endpoint", "a", "--url", "http://é..com", "--", "true"), "", 0),
        (("send", "--endpoint", b"\x9b"), "", USAGE),
    ],
)
def test_it_ends_in_words(arguments: tuple[str | bytes, ...], shell: str, status: int) -> None:
    code, said = ended(*arguments, shell=shell)
    assert (code, "Traceback" in said) == (status, False), said


@pytest.mark.parametrize(
    "url",
    [
        "http://é..com",
        "http://☃.example",
        "http://a..b",
        "http://a b",
        "http://\uff05",
        "http://",
        "http:///x",
        f"http://{LOGIN}@",
        "http://[fe80::1%é]:1",
        "http://127.0.0.1:9?token=hunter2",
        "http://127.0.0.1:9#hunter2",
        f"ftp://{LOGIN}@a",
        f"{LOGIN}@127.0.0.1:9",
        f"http:/{LOGIN}@a//b",
        "ftp://a?b=1@hunter2",
        "unix://",
    ],
)
@pytest.mark.parametrize("command", [("stats",), ("tail",), ("send", "--endpoint", "a"), ("doctor",)])
def test_an_address_that_is_none_is_refused_with_a_hint_and_no_secret_is_told(
    command: tuple[str, ...], url: str
) -> None:
    refused = typed(*command, "--url", url)
    # To the doctor it is one finding among others.
    is_finding = command == ("doctor",)
    said, hint = (refused.stdout if is_finding else refused.stderr).splitlines()[-2:]
    assert (refused.returncode, "is no address" in said, hint.strip()) == (1 if is_finding else 64, True, ADDRESS_HINT)
    assert "hunter2" not in refused.stdout + refused.stderr


@pytest.mark.parametrize("command", [("ops", "--endpoint"), ("failures", "--text"), ("audits",)])
def test_what_is_too_long_for_a_request_is_told_as_such(command: tuple[str, ...]) -> None:
    refused = typed(*command, "x" * 70_000, "--url", "http://127.0.0.1:9")
    assert (refused.returncode, "the arguments make no request" in refused.stderr) == (64, True), refused.stderr


TEXT = "ü → 😀"
NOT_UTF8 = ({"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})


@pytest.mark.parametrize("variables", NOT_UTF8)
def test_in_a_locale_that_is_not_utf_8_json_is_and_words_have_escapes(
    daemon: Served, variables: dict[str, str]
) -> None:
    def printed(*arguments: str) -> bytes:
        command = [*COMMAND, *arguments]
        given = environment(**variables, OBSERVER_URL=daemon.url)
        done = subprocess.run(command, env=given, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    daemon.event(endpoint=TEXT, source=TEXT, success=False, error=TEXT)
    assert printed("export") == (daemon.data_dir / "_observer" / "ops.jsonl").read_bytes()
    for arguments in (("export", "--format", "csv"), ("ops", "--json"), ("tail", "--json", "--count", "1")):
        assert TEXT in printed(*arguments).decode(), arguments
    for command in ("ops", "failures", "stats"):
        assert r"\u2192 \U0001f600" in printed(command).decode("latin-1"), command
    hidden = ("config", "show", "--set", "failures.webhook_url=https://a.example/secret")
    assert "•••" in printed(*hidden, "--json").decode()
    printed(*hidden)


@pytest.mark.parametrize(
    "arguments",
    [("import", "x"), ("install-service", "--user", "--executable", "/bin/true"), ("--install-completion",)],
)
def test_a_user_without_a_home_is_told_so(
    daemon: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "x").write_text("{}\n")
    for variable in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    ended = typed(*arguments, cwd=tmp_path, SHELL="/bin/bash", OBSERVER_URL=daemon.url)
    assert (ended.returncode, ended.stderr) == (CONFIG, "observer-actors: there is no home directory: set HOME\n")


def test_a_folder_for_configuration_that_is_not_absolute_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "program").symlink_to("/bin/true")
    given = ("install-service", "--user", "--install", "--executable", "/program", "--root", str(tmp_path))
    ended = typed(*given, HOME="/home/me", XDG_CONFIG_HOME="relative")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "home/me/.config/systemd/user/observer-actors.service").is_file()


@pytest.mark.parametrize("arguments", [("doctor", "--port", "9"), ("export", "--output", "x")])
def test_a_working_directory_that_was_removed_is_told(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "gone").mkdir()
    gone = ("sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(tmp_path / "gone"))
    ended = typed_for_real(*arguments, before=gone, PYTHONPATH=str(ROOT), OBSERVER_URL="http://127.0.0.1:9")
    assert (ended.returncode, ended.stderr) == (66, "observer-actors: the working directory has been removed\n")


@pytest.mark.parametrize("token", ["ü", "s3cret with a blank", "s3cret\nx"])
@pytest.mark.parametrize("command", ["stats", "mcp"])
def test_a_token_that_is_none_is_refused_by_its_variable_and_not_told(command: str, token: str) -> None:
    refused = typed(command, "--url", "http://127.0.0.1:9", OBSERVER_TOKEN=token)
    said = refused.stdout + refused.stderr
    found = ("OBSERVER_TOKEN" in said, "ASCII" in said, "s3cret" in said)
    assert (refused.returncode, *found) == (USAGE, True, True, False), said


def test_exec_passes_on_the_status_of_a_command_with_other_characters_and_reports_it(daemon: Served) -> None:
    flags = ("--endpoint", b"a\xff", "--source", b"\xfe", "--run", b"r\xff", "--attr", b"n\xff=v\xff")
    code, said = ended("exec", *flags, "--url", daemon.url, "--", "sh", "-c", b"exit 3 # \xff")
    assert (code, "is not a known source" in said, "not reported" in said) == (3, True, False), said
    (op,) = daemon.json("/ops", endpoint="a\ufffd")["ops"]
    assert (op["endpoint"], op["attrs"]["exit_status"]) == ("a\ufffd", 3)
    assert (op["attrs"]["run"], op["attrs"]["n\ufffd"]) == ("r\ufffd", "v\ufffd")


def test_of_tokens_that_cannot_be_read_nobody_hears_how_they_are_written(tmp_path: Path) -> None:
    ended = typed("config", "check", "--set", f"auth.tokens_file={tmp_path / 'none'}")
    said = f"auth.tokens_file: {tmp_path / 'none'}: No such file or directory\n  name a file that the daemon's user may"
    assert (ended.returncode, said in ended.stderr) == (CONFIG, True), ended.stderr


@pytest.mark.parametrize("name", ["listen.tls_cert", "auth.tokens_file", "diagnosis.api_key_file"])
def test_a_file_that_cannot_be_used_ends_serve_and_fails_the_check(tmp_path: Path, name: str) -> None:
    setting = f"{name}={tmp_path / 'none'}"
    checked = typed("config", "check", "--set", setting)
    assert (checked.returncode, name in checked.stderr) == (CONFIG, True)
    code, said = ended("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--set", setting)
    assert (code, name in said, "Traceback" in said) == (CONFIG, True, False), said


@pytest.mark.parametrize("key", ["sk-hunter2\nsk-second\n", "sk-hunter2\u00e9", "Bearer sk-hunter2"])
def test_a_models_key_that_cannot_be_sent_ends_serve_and_fails_the_checks_and_is_not_told(
    tmp_path: Path, key: str
) -> None:
    (tmp_path / "key").write_text(key)
    setting = ("--set", f"diagnosis.api_key_file={tmp_path / 'key'}")
    refusal = f"diagnosis.api_key_file: {tmp_path / 'key'} holds what no key has"
    data = ("--data-dir", str(tmp_path / "data"))
    checked = typed("config", "check", *setting)
    code, said = ended("serve", "--port", "0", *data, *setting)
    assert (checked.returncode, code, refusal in said) == (CONFIG, CONFIG, True), said
    looked = typed("doctor", *data, "--url", "http://127.0.0.1:9", *setting)
    for told in (checked.stderr, said, looked.stdout):
        assert (refusal in told, "hunter2" in told) == (True, False), told


@pytest.mark.parametrize("name", ["listen.tls_cert", "auth.tokens_file", "diagnosis.api_key_file"])
def test_a_pipe_in_a_files_place_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    checked = typed("config", "check", "--set", f"{name}={tmp_path / 'pipe'}")
    assert (checked.returncode, f"{name}: " in checked.stderr) == (CONFIG, True)


def test_that_every_user_may_read_a_secret_is_told_in_words_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(typed("token", "writer").stdout.splitlines()[-1])
    (tmp_path / "tokens").chmod(0o644)
    checked = typed("config", "check", "--set", f"auth.tokens_file={tmp_path / 'tokens'}")
    assert checked.stdout.startswith("the configuration is good")
    assert checked.stderr == f"auth.tokens_file: every user may read {tmp_path / 'tokens'}: chmod o= it\n"


def test_a_certificate_is_for_every_user_unless_the_key_is_in_its_file(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    cert.chmod(0o644)
    key.chmod(0o600)
    assert typed("config", "check", "--set", f"listen.tls_cert={cert}", "--set", f"listen.tls_key={key}").stderr == ""
    cert.write_text(cert.read_text() + key.read_text())
    checked = typed("config", "check", "--set", f"listen.tls_cert={cert}")
    assert (checked.returncode, checked.stderr) == (0, f"listen.tls_cert: every user may read {cert}: chmod o= it\n")


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:hunter2", "-out", locked],
        check=True,
        capture_output=True,
    )
    ended = typed("config", "check", "--set", f"listen.tls_cert={cert}", "--set", f"listen.tls_key={locked}")
    assert (ended.returncode, "listen.tls_key has a passphrase" in ended.stderr) == (CONFIG, True), ended.stderr


def test_of_a_certificate_and_a_key_the_one_that_is_missing_is_named(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path)
    ended = typed("config", "check", "--set", f"listen.tls_cert={cert}", "--set", "listen.tls_key=/none.pem")
    assert (ended.returncode, "listen.tls_key: /none.pem: No such file" in ended.stderr) == (CONFIG, True)


def test_a_configuration_that_listens_nowhere_by_itself_says_so() -> None:
    ended = typed("config", "check", "--set", "listen.tcp=false")
    assert (ended.returncode, "only where systemd hands it a socket" in ended.stdout) == (0, True)


def test_an_address_of_another_machine_is_told_from_one_that_is_taken(tmp_path: Path) -> None:
    where = ("--host", "192.0.2.1", "--insecure-no-auth", "--data-dir", str(tmp_path / "data"))
    code, said = ended("serve", *where)
    assert (code, "no address of this machine" in said) == (75, True), said


@pytest.mark.parametrize(
    "arguments",
    [
        ("FORGED",),
        ("import", "FORGED", "--url", "http://127.0.0.1:9"),
        ("verify", "FORGED"),
        ("verify", "FOLDER"),
        ("config", "show", "--set", "FORGED=3"),
        ("config", "show", "--config", "FORGED"),
        ("config", "show", "--config", "FOLDER/good.toml"),
        ("config", "check", "--set", "listen.host=FORGED"),
        ("config", "check", "--set", "auth.tokens_file=FORGED"),
        ("export", "--output", "FORGED/none/x", "--url", "http://127.0.0.1:9"),
        ("exec", "--endpoint", "a", "--url", "http://127.0.0.1:9", "--", "FORGED"),
        ("patterns", "group", "FORGED"),
        ("playbook", "check", "--data-dir", "FORGED"),
        ("playbook", "show", "FORGED"),
        ("install-service", "--executable", "FORGED"),
        ("install-service", "--install", "--executable", "/bin/true", "--root", "FOLDER"),
        ("audit", "FORGED/none"),
    ],
)
def test_what_was_typed_moves_no_cursor_and_forges_no_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    forged = "x\x1b[31m\nforged"
    folder = tmp_path / forged
    (folder / "_observer").mkdir(parents=True)
    (folder / "good.toml").write_text("[listen]\nport = 3801\n")
    typed_in = [part.replace("FORGED", forged).replace("FOLDER", str(folder)) for part in arguments]
    ended = typed(*typed_in, cwd=tmp_path)
    said = ended.stdout + ended.stderr
    assert r"\x1b[31m\nforged" in said
    assert "\x1b" not in said
    assert not any(line.startswith("forged") for line in said.splitlines())


@pytest.mark.parametrize("name", ["a b", "", "a#b", "#", "a\n", "a\x1b[31m"])
def test_a_name_for_a_token_that_is_none_is_refused(name: str) -> None:
    refused = typed("token", name)
    assert (refused.returncode, refused.stdout, "NAME" in refused.stderr) == (64, "", True), refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("flags", "scopes"),
    [
        ([], "ingest"),
        (["--scopes", "ingest,read"], "ingest,read"),
        (["--scopes=admin", "--scopes", "read,admin"], "admin,read"),
    ],
)
def test_scopes_of_a_token_are_given_as_its_line_has_them_or_one_by_one(flags: list[str], scopes: str) -> None:
    made = answered("token", "gateway", *flags)
    assert made["line"].split()[:2] == ["gateway", scopes]


@pytest.mark.parametrize("scopes", ["", "odd", "read,odd", "read,", "read ingest"])
def test_a_scope_of_a_token_that_is_none_is_refused(scopes: str) -> None:
    refused = typed("token", "gateway", "--scopes", scopes)
    assert (refused.returncode, refused.stdout, "ingest, read, admin" in refused.stderr) == (64, "", True), refused


def test_who_speaks_tls_to_a_port_that_does_not_is_told_so(daemon: Served) -> None:
    ended = typed("stats", "--url", daemon.url.replace("http://", "https://"))
    assert (ended.returncode, "http:// rather than https://?" in ended.stderr) == (69, True), ended.stderr


@pytest.mark.parametrize(
    ("answered", "status"),
    [
        (400, 65),
        (401, 77),
        (403, 77),
        (404, 1),
        (413, 65),
        (422, 65),
        (431, 65),
        (429, 75),
        (500, 1),
        (503, 75),
        (507, 75),
    ],
)
@pytest.mark.parametrize("command", [("stats",), ("send", "--endpoint", "a")])
async def test_the_status_says_whether_to_mend_to_wait_or_to_get_a_token(
    command: tuple[str, ...], answered: int, status: int
) -> None:
    async with http_peer(Json({"error": "as the test wants it"}, answered)) as peer:
        ended = await trio.to_thread.run_sync(partial(typed, *command, "--url", peer.url))
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (status, "observer-actors: as the test wants it")


def test_who_needs_a_token_is_told_where_it_is_looked_for(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(typed("token", "reader").stdout.splitlines()[-1])
    tokens.chmod(0o600)
    with served(tmp_path / "data", f'[auth]\ntokens_file = "{tokens}"\n') as daemon:
        ended = typed("stats", "--url", daemon.url)
        assert (ended.returncode, "OBSERVER_TOKEN holds it" in ended.stderr) == (77, True), ended.stderr
