"""Where the command line finds a pooler: addresses, and what those hear that lead nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgweir_operator.cli.source import (
    Refused,
    RestSource,
    Unreachable,
    console_dsn,
    open_source,
    rest_table,
)

TABLE = {
    "columns": [{"name": "list", "type": "text"}, {"name": "items", "type": "number"}],
    "rows": [{"list": "a", "items": 1}],
}


def test_a_web_address_is_rest_with_or_without_its_path() -> None:
    for url in ("http://localhost:8080", "http://localhost:8080/", "http://localhost:8080/api/v1"):
        source = open_source(url, token="t")
        assert isinstance(source, RestSource)
        assert source.token == "t"


def test_a_connection_string_keeps_what_it_says_and_leads_to_the_console() -> None:
    found = conninfo_to_dict(console_dsn("postgresql://stats@db.example:6432?sslmode=verify-full", None))
    assert (found["user"], found["host"], found["dbname"]) == ("stats", "db.example", "pgbouncer")
    assert found["sslmode"] == "verify-full"
    assert conninfo_to_dict(console_dsn("host=db.example user=stats", "admin"))["user"] == "admin"


def test_a_folder_with_one_socket_needs_no_port(tmp_path: Path) -> None:
    (tmp_path / ".s.PGSQL.6432").touch()
    found = conninfo_to_dict(console_dsn(str(tmp_path), None))
    assert (found["host"], found["port"], found["user"]) == (str(tmp_path), "6432", "pgbouncer")
    (tmp_path / ".s.PGSQL.6433").touch()
    assert conninfo_to_dict(console_dsn(f"{tmp_path}:6433", None))["port"] == "6433"
    with pytest.raises(Unreachable, match="several sockets"):
        console_dsn(str(tmp_path), None)


@pytest.mark.parametrize("url", ["localhost", "/nowhere", "/nowhere:6432", "host=/nowhere port=1"])
def test_what_leads_nowhere_says_what_to_write(url: str) -> None:
    with pytest.raises(Unreachable, match=r"write http://|name the pooler's address|No such file"):
        open_source(url)


def test_a_table_over_rest_keeps_its_columns_and_their_order() -> None:
    asked = []

    def fetch(path: str) -> tuple[int, bytes]:
        asked.append(path)
        return 200, json.dumps(TABLE).encode()

    shown = rest_table(fetch, "here", ["POOL", "nodes"])
    assert (shown.columns, shown.rows) == ((("list", False), ("items", True)), (("a", 1),))
    assert asked == ["/api/v1/show/pool_nodes"]


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (404, b'{"error": "there is nothing"}', Refused, "there is nothing"),
        (401, b'{"error": "the token"}', Unreachable, "PGWEIR_TOKEN"),
        (200, b"<html>", Unreachable, "no pgweir"),
        (200, b"[]", Unreachable, "no pgweir of this version"),
    ],
)
def test_what_rest_answers_instead_becomes_a_sentence(
    status: int, body: bytes, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        rest_table(lambda path: (status, body), "here", ["pools"])


def test_nothing_that_listens_is_said_with_the_address() -> None:
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1 does not answer: .*refused"):
        open_source("http://127.0.0.1:1").show(["pools"])
