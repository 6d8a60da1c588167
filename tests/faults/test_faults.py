"""A round of each fault: enough to see that the promise and the oracle stand. ``make faults`` runs the campaign."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from tests.faults.campaign import Round, replay_command
from tests.faults.scenario import Scenario, Unavailable
from tests.faults.table import SCENARIOS
from tests.faults.trial import Trial

SEED: Final = int(os.environ.get("OBSERVER_FAULTS_SEED", "20261125"))


@pytest.mark.parametrize("scenario", [pytest.param(scenario, id=scenario.name) for scenario in SCENARIOS])
async def test_what_was_promised_holds(scenario: Scenario, tmp_path: Path) -> None:
    again = replay_command(Round(scenario.name, SEED, scenario.repeats_bounded))
    print(f"again: {again}")
    trial = Trial(tmp_path, SEED, scenario.repeats_bounded)
    try:
        await scenario.run(trial)
    except* Unavailable as absent:
        pytest.skip(str(absent.exceptions[0]))
    assert trial.seen().faults > 0
