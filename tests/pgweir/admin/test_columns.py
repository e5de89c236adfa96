"""Every table has PgBouncer's (or pgpool's) columns, in its order, with its types: scripts read them by position."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pgweir.admin.world import HandService
from tests.pooler.console_columns import COLUMNS, OURS_BEHIND, PGPOOL

from pgweir.admin.tables import TABLES, View


@pytest.mark.parametrize("name", COLUMNS | PGPOOL)
def test_a_table_has_its_peers_columns_and_behind_them_ours(tmp_path: Path, name: str) -> None:
    table = TABLES[name](View.of(HandService(tmp_path), wall=1_700_000_000.0))
    expected = [*(COLUMNS | PGPOOL)[name], *OURS_BEHIND.get(name, ())]
    assert list(table.columns) == [(column.name, column.oid) for column in expected]


def test_no_table_of_pgbouncers_is_missing_and_ours_are_known_by_name() -> None:
    assert set(TABLES) - set(COLUMNS | PGPOOL) == {"FAILURES", "REUSE", "STATS_POOLS", "WAITERS"}
