"""The command `pgweir`: the table of contents of what a person can type.

Each command imports what it needs when it runs, so that `pgweir --help` answers at once and works where an extra is
not installed. The docstrings are the help and docs/cli.md (`reference`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgweir_operator.cli import about, doctoring
from pgweir_operator.cli.modes import Mode
from pgweir_operator.cli.options import AsJson, Columns, Watch, picked

WHERE = """\
The pooler's address: the folder of its Unix socket (/run/pgweir, with :PORT where there are several), postgresql://USER@HOST:PORT
(a console over TCP, with libpq's parameters and PGPASSWORD), or http://HOST:8080 (REST, which only shows). Default: the socket on
this machine. In a cluster, use kubectl pgweir."""


def table_names(incomplete: str) -> list[str]:
    """For the shell's completion."""
    from pgweir.admin.shown import NAMES

    return [name.lower() for name in NAMES if name.lower().startswith(incomplete.lower())]


Url = Annotated[
    str | None, typer.Option("--url", "-u", metavar="URL", envvar="PGWEIR_URL", help=WHERE, show_default=False)
]
User = Annotated[
    str | None,
    typer.Option("--user", "-U", metavar="USER", help="The console's user (default: pgbouncer).", show_default=False),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", metavar="TOKEN", envvar="PGWEIR_TOKEN", help="REST from another host wants this.", show_default=False
    ),
]

app = typer.Typer(
    name="pgweir",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)


@app.callback()
def pgweir_command(version: about.Version = False) -> None:
    """PostgreSQL connection pooling for Kubernetes, with a data plane of its own.

    \b
    Examples:
      pgweir demo                      # see the main job on this machine
      pgweir run -f pooler.yaml        # a Pooler without Kubernetes
      pgweir show waiters --watch 1    # why do my clients wait?
      kubectl pgweir status            # a fleet at a glance
    """


@app.command()
def show(
    table: Annotated[
        list[str],
        typer.Argument(
            help="What SHOW shows: pools, clients, servers, waiters, stats, config, pool_nodes, lists, …",
            autocompletion=table_names,
            show_default=False,
        ),
    ],
    url: Url = None,
    user: User = None,
    token: Token = None,
    as_json: AsJson = False,
    watch: Watch = None,
    columns: Columns = "",
) -> None:
    """Show a table of a running pooler.

    On a terminal, columns that are empty in every row are left out; --json and a pipe have all of them.

    \b
    Examples:
      pgweir show pools
      pgweir show clients --columns user,addr,state,transaction_seconds --watch 2
      pgweir show waiters --json --url http://localhost:8080
      pgweir show stats --url postgresql://stats@db.example:6432
    """
    from pgweir_operator.cli.look import run_show

    wanted = picked(columns)
    raise typer.Exit(run_show(table, url=url, user=user, token=token, as_json=as_json, every=watch, columns=wanted))


@app.command(short_help="Hold every client, and release every server.")
def pause(
    database: Annotated[str | None, typer.Argument(help="Only this database.", show_default=False)] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", "-t", min=0, metavar="SECONDS", help="Take it back after so long.", show_default=False
        ),
    ] = None,
    url: Url = None,
    user: User = None,
) -> None:
    """Hold every client between transactions and release every server; returns when none is held any more.

    Clients stay connected and wait. ^C takes it back. After --timeout the pause is taken back, too, and the clients
    that held a server are named. A Pooler's pods are paused by kubectl pgweir pause.

    \b
    Examples:
      pgweir pause
      pgweir pause app --timeout 30 --url /run/pgweir
    """
    from pgweir_operator.cli.look import run_pause

    raise typer.Exit(run_pause(database, timeout, url=url, user=user))


@app.command()
def resume(
    database: Annotated[str | None, typer.Argument(help="Only this database.", show_default=False)] = None,
    url: Url = None,
    user: User = None,
) -> None:
    """End a pause: whoever waits is served.

    \b
    Example:
      pgweir resume
    """
    from pgweir_operator.cli.look import named, run_command

    raise typer.Exit(run_command(named("RESUME", database), url=url, user=user))


@app.command()
def reload(url: Url = None, user: User = None) -> None:
    """Have the configuration read again. One that does not load changes nothing, and the error says why.

    \b
    Example:
      pgweir check pgbouncer.ini && pgweir reload
    """
    from pgweir_operator.cli.look import run_command

    raise typer.Exit(run_command("RELOAD", url=url, user=user))


