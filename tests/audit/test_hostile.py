"""A repository that means harm: nothing of it is run, nothing outside of it is read, and it ends in time."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from observer_actors.audit import AuditFailed, audit, inventory_page, judge
from observer_actors.audit import auditor as auditor_module
from observer_actors.audit import git as git_module
from observer_actors.audit import tree as tree_module
from observer_actors.audit.inventory import Kind
from observer_actors.kb.history import history_of
from tests.audit.repository import Repository
from tests.commands.typed import as_ordinary_user, typed_for_real


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def test_nothing_of_it_is_run(tmp_path: Path, canary: Path) -> None:
    touch = f"touch {canary}"
    code = f"import os\nos.system({touch!r})\n"
    repository = Repository(
        tmp_path / "evil",
        {
            "a/__init__.py": code,
            "a/__main__.py": code,
            "conftest.py": code,
            "setup.py": code,
            "sitecustomize.py": code,
            "pyproject.toml": '[project.scripts]\nx = "a:__main__"\n',
            "Makefile": f"$(shell {touch})\n",
        },
    )
    repository.branch()
    repository.commit({"a/new.py": code, "setup.cfg": "[x", "b.bin": "x"})
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\n{touch}\ncat\n")
    script.chmod(0o755)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for hook in ("post-index-change", "reference-transaction", "post-checkout", "fsmonitor-watchman"):
        (hooks / hook).symlink_to(script)
    for name, value in {
        "core.fsmonitor": str(script),
        "core.hooksPath": str(hooks),
        "core.pager": str(script),
        "core.sshCommand": str(script),
        "core.askPass": str(script),
        "core.editor": str(script),
        "core.alternateRefsCommand": str(script),
        "diff.external": str(script),
        "diff.evil.textconv": str(script),
        "diff.evil.command": str(script),
        "filter.evil.clean": str(script),
        "filter.evil.smudge": str(script),
        "filter.evil.process": str(script),
        "filter.evil.required": "true",
        "alias.ls-files": f"!{script}",
        "gpg.program": str(script),
        "extensions.partialClone": "origin",
        "remote.origin.url": f"ext::{script}",
        "remote.origin.promisor": "true",
        "protocol.ext.allow": "always",
        "uploadpack.packObjectsHook": str(script),
    }.items():
        subprocess.run(["git", "config", name, value], cwd=repository.root, check=True)
    repository.write({".gitattributes": "* filter=evil diff=evil merge=evil\n", "a/new.py": code + "# more\n"})
    audited = audit(repository.root, base="main", environment={})
    assert audited.uncommitted
    assert set(audited.inventory.items) >= {"a/new.py", "setup.py"}
    assert not canary.exists()
    subprocess.run(["git", "diff", "main"], cwd=repository.root, check=False, capture_output=True)
    assert canary.exists(), "the trap works"


@pytest.mark.parametrize("is_old", [False, True])
def test_missing_objects_are_not_fetched(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, *, is_old: bool
) -> None:
    """An old git does not know GIT_NO_LAZY_FETCH; the repository's own configuration allows the way there."""
    repository = Repository(tmp_path / "evil")
    repository.branch()
    blob = repository.git("rev-parse", "main:shop/orders.py")
    repository.commit({"shop/orders.py": "x = 1\n"})
    (repository.root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {canary}\n")
    script.chmod(0o755)
    for name, value in {
        "extensions.partialClone": "origin",
        "remote.origin.url": f"ext::{script}",
        "remote.origin.promisor": "true",
        "protocol.ext.allow": "always",
    }.items():
        repository.git("config", name, value)
    with monkeypatch.context() as patched:
        if is_old:
            old = tmp_path / "old" / "git"
            old.parent.mkdir()
            old.write_text(f'#!/bin/sh\nunset GIT_NO_LAZY_FETCH\nexec {shutil.which("git")} "$@"\n')
            old.chmod(0o755)
            patched.setenv("PATH", str(old.parent), prepend=os.pathsep)
        with suppress(AuditFailed):
            audit(repository.root, base="main", environment={})
    assert not canary.exists()
    subprocess.run(["git", "cat-file", "-p", blob], cwd=repository.root, check=False, capture_output=True)
    assert canary.exists(), "the trap works"


def test_a_folder_that_this_user_may_not_look_into_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "project" / "data").mkdir(parents=True)
    (tmp_path / "project" / "a.py").touch()
    (tmp_path / "project" / "data").chmod(0)
    ended = typed_for_real("audit", "--dry-run", str(tmp_path / "project"), before=as_ordinary_user())
    (tmp_path / "project" / "data").chmod(0o700)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.search(r"not looked at .*: data/", ended.stdout), ended.stdout


