"""Real drivers do real work through the pooler, in every world; each check is asserted by its name."""

from __future__ import annotations

import json

import pytest
from tests.drivers.checks import CANNOT, CANNOT_IN_TRANSACTION, CHECKS, SESSION_ONLY, asked_of
from tests.drivers.programs import PROGRAMS, run
from tests.drivers.worlds import RunningWorld, major_versions

pytestmark = pytest.mark.timeout(1200)  # the first run on a machine builds the programs


@pytest.mark.parametrize("driver", PROGRAMS)
def test_every_check_of_the_driver_passes(world: RunningWorld, driver: str) -> None:
    checks = asked_of(driver, world.world.mode)
    answers = run(PROGRAMS[driver], world.environment(), checks)
    assert list(answers) == checks, "the program ran what it was asked to run"
    failed = [json.dumps(answer) for answer in answers.values() if answer["ok"] is not True]
    assert not failed, f"{driver}, {world.world}:\n" + "\n".join(failed) + f"\n{world.pooler.log_tail(8)}"
    world.assert_unharmed()


def test_both_versions_of_postgresql_are_here() -> None:
    from tests.drivers.programs import missing

    if not {15, 18} <= set(major_versions()):
        missing(f"PostgreSQL 15 and 18 are wanted, {major_versions()} are here")


def test_exceptions_name_checks_and_drivers_that_exist() -> None:
    assert set(SESSION_ONLY) <= set(CHECKS)
    for driver, check in (*CANNOT, *CANNOT_IN_TRANSACTION):
        assert driver in PROGRAMS, driver
        assert check in CHECKS, check