@app.command(short_help="Type commands of the console.")
def console(
    command: Annotated[
        list[str] | None,
        typer.Option(
            "--command", "-c", metavar="COMMAND", help="Run this and end; may be repeated.", show_default=False
        ),
    ] = None,
    url: Url = None,
    user: User = None,
    as_json: AsJson = False,
) -> None:
    """Type commands of the console: from -c, from standard input, or at a prompt.

    \b
    Examples:
      pgweir console
      pgweir console -c "KILL_CLIENT 17" -c "SHOW CLIENTS"
    """
    from pgweir_operator.cli.look import run_console

    raise typer.Exit(run_console(command or [], url=url, user=user, as_json=as_json))


@app.command(short_help="Find every fault of a configuration before it is used.")
def check(
    file: Annotated[Path, typer.Argument(help="A pgbouncer.ini, or the manifest of a Pooler.", show_default=False)],
) -> None:
    """Check a configuration before it is used: every fault at once, with its place and what to write instead.

    Files that a pgbouncer.ini names are read, relative to its own folder. A manifest's file name ends in .yaml, .yml or .json.

    Exit codes: 0 nothing is wrong; 1 something is; 2 the file cannot be read, or has no Pooler in it.

    \b
    Example:
      pgweir check pooler.yaml && kubectl apply -f pooler.yaml
    """
    from pgweir_operator.cli.files import run_check

    raise typer.Exit(run_check(file))


