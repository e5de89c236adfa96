"""SHOW FAILURES, which is ours: what went wrong or ended since the start, counted, for whoever has the console and no metrics.

The same numbers as `pgweir_auth_failures_total`, `pgweir_server_login_errors_total` and `pgweir_closed_connections_total`.
"""

from __future__ import annotations

from typing import Final

from pgweir.admin.tables.form import Row, Table, View, ints, texts

FAILURES_COLUMNS: Final = (*texts("kind name"), *ints("count"))


def failures(view: View) -> Table:
    """By kind: the step that refused a login, the SQLSTATE with which a server's login failed, why a connection ended."""
    pooler = view.pooler
    closed = {reason.label: count for reason, count in pooler.closed_counts.items()}
    kinds = {"auth_stage": pooler.auth_failures, "server_login": pooler.server_login_errors, "close_reason": closed}
    rows: list[Row] = [(kind, name, count) for kind, counts in kinds.items() for name, count in sorted(counts.items())]
    return Table(FAILURES_COLUMNS, rows)
