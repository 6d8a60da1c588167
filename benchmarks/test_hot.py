"""The hot functions under pytest-benchmark: `make bench` times them; in the gate each runs once, and does its work."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.hot import COMMITS, HOSTS, PASSES, commits
from benchmarks.payload import BATCH_EVENTS


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_handles_every_event(benchmark: BenchmarkFixture, name: str) -> None:
    assert benchmark(PASSES[name]) == BATCH_EVENTS


@pytest.mark.parametrize("name", COMMITS)
def test_a_commit_holds_every_event(benchmark: BenchmarkFixture, name: str, tmp_path: Path) -> None:
    writer, commit = commits(tmp_path, syncs=COMMITS[name])
    try:
        assert benchmark(commit) == BATCH_EVENTS
    finally:
        writer.close()


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_reports_every_operation(benchmark: BenchmarkFixture, name: str) -> None:
    assert benchmark(HOSTS[name]) == BATCH_EVENTS