@app.command(name="import", short_help="Turn another pooler's configuration into a Pooler.")
def import_(
    file: Annotated[Path, typer.Argument(help="A pgbouncer.ini, pgpool.conf or pgbalancer.conf.", show_default=False)],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the Pooler.")] = "pooler",
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="CLUSTER",
            help="Name of the cluster that it pools, instead of the file's server.",
            show_default=False,
        ),
    ] = None,
    session: Annotated[
        list[float] | None,
        typer.Option(
            "--session",
            min=0,
            metavar="SECONDS",
            help="How long a session of your applications lasts; repeat for more of them. One more line then says what fits.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Translate another pooler's configuration into a Pooler, and say what became of each setting.

    The manifest goes to standard output, one line for each setting to standard error.

    Exit codes: 0 every setting has found its place or is not needed; 1 the manifest is there, but a line says "refused"
    and a person has to decide; 2 the file cannot be read or is none of the three.

    \b
    Example:
      pgweir import /etc/pgpool2/pgpool.conf --name pooler-example-rw --cluster cluster-example > pooler.yaml
    """
    from pgweir_operator.cli.files import run_import

    raise typer.Exit(run_import(file, name=name, cluster=cluster, sessions=session or ()))


@app.command(short_help="Run a Pooler without Kubernetes, on this machine.")
def run(
    file: Annotated[
        Path,
        typer.Option(
            "--file", "-f", metavar="FILE", help="A Pooler, with the Secrets that it names.", show_default=False
        ),
    ],
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS:PORT", help="Where clients connect.")
    ] = "127.0.0.1:6432",
    http: Annotated[int, typer.Option("--http", metavar="PORT", help="REST, on 127.0.0.1.")] = 8080,
    metrics: Annotated[int, typer.Option("--metrics", metavar="PORT", help="Metrics, on 127.0.0.1.")] = 9127,
    postgres: Annotated[
        str | None,
        typer.Option(
            "--postgres", metavar="HOST:PORT", help="Where the Pooler's cluster is, seen from here.", show_default=False
        ),
    ] = None,
) -> None:
    """Run a Pooler without Kubernetes: one process on this machine, which follows the file.

    The file has the Pooler, and as further documents the Secrets that it names or that its cluster has by contract:
    <cluster>-superuser or target.adminSecret (the lookup role is made with it, and stays), <cluster>-app, <cluster>-ca. What is
    Kubernetes' own (instances, template, networkPolicy) has no effect here. A change that cannot be used changes nothing.

    \b
    Examples:
      pgweir run -f pooler.yaml --postgres 127.0.0.1:5432
      pgweir run -f manifests/local.yaml --listen 0.0.0.0:6432
    """
    from pgweir.admin.http import parse_address
    from pgweir_operator.cli.run import Place, run_pooler

    try:
        address, port = parse_address(listen)
        where = parse_address(postgres) if postgres is not None else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(run_pooler(file, Place(address, port, http, metrics, where)))


@app.command(short_help="See the main job on this machine: a pause under load.")
def demo(
    pooler: Annotated[
        Path | None,
        typer.Option(
            "--pooler",
            metavar="FILE",
            help="The Pooler to run (default: manifests/samples/pooler.yaml).",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Length of each of the three acts.")] = 5.0,
    clients: Annotated[int, typer.Option(min=1, max=200, metavar="N", help="How many clients send transactions.")] = 24,
    stay: Annotated[bool, typer.Option("--stay", help="Keep everything running until Ctrl-C.")] = False,
) -> None:
    """See the main job on this machine: a Pooler under load, paused and resumed, and nobody loses a transaction.

    \b
    Example:
      pgweir demo --seconds 3
    """
    from pgweir_operator.cli.demo import run_demo

    raise typer.Exit(run_demo(pooler, seconds=seconds, clients=clients, stay=stay))


@app.command(short_help="Send a short burst of transactions, and time them.")
def bench(
    dsn: Annotated[
        str, typer.Argument(metavar="DSN", help="A connection string; what it leaves out, libpq's environment has.")
    ] = "",
    clients: Annotated[
        int, typer.Option("--clients", "-n", min=1, max=5000, metavar="N", help="Connections at once.")
    ] = 8,
    seconds: Annotated[
        float, typer.Option("--seconds", "-s", min=0.1, metavar="SECONDS", help="Length of the burst.")
    ] = 5.0,
    mode: Annotated[
        Mode,
        typer.Option(
            "--mode",
            "-m",
            metavar="MODE",
            help="simple, extended, prepared, or transaction: BEGIN, twice the query, COMMIT.",
        ),
    ] = Mode.SIMPLE,
    query: Annotated[
        str, typer.Option("--query", "-q", metavar="SQL", help="What each transaction asks.")
    ] = "SELECT 1",
    as_json: AsJson = False,
) -> None:
    """Send a short burst of transactions to any PostgreSQL or pooler: counts, rate, latencies, errors.

    Needs no table. The client is Python: for the highest rates, use pgbench. manifests/bench-job.yaml runs it in a cluster.
    Exit code 1: something failed; 3: nobody could connect.

    \b
    Examples:
      pgweir bench "host=pooler-example-rw user=app dbname=app" --clients 32 --seconds 10
      PGHOST=localhost PGPORT=6432 PGUSER=app PGDATABASE=app PGPASSWORD=… pgweir bench --mode prepared
    """
    from pgweir_operator.cli.bench import run_bench

    raise typer.Exit(run_bench(dsn, clients=clients, seconds=seconds, mode=mode, query=query, as_json=as_json))


@app.command(short_help="Find out what is wrong, with evidence and a way out.")
def doctor(
    dsn: Annotated[
        str,
        typer.Argument(
            metavar="DSN", help="How the application connects; what it leaves out, libpq's environment has."
        ),
    ] = "",
    url: Url = None,
    user: User = None,
    token: Token = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="DSN",
            help="PostgreSQL itself, past the pooler, as somebody who may see all of pg_stat_activity.",
            show_default=False,
        ),
    ] = None,
    tries: doctoring.Tries = 20,
    threshold: doctoring.Threshold = 300.0,
    stuck: doctoring.Stuck = 30.0,
    timeout: doctoring.Timeout = 3.0,
    patience: doctoring.Patience = 5.0,
    burst: doctoring.Burst = 0.0,
    clients: doctoring.Clients = 8,
    as_json: AsJson = False,
) -> None:
    """Find out what is wrong: names, ports, TLS, logins, the time of SELECT 1 by stages, limits, waiters, idle transactions.

    Each finding has the evidence and the way out; where nothing is wrong, nothing is found and the exit code is 0.
    Otherwise it is the class of the first finding, 10 to 17 (see the exit codes). It only looks: logins, SELECT 1 and SHOW.
    The DSN is any pooler; its own tables, and which layer refused a login, come from --url.

    \b
    Examples:
      pgweir doctor "host=localhost port=6432 user=app dbname=app" --url /run/pgweir
      pgweir doctor "host=db user=app" --url http://db:8080 --backend "host=pg user=postgres"
      pgweir doctor "host=localhost port=6432 user=app" --burst 5 --json
    """
    from pgweir_operator.cli.doctor import run_doctor

    options = doctoring.options(tries, threshold, stuck, timeout, patience, burst, clients, as_json)
    raise typer.Exit(run_doctor(dsn, options, url=url, user=user, token=token, backend=backend))


@app.command()
def version() -> None:
    """Print the version."""
    about.say()


if __name__ == "__main__":
    app()
