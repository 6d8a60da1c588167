"""One audit: what is read, in which order, and what it is called."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from observer_actors.audit.checks import Change, check, overall_of
from observer_actors.audit.facts import Facts, facts_of, is_python
from observer_actors.audit.git import AuditFailed, Git
from observer_actors.audit.inventory import Inventory, Kind, is_read, take_inventory
from observer_actors.audit.page import summary_page
from observer_actors.audit.tree import Tree, changes, find_git, read_tree
from observer_actors.client import Verdict
from observer_actors.errors import ObserverError
from observer_actors.kb.history import AuditHistory, told
from observer_actors.kb.rows import SIGNATURE_CHARS_MAX, Finding
from observer_actors.visible import cut

COMMIT_DIGITS: Final = 8
ONE_LINER_FINDINGS: Final = 3
READING_SECONDS_MAX: Final = 300.0
"""For all files; one of a megabyte, made for it, takes some seconds."""
PARSING_BYTES_MAX: Final = 1024 * 1024 * 1024
_BASES: Final = ("origin/HEAD", "origin/main", "main", "origin/master", "master")
_TARGETS: Final = ("GITHUB_BASE_REF", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "CHANGE_TARGET")
"""Where GitHub, GitLab and Jenkins say what is to be merged into."""
_PULL_REQUEST: Final = re.compile(r"refs/pull/(\d+)/.*")
_NO_SIGNATURE: Final = re.compile(r"[^A-Za-z0-9._/@#+-]+")


class SignatureUnusable(ObserverError):
    """A signature under which no audit can be filed."""

    exit_code: ClassVar[int] = 64


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at. ``base``: what it was compared with, "" for nothing."""

    signature: str
    head: str
    base: str
    changed: int
    uncommitted: bool
    inventory: Inventory
    findings: list[Finding]
    seconds: float


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome: the verdict, and what a person is told."""

    verdict: Verdict
    audited: Audited
    history: AuditHistory
    markdown: str

    def as_json(self) -> dict[str, object]:
        """Give the summary for programs; it stays the same from release to release."""
        audited, verdict = self.audited, self.verdict
        kinds = [item.kind for item in audited.inventory.items.values()]
        return {
            "signature": verdict.signature,
            "overall": verdict.overall,
            "ok": verdict.ok,
            "one_liner": verdict.one_liner,
            "counts": verdict.counts,
            "findings": verdict.findings,
            "head": audited.head,
            "base": audited.base,
            "changed": audited.changed,
            "uncommitted": audited.uncommitted,
            "files": {str(kind): kinds.count(kind) for kind in Kind},
            "history": self.history,
            "duration_ms": verdict.duration_ms,
            "timestamp": verdict.timestamp,
        }


def audit(root: Path, *, base: str = "", signature: str = "", environment: Mapping[str, str] = os.environ) -> Audited:
    """Look at a tree as it lies there, and at what has changed in it since it parted from ``base``. Blocks.

    :param root: a folder; only what lies in it is looked at. Where it is no git repository, there is no change.
    :param base: a revision; by default what CI names, else the main branch, else nothing.
    :param signature: by default made of the pull request that CI names, or the branch, and the commit.
    :raises AuditFailed: no folder, no Python in it, no such revision, a base that was not fetched, or more than can be
        looked at.
    :raises SignatureUnusable: no audit could be filed under it.
    """
    started = time.monotonic()
    if len(signature) > SIGNATURE_CHARS_MAX or not signature.isprintable():
        raise SignatureUnusable(
            f"--signature wants at most {SIGNATURE_CHARS_MAX} printable characters, got {signature!a:.60}",
            hint="such as pr6-7fe47bab; leave it out, and it is made of what CI or git say",
        )
    git = find_git(root)
    tree, facts, inventory = _looked_at(root, git)
    head = git.commit("HEAD") if git else ""
    parted = _base(git, head, base, environment) if git else ""
    if base and not git:
        raise AuditFailed(f"{root} is no git repository: there is nothing to compare with", hint="leave --base out")
    changed: list[Change] = changes(tree, git, parted) if git and parted else []
    if not inventory.items and not any(is_python(change.path, change.before) for change in changed):
        hint = "name the folder of a Python project; what git ignores, virtual environments and build are passed over"
        raise AuditFailed(f"there is no Python file in {cut(str(root), 100)}, nor was there one", hint=hint)
    pending = bool(git and head and (changed if parted == head else changes(tree, git, head)))
    with _memory_bounded():
        findings = check(inventory, facts, changed, sorted(tree.left_out), [*tree.files, *tree.left_out])
    name = signature or signature_of(root, git, head, tree.files, environment) + "-dirty" * pending
    return Audited(
        signature=name,
        head=head,
        base=parted,
        changed=len(changed),
        uncommitted=pending,
        inventory=inventory,
        findings=findings,
        seconds=time.monotonic() - started,
    )


def inventory_of(root: Path) -> Inventory:
    """Take the inventory of a tree as it lies there, whatever it has come from. Blocks; raises as `audit` does."""
    return _looked_at(root, find_git(root))[2]


def _looked_at(root: Path, git: Git | None) -> tuple[Tree, dict[str, Facts], Inventory]:
    tree = read_tree(root, git)
    with _memory_bounded():
        facts = _facts(tree.files, time.monotonic() + READING_SECONDS_MAX)
    texts = {path: data.decode("utf-8", "replace") for path, data in tree.files.items() if is_read(path)}
    return tree, facts, take_inventory(facts, texts)


def _facts(files: Mapping[str, bytes], until: float) -> dict[str, Facts]:
    late = Facts(error="not read: the files before it took too long", is_read=False)
    python = ((path, data) for path, data in files.items() if is_python(path, data))
    return {path: facts_of(data) if time.monotonic() < until else late for path, data in python}


@contextmanager
def _memory_bounded() -> Iterator[None]:
    """Let memory grow by so much and no further: to Python's parser, a megabyte may be worth terabytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    bound = now + PARSING_BYTES_MAX
    resource.setrlimit(resource.RLIMIT_AS, (bound if soft == resource.RLIM_INFINITY else min(soft, bound), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def judge(audited: Audited, history: AuditHistory) -> Audit:
    """Give the verdict, with what earlier audits said of it."""
    said = told(history)
    findings = [*audited.findings, *([Finding("info", said)] if said else [])]
    overall = overall_of(findings)
    grave = [finding for finding in findings if finding.severity != "info"]
    verdict = Verdict(
        signature=audited.signature,
        overall=overall,
        one_liner=_one_liner(grave, audited),
        findings=tuple(findings),
        duration_ms=round(audited.seconds * 1_000),
    )
    about = [
        f"{len(audited.inventory.items)} Python files, {audited.changed} changed since {audited.base[:COMMIT_DIGITS]}"
        if audited.base
        else f"{len(audited.inventory.items)} Python files, compared with nothing",
        *(["what is not committed is part of it"] if audited.uncommitted else []),
        *([said] if said else []),
    ]
    markdown = summary_page(audited.signature, overall, about, findings)
    return Audit(verdict=verdict, audited=audited, history=history, markdown=markdown)


def _one_liner(grave: list[Finding], audited: Audited) -> str:
    """Say what this audit found: the next one quotes it, so what earlier ones said does not belong here."""
    if not grave:
        return f"nothing against {audited.changed} changed files" if audited.base else "nothing against the tree"
    first = [f"{finding.file}: {finding.title}".removeprefix(": ") for finding in grave[:ONE_LINER_FINDINGS]]
    more = len(grave) - ONE_LINER_FINDINGS
    return "; ".join([*first, *([f"and {more} more"] if more > 0 else [])])


def signature_of(
    root: Path, git: Git | None, head: str, files: Mapping[str, bytes], environment: Mapping[str, str]
) -> str:
    """Make a signature: ``pr6-7fe47bab`` where CI says which pull request it is, else ``branch-7fe47bab``.

    Where there is no commit, the digits are of what was read.
    """
    request = _PULL_REQUEST.fullmatch(environment.get("GITHUB_REF", ""))
    number = request[1] if request else environment.get("CI_MERGE_REQUEST_IID") or environment.get("CHANGE_ID") or ""
    branch = environment.get("GITHUB_HEAD_REF") or environment.get("CI_COMMIT_REF_NAME") or ""
    branch = branch or (git.branch() if git else "")
    name = f"pr{number}" if number.isdecimal() else branch or root.resolve().name or "tree"
    digits = head or _hash_of(files)
    clean = _NO_SIGNATURE.sub("_", name)[: SIGNATURE_CHARS_MAX - 20]
    return f"{clean}-{digits[:COMMIT_DIGITS]}"


def _hash_of(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, data in sorted(files.items()):
        digest.update(b"%s\0%d\0%s" % (os.fsencode(path), len(data), data))
    return digest.hexdigest()


def _base(git: Git, head: str, given: str, environment: Mapping[str, str]) -> str:
    """Give the commit at which the tree parted from what it is to be merged into; "" for none.

    What was meant to be there, and what a cut history lacks, is no reason to look at less: that would approve too much.
    """
    if not head:
        return ""
    target = next(filter(None, map(environment.get, _TARGETS)), "")
    named = [given] if given else [f"origin/{target}", target] if target else _BASES
    commit = next(filter(None, map(git.commit, named)), "")
    parted = git.merge_base(commit, head) if commit else ""
    if parted or not (given or target or git.is_shallow()):
        return parted
    meant = f"--base {given[:100]!a}" if given else f"CI's base {target[:100]!a}" if target else "the main branch"
    raise AuditFailed(
        f"{meant} {'has nothing in common with HEAD' if commit else 'is no commit here'}",
        hint="fetch the whole history (fetch-depth: 0); --base takes a branch, a tag or a hash: HEAD for no change",
    )
