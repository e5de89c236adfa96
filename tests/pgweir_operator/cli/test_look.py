"""`pgweir show, pause, resume, reload, console` against a running pooler, as a person types them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator

import pytest
from tests.pgweir_operator.cli.test_files import pgweir
from tests.pooler.process import ADMIN, FLAVOUR, SECRETS, PoolerProcess, eventually
from tests.postgres.server import PostgresServer

pytestmark = pytest.mark.skipif(
    FLAVOUR != "pgweir", reason="the command line is ours, and so are REST and the peer's console"
)


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer) -> Iterator[PoolerProcess]:
    with PoolerProcess(postgres.port) as made:
        with made.connect(application_name="month_end"):
            yield made
        postgres.terminate_clients()


@pytest.fixture(params=["socket", "rest", "tcp"])
def url(request: pytest.FixtureRequest, pooler: PoolerProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PGPASSWORD", SECRETS[ADMIN])
    return {
        "socket": str(pooler.directory),
        "rest": f"http://127.0.0.1:{pooler.http_port}",
        "tcp": f"postgresql://{ADMIN}@127.0.0.1:{pooler.port}",
    }[str(request.param)]


def test_a_table_is_the_same_whichever_way_it_is_asked_for(pooler: PoolerProcess, url: str) -> None:
    code, printed, told = pgweir("show", "pools", "--json", "--url", url)
    assert (code, told) == (0, "")
    expected = pooler.console("SHOW POOLS")
    found = json.loads(printed)
    for rows in (found, expected):
        for row in rows:
            row.pop("cl_active") if row["database"] == "pgbouncer" else None  # the console that asks
    assert found == expected


def test_a_table_as_text_has_every_column_and_numbers_to_the_right(url: str) -> None:
    code, printed, _ = pgweir("show", "clients", "--columns", "application_name,id,user", "--url", url)
    head, first, *_ = printed.splitlines()
    assert (code, head.split()) == (0, ["application_name", "id", "user"])
    assert first.split()[0] == "month_end"
    assert first.index(first.split()[1]) + len(first.split()[1]) == head.index("id") + len("id")


def test_two_words_name_one_table(url: str) -> None:
    code, printed, _ = pgweir("show", "pool", "nodes", "-j", "-u", url)
    assert (code, json.loads(printed)[0]["hostname"]) == (0, "127.0.0.1")


def test_what_there_is_not_is_an_error_with_its_exit_code(url: str) -> None:
    code, printed, told = pgweir("show", "nonsense", "--url", url)
    assert (code, printed) == (1, "")
    assert "nonsense" in told
    code, _, told = pgweir("show", "lists", "--columns", "item", "--url", url)
    assert (code, told.strip()) == (2, "--columns: there is no item; there are list, items")


def test_nobody_there_is_exit_code_3() -> None:
    for address in ("http://127.0.0.1:1", "postgresql://admin@127.0.0.1:1", "/nowhere"):
        assert pgweir("show", "pools", "--url", address)[0] == 3, address
    assert pgweir("pause", "--url", "/nowhere")[0] == 3


def test_the_address_may_stand_in_the_environment(pooler: PoolerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGWEIR_URL", str(pooler.directory))
    assert pgweir("show", "version")[:2] == (0, pooler.console("SHOW VERSION")[0]["version"].join(("version\n", "\n")))


def test_pause_returns_when_nothing_is_held_and_resume_goes_on(pooler: PoolerProcess) -> None:
    code, printed, told = pgweir("pause", "--timeout", "10", "--url", pooler.directory)
    assert (code, told) == (0, "")
    assert printed.startswith("paused")
    assert pooler.console("SHOW STATE")[1]["value"] == "yes"
    assert pgweir("resume", "--url", pooler.directory) == (0, "RESUME\n", "")
    assert pooler.console("SHOW STATE")[1]["value"] == "no"
    code, _, told = pgweir("resume", "--url", pooler.directory)
    assert code == 1
    assert "not paused" in told


def test_a_pause_that_meets_its_deadline_names_the_holder_and_is_exit_code_4(pooler: PoolerProcess) -> None:
    with pooler.connect(application_name="hoarder") as client:
        client.execute("BEGIN")
        client.execute("SELECT 1")
        code, printed, told = pgweir("pause", "--timeout", "0.2", "--url", pooler.directory)
        client.execute("COMMIT")
    assert (code, printed) == (4, "")
    assert "hoarder" in told
    assert pooler.console("SHOW STATE")[1]["value"] == "no"


def test_one_database_is_paused_by_its_name_whatever_is_in_it(pooler: PoolerProcess) -> None:
    name = 'a"b; PAUSE'
    assert pgweir("pause", name, "--url", pooler.directory)[0] == 0
    assert [row["name"] for row in pooler.console("SHOW DATABASES") if row["paused"]] == [name]
    assert pgweir("resume", name, "--url", pooler.directory)[0] == 0
    assert not [row for row in pooler.console("SHOW DATABASES") if row["paused"]]


def test_rest_only_shows(pooler: PoolerProcess) -> None:
    for command in ("pause", "resume", "reload"):
        code, _, told = pgweir(command, "--url", f"http://127.0.0.1:{pooler.http_port}")
        assert code == 1
        assert "only shows" in told


def test_reload_reads_the_file_and_says_why_it_does_not(pooler: PoolerProcess) -> None:
    pooler.settings["default_pool_size"] = 7
    pooler.write_files()
    assert pgweir("reload", "--url", pooler.directory) == (0, "RELOAD\n", "")
    assert pooler.console("SHOW DEFAULT_POOL_SIZE")[0]["default_pool_size"] == "7"
    pooler.settings["default_pool_size"] = "many"
    pooler.write_files()
    try:
        code, _, told = pgweir("reload", "--url", pooler.directory)
        assert code == 1
        assert "default_pool_size" in told
    finally:
        pooler.settings["default_pool_size"] = 4
        pooler.write_files()


def test_the_console_runs_commands_one_after_another_until_one_fails(pooler: PoolerProcess) -> None:
    words = ["console", "--url", pooler.directory, "--json"]
    code, printed, _ = pgweir(*words, "-c", "SHOW LISTS", "-c", "RECONNECT", "-c", "KILL_CLIENT 0", "-c", "SHOW POOLS")
    assert code == 1
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(printed)
    assert {row["list"] for row in first} >= {"databases", "pools"}
    assert json.loads(printed[end:]) == {"result": "RECONNECT"}


def test_the_console_takes_commands_from_a_pipe(
    pooler: PoolerProcess, run_with_input: Callable[..., tuple[int, str]]
) -> None:
    code, printed = run_with_input("SHOW VERSION\n\nSHOW STATE\n", "console", "--url", pooler.directory)
    assert code == 0
    assert printed.splitlines()[0] == "version"
    assert "suspended" in printed


@pytest.fixture
def run_with_input() -> Callable[..., tuple[int, str]]:
    from typer.testing import CliRunner

    from pgweir_operator.cli.main import app

    def run(text: str, *words: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(word) for word in words], input=text)
        return result.exit_code, result.stdout

    return run


def test_watch_goes_on_when_the_pooler_is_away_for_a_while(
    postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `--watch` without its ^C: three rounds, of which the pooler misses the second."""
    from pgweir_operator.cli import screen
    from pgweir_operator.cli.shown import Shown
    from pgweir_operator.cli.source import open_source

    with PoolerProcess(postgres.port) as mine:
        source = open_source(f"http://127.0.0.1:{mine.http_port}")
        asked = 0

        def ask() -> Shown:
            nonlocal asked
            asked += 1
            if asked == 2:
                mine.signal(signal.SIGKILL)
                mine.wait_exit()
            if asked == 3:
                mine.spawn()
                eventually(lambda: mine.get(mine.http_port, "/readyz")[0] == 200, "it is there again")
            return source.show(["lists"])

        screen.fresh()
        screen.watch(ask, 0.0, as_json=True, rounds=3)
        said = capsys.readouterr()
        assert [json.loads(line)[0]["list"] for line in said.out.splitlines()] == ["databases"] * 2
        assert "refused" in said.err or "reset" in said.err.lower() or "closed" in said.err.lower()
