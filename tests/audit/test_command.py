"""`observer-actors audit` and `audits` as they are typed, with a real daemon and without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from observer_actors.kb import AuditRow, outcomes_path
from observer_actors.kb.files import append_row, read_audit_rows
from tests.audit.repository import Repository
from tests.commands.typed import Ended, answered, typed, typed_for_real
from tests.daemon.served import Served, served

AWAY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "shop")
    made.branch(tmp_path.name.replace("_", "-"))
    return made


def ci(repository: Repository, daemon: Served, *more: str) -> Ended:
    where = ("--url", daemon.url, "--data-dir", str(daemon.data_dir))
    return typed("audit", str(repository.root), *where, *more)


def test_the_three_writes_and_what_the_next_audit_knows(daemon: Served, repository: Repository) -> None:
    repository.commit({"shop/dead.py": ""})
    first = ci(repository, daemon, "--json")
    assert (first.returncode, first.stderr) == (1, "")
    said = msgspec.json.decode(first.stdout)
    assert (said["overall"], said["counts"], said["history"]["same"]["audits"]) == (
        "request_changes", {"info": 0, "warn": 1, "block": 0}, 0,
    )  # fmt: skip
    signature = said["signature"]
    verdict = msgspec.json.decode((daemon.data_dir / "_auditor" / "verdicts" / f"{signature}.json").read_bytes())
    assert (verdict["signature"], verdict["findings"]) == (signature, said["findings"])
    (op,) = [op for op in daemon.json("/ops", source="auditor")["ops"] if op.get("sig_hash") == signature]
    assert (op["success"], op["endpoint"], op["attrs"]["overall"]) == (False, "auditor:verdict", "request_changes")
    (row,) = daemon.json("/kb/outcomes", signature=signature)["outcomes"]
    assert row["id"] == op["id"] == verdict["id"]

    second = ci(repository, daemon)
    assert second.returncode == 1
    told = f"{signature} was refused once in 1 earlier audit; last for: shop/dead.py: a new file that nothing imports"
    assert f"- {told}\n" in second.stdout
    assert f"| info |  | {told} |\n" in second.stdout

    rows = daemon.json("/kb/outcomes", signature=signature)["outcomes"]
    assert [row["one_liner"] for row in rows] == ["shop/dead.py: a new file that nothing imports"] * 2, (
        "not the history"
    )

    repository.commit({"shop/orders.py": "from shop import dead\n", "tests/test_dead.py": ""})
    third = ci(repository, daemon)
    assert third.returncode == 0
    assert f"{signature.rpartition('-')[0]} (other commits) was refused twice in 2 earlier audits" in third.stdout
    same, similar = typed("audits", signature, "--url", daemon.url).stdout.splitlines()[:2]
    assert same.startswith("the same signature: 2 audits, 2 refused (2 request_changes), last 2")
    assert similar.startswith(f"similar ones ({signature.rpartition('-')[0]}): 1 audits, 0 refused (1 approve), last 2")


def test_a_block_exits_2(daemon: Served, repository: Repository) -> None:
    repository.commit(without=("shop/orders.py",))
    ended = ci(repository, daemon)
    assert ended.returncode == 2
    assert ended.stdout.startswith("# ")
    assert "| block | `shop/orders.py` | shop/cli.py still imports it |" in ended.stdout


def test_a_dry_run_reads_and_writes_nothing(daemon: Served, repository: Repository) -> None:
    before = outcomes_path(daemon.data_dir).read_bytes() if outcomes_path(daemon.data_dir).exists() else b""
    last = daemon.json("/health")["last_seq"]
    verdicts = daemon.data_dir / "_auditor"
    names = sorted(verdicts.rglob("*"))
    repository.commit({"shop/orders.py": "def place(): ...\n"})
    ended = ci(repository, daemon, "--dry-run", "--signature", "pr6-7fe47bab")
    assert ended.returncode == 1
    assert ended.stdout.startswith("# pr6-7fe47bab: request_changes\n")
    assert daemon.json("/health")["last_seq"] == last
    assert sorted(verdicts.rglob("*")) == names
    after = outcomes_path(daemon.data_dir).read_bytes() if outcomes_path(daemon.data_dir).exists() else b""
    assert after == before


def test_without_a_daemon_the_file_is_the_history(repository: Repository, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    for number in range(2):
        row = AuditRow(kind="audit", signature="pr6-7fe47bab", overall="block", one_liner="a key", id=str(number))
        append_row(data_dir, row)
    where = ("--url", AWAY, "--data-dir", str(data_dir), "--signature", "pr6-7fe47bab")
    ended = typed("audit", str(repository.root), *where)
    assert ended.returncode == 0
    assert "pr6-7fe47bab was refused twice in 2 earlier audits; last for: a key" in ended.stdout
    assert "not posted: " in ended.stderr
    rows = read_audit_rows(data_dir).rows
    assert [row.overall for row in rows] == ["block", "block", "approve"]
    assert len(list((data_dir / "_auditor" / "verdicts").iterdir())) == 1


def test_no_verdict_is_kept_in_a_folder_that_is_called_like_a_home(repository: Repository) -> None:
    ended = typed("audit", str(repository.root), cwd=repository.root, OBSERVER_DATA_DIR="~/x")
    assert (ended.returncode, "OBSERVER_DATA_DIR: a path that begins with ~" in ended.stderr) == (78, True), ended
    assert not (repository.root / "~").exists()


def test_where_the_daemon_is_not_known_the_verdict_is_kept_all_the_same(repository: Repository, tmp_path: Path) -> None:
    ended = typed("audit", str(repository.root), "--data-dir", str(tmp_path / "data"), OBSERVER_PORT="0")
    assert (ended.returncode, ended.stdout.splitlines()[0].endswith(": approve")) == (0, True)
    assert "not posted: listen.port is 0" in ended.stderr
    assert [row.overall for row in read_audit_rows(tmp_path / "data").rows] == ["approve"]
    assert len(list((tmp_path / "data" / "_auditor" / "verdicts").iterdir())) == 1


@pytest.mark.parametrize("with_git", [True, False])
def test_what_an_audit_leaves_in_the_tree_is_no_part_of_the_next_one(repository: Repository, *, with_git: bool) -> None:
    if not with_git:
        (repository.root / ".git").rename(repository.root.parent / "git-of-it")
    (repository.root / "data").mkdir()
    (repository.root / "data" / "own.py").write_text("x = 1\n")
    said = [msgspec.json.decode(typed("audit", "--json", "--url", AWAY, cwd=repository.root).stdout) for _ in range(3)]
    assert (repository.root / "data" / "_kb" / "outcomes.jsonl").exists(), "the default is ./data"
    signature = said[0]["signature"]
    assert [(one["signature"], one["changed"], one["uncommitted"]) for one in said] == [
        (signature, int(with_git), with_git)
    ] * 3
    assert [one["history"]["same"]["audits"] for one in said] == [0, 1, 2]
    if with_git:
        repository.git("add", "data/own.py")
        repository.git("commit", "-q", "-m", "m")
        committed = msgspec.json.decode(typed("audit", "--json", "--url", AWAY, cwd=repository.root).stdout)
        assert (committed["changed"], committed["uncommitted"]) == (1, False)


def test_a_verdict_that_cannot_be_kept_is_an_error_of_its_own(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")
    ended = typed("audit", str(repository.root), "--url", AWAY, "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == 74
    assert ended.stderr.startswith("observer-actors: ")


@pytest.mark.parametrize("arguments", [("nowhere",), (".", "--base", "nothing")])
def test_what_cannot_be_audited_exits_66(repository: Repository, arguments: tuple[str, ...]) -> None:
    ended = typed("audit", *arguments, "--dry-run", "--url", AWAY, cwd=repository.root)
    assert (ended.returncode, ended.stdout) == (66, "")


@pytest.mark.parametrize("files", [{}, {"notes.txt": "x"}, {".venv/pyvenv.cfg": "", ".venv/lib/a.py": ""}])
def test_where_there_is_no_python_nothing_is_approved(tmp_path: Path, files: dict[str, str]) -> None:
    root = tmp_path / "empty"
    root.mkdir()
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    ended = typed("audit", str(root), "--url", AWAY, "--data-dir", str(tmp_path / "data"))
    assert (ended.returncode, ended.stdout) == (66, "")
    assert "there is no Python file in " in ended.stderr
    assert not (tmp_path / "data").exists()


def test_a_change_that_deletes_the_last_python_file_is_judged(repository: Repository) -> None:
    paths = repository.git("ls-files", "*.py").splitlines()
    repository.commit(without=tuple(paths))
    ended = typed("audit", str(repository.root), "--dry-run", "--url", AWAY)
    assert (ended.returncode, "- 0 Python files, 4 changed since " in ended.stdout) == (0, True)


@pytest.mark.parametrize("signature", ["x" * 201, "two\nlines"])
def test_a_signature_that_cannot_be_used_exits_64(repository: Repository, signature: str) -> None:
    ended = typed("audit", str(repository.root), "--dry-run", "--url", AWAY, "--signature", signature)
    assert (ended.returncode, ended.stdout) == (64, "")
    assert "  such as pr6-7fe47bab; leave it out" in ended.stderr
    assert typed("audit", str(repository.root), "--dry-run", "--url", AWAY, "--signature", "x" * 200).returncode == 0


def test_the_inventory_is_a_page(repository: Repository) -> None:
    ended = typed("audit", "--inventory", "--url", AWAY, cwd=repository.root)
    assert ended.returncode == 0
    assert "| `cli.py` | The command line. | script shop |" in ended.stdout
    assert not (repository.root / "data").exists()


def test_it_runs_as_a_program_of_its_own_in_any_folder(repository: Repository) -> None:
    ended = typed_for_real("audit", "--dry-run", "--json", "--url", AWAY, cwd=repository.root)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert msgspec.json.decode(ended.stdout)["files"] == {
        "production": 3, "manual": 0, "documented": 0, "tests": 1, "dead": 0,
    }  # fmt: skip


def test_audits_in_words_and_for_programs(daemon: Served) -> None:
    for number, overall in enumerate(("approve", "block")):
        daemon.event(
            source="auditor", sig_hash=f"listed-000000{number}", id=f"listed-{number}", ok=overall == "approve",
            overall=overall, one_liner="\x1b[31mred\nforged", findings_warn=number,
        )  # fmt: skip
    found: Any = answered("audits", "--since", "1h", "--url", daemon.url)
    assert found == daemon.json("/kb/outcomes", kind="audit", limit=20) | {"outcomes": found["outcomes"]}
    assert [row["id"] for row in found["outcomes"][:2]] == ["listed-1", "listed-0"]
    assert answered("audits", "listed-0000000", "--url", daemon.url)["similar"]["audits"] == 1
    ended = typed("audits", "--overall", "block", "--limit", "1", "--url", daemon.url)
    assert ended.stdout.splitlines()[0].split() == ["when", "signature", "verdict", "info", "warn", "block", "why"]
    assert "listed-0000001" in ended.stdout
    assert "\x1b" not in ended.stdout
    assert not any(line.startswith("forged") for line in ended.stdout.splitlines())
    assert typed("audits", "nothing-0000000", "--url", daemon.url).stdout.splitlines() == [
        "the same signature: no audits",
        "similar ones (nothing): no audits",
        "no audits",
    ]
