"""Against Debian's PgBouncer: scenes that stand in docs/differences-by-scene.md must differ, all others must not."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from tests.pooler.debian import pgbouncer_version
from tests.pooler.differences import TABLE, VERSION, read_table
from tests.pooler.process import FLAVOUR


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if FLAVOUR != "pgbouncer":
        return
    table = read_table(TABLE.read_text())
    # A newer PgBouncer does more: what it does as we do is no failure.
    is_known = f"{pgbouncer_version()}.".startswith(f"{VERSION}.")
    for item in items:
        if not isinstance(item, pytest.Function) or item.path.parent != Path(__file__).parent:
            continue
        names = (item.name, item.originalname, "")
        difference = next((table[item.path.name, name] for name in names if (item.path.name, name) in table), None)
        if difference is None:
            continue
        if not difference.is_asked:
            item.add_marker(pytest.mark.skip(reason=difference.words))
        else:
            strict = is_known and not difference.is_race
            item.add_marker(pytest.mark.xfail(reason=f"PgBouncer {VERSION} {difference.words}", strict=strict))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A scene differs in what happens in it: one that could not be set up, or cleared away, has shown nothing."""
    report = yield
    if call.when != "call" and call.excinfo is not None and hasattr(report, "wasxfail"):
        report.outcome = "failed"
        del report.wasxfail
    return report


@pytest.fixture
def ours_only() -> None:
    """Here the table says what is not PgBouncer's; this only tells whoever did not know."""
    if FLAVOUR != "pgweir":
        pytest.fail(f"{TABLE.name} is where a scene says that PgBouncer differs")