def test_links_pipes_and_what_is_too_large_are_left_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text('"""Outside."""\n')
    repository = Repository(tmp_path / "evil", {"pkg/a.py": "", "gone/b.py": ""})
    repository.branch()
    (repository.root / "link.py").symlink_to(outside / "secret.py")
    (repository.root / "loop.py").symlink_to("loop.py")
    (repository.root / "gone/b.py").unlink()
    (repository.root / "gone").rmdir()
    (outside / "b.py").write_text('"""Outside."""\n')
    (repository.root / "gone").symlink_to(outside)
    os.mkfifo(repository.root / "pipe.py")
    (repository.root / "large.py").write_bytes(b"x" * (tree_module.FILE_BYTES_MAX + 1))
    audited = audit(repository.root, environment={})
    assert sorted(audited.inventory.items) == ["pkg/a.py"]
    (left_out,) = [finding.title for finding in audited.findings if "not looked at" in finding.title]
    assert {"large.py", "link.py", "loop.py"} <= set(left_out.replace(",", " ").split())
    walked = audit(walkable(repository.root, tmp_path), environment={})
    assert sorted(walked.inventory.items) == ["pkg/a.py"]
    assert "Outside" not in inventory_page(walked.inventory) + inventory_page(audited.inventory)


def walkable(root: Path, tmp_path: Path) -> Path:
    """Take git away."""
    (root / ".git").rename(tmp_path / "git-of-it")
    return root


@pytest.mark.parametrize("is_checked_out", [True, False])
def test_a_submodule_is_not_looked_at(tmp_path: Path, *, is_checked_out: bool) -> None:
    other = Repository(tmp_path / "other", {"x.py": ""})
    repository = Repository(tmp_path / "this", {"a.py": "from lib import x\n", "lib/x.py": ""})
    repository.branch()
    repository.commit(without=("lib/x.py",))
    (repository.root / "lib").rmdir()
    repository.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.root), "lib")
    if not is_checked_out:
        repository.git("submodule", "--quiet", "deinit", "--force", "lib")
    Repository(repository.root / "nested", {"y.py": ""})
    audited = audit(repository.root, environment={})
    assert list(audited.inventory.items) == ["a.py"]
    assert [one.title for one in audited.findings if one.severity != "info"] == [], "lib/x.py may be in there"
    assert "not looked at (a link, no plain file, a submodule, not checked out, or too large): lib/, nested/" in {
        one.title for one in audited.findings
    }


def test_what_was_not_checked_out_is_not_called_deleted(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "this", {"a.py": "from lib import x\n", "lib/x.py": "", "lib/y.py": ""})
    repository.branch()
    repository.git("sparse-checkout", "set", "--no-cone", "/*", "!/lib")
    audited = audit(repository.root, environment={})
    assert (list(audited.inventory.items), audited.changed, audited.uncommitted) == (["a.py"], 0, False)
    assert [(one.severity, one.title) for one in audited.findings if "not looked at" in one.title] == [
        (
            "info",
            "not looked at (a link, no plain file, a submodule, not checked out, or too large): lib/x.py, lib/y.py",
        )
    ]
    repository.git("rm", "-q", "--sparse", "lib/y.py")
    assert audit(repository.root, environment={}).changed == 1
    repository.git("sparse-checkout", "disable")
    (repository.root / "lib/x.py").unlink()
    assert ("block", "lib/x.py") in {
        (one.severity, one.file) for one in audit(repository.root, environment={}).findings
    }


@pytest.mark.parametrize("by", ["a submodule", "a link"])
def test_a_module_whose_place_something_takes_that_is_not_looked_at(tmp_path: Path, by: str) -> None:
    other = Repository(tmp_path / "other", {"__init__.py": "x = 1\n"})
    repository = Repository(tmp_path / "this", {"a.py": "from lib import x\n", "lib.py": "x = 1\n"})
    repository.branch()
    (repository.root / "lib.py").unlink()
    if by == "a link":
        (repository.root / "lib").symlink_to(other.root)
    else:
        repository.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.root), "lib")
    repository.commit()
    findings = audit(repository.root, environment={}).findings
    assert [(one.severity, one.file) for one in findings if one.severity != "info"] == [("warn", "lib.py")]


def test_what_lay_behind_a_link_is_not_called_deleted(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "this", {"a.py": "from lib import x\n", "lib/x.py": ""})
    repository.branch()
    (repository.root / "lib/x.py").unlink()
    (repository.root / "lib").rmdir()
    (repository.root / "lib").symlink_to(tmp_path)
    repository.commit()
    assert [one for one in audit(repository.root, environment={}).findings if one.severity != "info"] == []


def test_a_folder_in_place_of_a_file_is_no_file(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "this", {"shop/a.py": "from . import b\n", "shop/b.py": ""})
    (repository.root / "shop/b.py").unlink()
    (repository.root / "shop/b.py").mkdir()
    assert ("block", "shop/b.py") in {
        (one.severity, one.file) for one in audit(repository.root, environment={}).findings
    }


