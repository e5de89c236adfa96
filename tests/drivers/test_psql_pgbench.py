"""psql and pgbench, as a pod runs them: with environment variables and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.drivers.programs import missing
from tests.drivers.worlds import RunningWorld

pytestmark = pytest.mark.timeout(300)

BALANCES = """
SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
       (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history),
       (SELECT count(*) FROM pgbench_history)
"""


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not on PATH")
    return str(found)


def environment(world: RunningWorld) -> dict[str, str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**outside, **world.environment()}


def run(world: RunningWorld, *command: str, stdin: str = "", failing: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [tool(command[0]), *command[1:]],
        env=environment(world),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode != 0) == failing, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def psql(world: RunningWorld, sql: str, *options: str, failing: bool = False) -> subprocess.CompletedProcess[str]:
    return run(world, "psql", "-X", "-A", "-t", "-q", *options, stdin=sql, failing=failing)


def test_psql_asks_and_is_answered(world: RunningWorld) -> None:
    told = psql(world, "SELECT current_user, current_database(), 'ü';\n\\conninfo\n").stdout
    assert told.startswith("alice|app|ü\n")
    assert ("SSL connection" in told) == (world.world.security == "tls")


def test_psql_describes_tables_and_writes_transactions(world: RunningWorld) -> None:
    script = """
        DROP TABLE IF EXISTS drv_psql;
        CREATE TABLE drv_psql (id int PRIMARY KEY, t text);
        BEGIN; INSERT INTO drv_psql VALUES (1, 'one'); COMMIT;
        BEGIN; INSERT INTO drv_psql VALUES (2, 'two'); ROLLBACK;
        \\d drv_psql
        \\dt drv_psql
        SELECT * FROM drv_psql \\gdesc
        SELECT 'INSERT INTO drv_psql VALUES (' || i || ', ''made'')' FROM generate_series(3, 5) i \\gexec
        SELECT count(*), sum(id) FROM drv_psql;
    """
    told = psql(world, script).stdout
    assert "id|integer||not null|" in told
    assert "public|drv_psql|table|alice" in told
    assert told.endswith("4|13\n")


def test_psql_goes_on_after_errors(world: RunningWorld) -> None:
    done = psql(world, "SELEKT;\nBEGIN;\nSELECT 1/0;\nSELECT 1;\nROLLBACK;\nSELECT 'on';\n", "-v", "VERBOSITY=sqlstate")
    assert re.findall(r"ERROR:  (\w+)", done.stderr) == ["42601", "22012", "25P02"]
    assert done.stdout == "on\n"
    assert psql(world, "SELECT nope", "-v", "ON_ERROR_STOP=1", failing=True).returncode == 3


def test_psql_copies_files(world: RunningWorld, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("".join(f'{number},"row, {number}"\n' for number in range(20_000)))
    script = "DROP TABLE IF EXISTS drv_copy; CREATE TABLE drv_copy (id int, t text);\n"
    script += f"\\copy drv_copy FROM '{source}' CSV\n\\copy drv_copy TO '{target}' CSV\n"
    psql(world, script)
    assert target.read_text() == source.read_text()


def test_control_c_in_psql_cancels_the_query(world: RunningWorld) -> None:
    command = [tool("psql"), "-X", "-c", "SELECT pg_sleep(30)"]
    running = subprocess.Popen(command, env=environment(world), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    asking = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'"
    while not world.server.execute(asking) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert "canceling statement due to user request" in told
    assert not world.server.execute(asking)


def pgbench(world: RunningWorld, *options: str) -> str:
    told = run(world, "pgbench", *options).stdout
    assert re.search(r"number of failed transactions: 0\b", told), told
    return told


def books(world: RunningWorld) -> int:
    """How many transactions are written down; every sum of balances says the same."""
    (row,) = world.server.execute(BALANCES, "app")
    accounts, tellers, branches, history, count = row
    assert accounts == tellers == branches == history
    return int(count)


# The kinds of statement that pgbench can say, and a connection for each transaction. Where it prepares, it waits for the
# answer with the whole thread, and with it the other clients that hold a server: no more clients than servers there.
TEN = ["-c", "10", "-j", "2", "-t", "10"]
TWO = ["-c", "2", "-j", "2", "-t", "50"]
MODES = (TEN, [*TEN, "-M", "extended"], [*TWO, "-M", "prepared"], [*TEN, "-C"], [*TWO, "-C", "-M", "prepared"])


def test_pgbench_initialises_and_keeps_its_books_in_every_mode(world: RunningWorld) -> None:
    """Ten clients, TPC-B; in transaction mode there are two servers for them."""
    run(world, "pgbench", "-i", "-s", "1", "-q")
    for number, options in enumerate(MODES, 1):
        told = pgbench(world, "-n", *options)
        assert "number of transactions actually processed: 100/100" in told
        assert books(world) == number * 100, options
    world.assert_unharmed()


def test_pgbench_with_a_pipeline(world: RunningWorld, tmp_path: Path) -> None:
    psql(
        world,
        "DROP TABLE IF EXISTS drv_bench; CREATE TABLE drv_bench AS SELECT i, 0 AS n FROM generate_series(1, 50) i",
    )
    script = tmp_path / "pipeline.sql"
    script.write_text(
        "\\set i random(1, 50)\n\\startpipeline\nBEGIN;\nSELECT n FROM drv_bench WHERE i = :i;\n"
        "INSERT INTO drv_bench VALUES (:i, 1);\nCOMMIT;\n\\endpipeline\n"
    )
    for mode in ("prepared", "extended"):
        pgbench(world, "-n", "-c", "2", "-j", "2", "-t", "40", "-M", mode, "-f", str(script))
    assert psql(world, "SELECT count(*) FROM drv_bench").stdout == "210\n"
