"""What every driver's program is asked to do, by name, and the few things that some of them cannot do, with the reason.

A program gets the names in PGWEIR_CHECKS, runs them in that order, and prints one JSON line for each. What a check does
is the same in every language; the programs say it in their driver's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Mode = Literal["transaction", "session"]

CHECKS: Final[Mapping[str, str]] = {
    "connect": "log in, ask for the user, the database and application_name",
    "commit": "what a transaction wrote is there after COMMIT, for another connection too",
    "rollback": "what a transaction wrote is gone after ROLLBACK",
    "savepoint": "an error inside a savepoint costs only what came after the savepoint",
    "prepared_reused": "one named statement, executed in many transactions",
    "prepared_many": "more statements than max_prepared_statements, each twice, each with its own answer",
    "prepared_elsewhere": "a statement that was prepared on one server, executed on another",
    "prepared_replanned": "a statement whose table got another column goes on",
    "parameters_text": "values of many types there and back, in text",
    "parameters_binary": "values of many types there and back, in binary",
    "copy_in": "ten thousand rows by COPY FROM STDIN",
    "copy_out": "ten thousand rows by COPY TO STDOUT",
    "copy_broken": "a bad row ends the COPY with an error, and the connection goes on",
    "cancel": "a long query is cancelled by the driver's own means; the next one runs",
    "pipeline": "many statements on their way at once, each answered in its place",
    "pipeline_broken": "an error inside a pipeline or batch ends the batch, and the connection goes on",
    "unique_violation": "23505 inside a transaction, then 25P02, then ROLLBACK, then all is well",
    "syntax_error": "42601, and the connection goes on",
    "large_rows": "few rows of megabytes, and many small ones",
    "large_parameter": "megabytes in one parameter, there and back",
    "cursor": "a result fetched in pieces inside a transaction",
    "notices": "RAISE NOTICE arrives",
    "multi_statement": "several statements in one simple query",
    "tracked_setting": "SET TimeZone stays with the client that said it, whichever server it gets",
    "many_clients": "eight connections count to two hundred together",
    "session_setting": "SET work_mem stays",
    "listen_notify": "LISTEN, NOTIFY from elsewhere, and it arrives",
    "temporary_table": "a temporary table outlives its transaction",
}

# In transaction mode the server goes to somebody else at COMMIT, with everything that belongs to its session.
SESSION_ONLY: Final[Mapping[str, str]] = {
    "session_setting": "work_mem is no tracked parameter: it belongs to the server's session",
    "listen_notify": "LISTEN belongs to the server's session",
    "temporary_table": "a temporary table belongs to the server's session",
}

CANNOT: Final[Mapping[tuple[str, str], str]] = {
    ("libpq-go", "pipeline"): "database/sql has no pipeline",
    ("libpq-go", "pipeline_broken"): "database/sql has no pipeline",
    ("postgres-js", "parameters_binary"): "postgres.js speaks text only",
    ("postgres-js", "copy_broken"): "postgres.js gives no error to a COPY that the server ends; its stream just stops",
    ("libpq-go", "copy_out"): "lib/pq refuses COPY TO",
}

CANNOT_IN_TRANSACTION: Final[Mapping[tuple[str, str], str]] = {
    ("libpq-go", "parameters_text"): "lib/pq parses the unnamed statement in one transaction and binds it in the next, "
    "unless binary_parameters is on",
}


def asked_of(driver: str, mode: Mode) -> list[str]:
    """The checks for that driver in that mode."""
    return [
        name for name in CHECKS if (driver, name) not in CANNOT and not (mode == "transaction" and name in SESSION_ONLY)
    ]