def test_names_and_texts_forge_nothing(tmp_path: Path) -> None:
    names = ("new\nline.py", "bell\x07.py", "pipe|`.py", "turn\u202e.py", "-rf.py", "$(touch x).py")
    repository = Repository(tmp_path / "evil", {"README": "x"})
    repository.branch()
    repository.write(dict.fromkeys(names, '"""| forged | <script> \\x1b[31m `\n\n"""\n<<<<<<< x\n>>>>>>> y\n'))
    (repository.root / os.fsdecode(b"not-utf8-\xff.py")).write_text("x = 1\n")
    audited = audit(repository.root, environment={})
    assert len(audited.inventory.items) == len(names) + 1
    outcome = judge(audited, history_of([], "x", newest=5, complete=True))
    page = inventory_page(audited.inventory)
    for text in (page, outcome.markdown):
        assert all(line.isprintable() for line in text.splitlines())
        assert "\n## forged" not in text
        assert "<script>" not in text
    msgspec.json.encode(outcome.as_json())
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(names) + 1
    assert {line.replace("\\|", "").count("|") for line in rows} == {4}


def test_another_repository_in_the_environment_is_not_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Repository(tmp_path / "other", {"other.py": ""})
    repository = Repository(tmp_path / "this", {"this.py": ""})
    monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.root))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    assert list(audit(repository.root, environment={}).inventory.items) == ["this.py"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sleep 60", "has been stopped after 0.3 s"),
        ("exec yes", "says more than 1,000,000 bytes"),
        ("echo no >&2; exit 3", "git ls-files: no"),
    ],
)
def test_a_git_that_misbehaves_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    repository = Repository(tmp_path / "this", {"this.py": ""})
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(git_module, "COMMAND_SECONDS_MAX", 0.3)
    monkeypatch.setattr(git_module, "OUTPUT_BYTES_MAX", 1_000_000)
    with pytest.raises(AuditFailed, match=said):
        audit(repository.root, environment={})


def test_without_git_a_repository_is_not_audited_as_if_it_were_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "this", {"this.py": ""})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AuditFailed, match="git cannot be started"):
        audit(repository.root, environment={})


def test_far_too_many_files_are_refused_and_far_too_many_bytes_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        (tmp_path / f"m{number}.py").write_text(f"x = {number}\n" * 100)
    monkeypatch.setattr(tree_module, "TREE_BYTES_MAX", 2_000)
    audited = audit(tmp_path, environment={})
    assert len(audited.inventory.items) == 4
    assert any("not looked at" in finding.title and "and 1 more" in finding.title for finding in audited.findings)
    monkeypatch.setattr(tree_module, "FILES_MAX", 9)
    with pytest.raises(AuditFailed, match="more than 9 files"):
        audit(tmp_path, environment={})
    with pytest.raises(AuditFailed, match="is no folder"):
        audit(tmp_path / "m1.py", environment={})
    with pytest.raises(AuditFailed, match="cannot be read"):
        audit(tmp_path / ("m" * 5_000), environment={})


def test_every_file_of_a_damaged_tree_is_in_the_inventory(tmp_path: Path) -> None:
    for number, data in enumerate((b"\x00", b"\xff\xfe", b"(" * 50_000, b"def", b"", b"# coding: rot13\nx")):
        (tmp_path / f"m{number}.py").write_bytes(data)
    (tmp_path / "pyproject.toml").write_bytes(b"\xff[project")
    (tmp_path / "Makefile").write_bytes(b"\x00python m4.py\xff")
    items = audit(tmp_path, environment={}).inventory.items
    assert len(items) == 6
    assert items["m4.py"].kind is Kind.MANUAL
    assert sum(bool(item.error) for item in items.values()) >= 4


def test_what_would_take_all_memory_is_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("import " + ".".join(["a"] * 300_000))
    (tmp_path / "b.py").write_text("import os\n")
    monkeypatch.setattr(auditor_module, "PARSING_BYTES_MAX", 256 * 1024 * 1024)
    before = resource.getrlimit(resource.RLIMIT_AS)
    items = audit(tmp_path, environment={}).inventory.items
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert ("cannot be parsed" in items["a.py"].error, items["b.py"].error) == (True, "")


def test_what_would_take_all_memory_is_not_parsed_as_it_was_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path, {"a.py": "import " + ".".join(["a"] * 300_000), "b.py": ""})
    repository.branch()
    repository.commit({"a.py": "import os\n"})
    monkeypatch.setattr(auditor_module, "PARSING_BYTES_MAX", 256 * 1024 * 1024)
    audit(tmp_path, environment={})
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert own < 2 * 1024 * 1024 * 1024


def test_what_takes_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("import os\n")
    monkeypatch.setattr(auditor_module, "READING_SECONDS_MAX", -1.0)
    said = "not read: the files before it took too long"
    assert audit(tmp_path, environment={}).inventory.items["a.py"].error == said
    repository = Repository(tmp_path / "this", {"pyproject.toml": "[project]\nrequires-python = '>=3'\n"})
    repository.branch()
    repository.commit({"a.py": "import os\n"})
    findings = audit(repository.root, environment={}).findings
    assert ("warn", said) in {(one.severity, one.title) for one in findings}
    assert "block" not in {one.severity for one in findings}
