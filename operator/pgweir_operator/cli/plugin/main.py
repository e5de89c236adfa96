"""The command `kubectl pgweir`: the table of contents of the plugin. kubectl finds it as `kubectl-pgweir` on PATH.

Each command imports what it needs when it runs. The docstrings are the help and docs/cli.md (`cli.reference`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pgweir_operator.cli import about, doctoring
from pgweir_operator.cli.options import AsJson, Columns, Watch, picked

Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Default: that of the context.", show_default=False),
]
Context = Annotated[
    str | None, typer.Option("--context", metavar="CONTEXT", help="A context of the kubeconfig.", show_default=False)
]
Kubeconfig = Annotated[
    str | None,
    typer.Option("--kubeconfig", metavar="FILE", help="Default: KUBECONFIG, or ~/.kube/config.", show_default=False),
]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Look into every namespace.")]
PoolerName = Annotated[str, typer.Argument(metavar="POOLER", help="Name of the Pooler.", show_default=False)]
PoolerOrAll = Annotated[
    str | None, typer.Argument(metavar="POOLER", help="Name of a Pooler; default: all of them.", show_default=False)
]

app = typer.Typer(
    name="kubectl-pgweir",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)


@app.callback()
def plugin_command(version: about.Version = False) -> None:
    """Poolers and their pods: how they are, who waits and why, pause and resume, a switchover without errors.

    It has the rights of whoever types: get and list of poolers and pods for status; get and create of pods/portforward for
    clients, waiters, show, psql and --live; patch of poolers for pause, resume and switchover, which also patches
    clusters/status; get of pods/log for logs; create of pods/exec for doctor. What doctor and support-bundle may not look at
    they leave out, and say so.

    \b
    Examples:
      kubectl pgweir status                                   # the fleet at a glance
      kubectl pgweir waiters pooler-example-rw                # why do my clients wait?
      kubectl pgweir pause pooler-example-rw --wait --timeout 60
      kubectl pgweir switchover cluster-example --to cluster-example-2
    """


@app.command(short_help="The fleet at a glance; of one Pooler, why it is so.")
def status(
    pooler: PoolerOrAll = None,
    live: Annotated[bool, typer.Option("--live", help="Ask the pods for the numbers of this moment.")] = False,
    as_json: AsJson = False,
    namespace: Namespace = None,
    everywhere: Everywhere = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """The fleet at a glance: phase, pods, revision, clients, who waits, pauses and switchovers.

    Of one Pooler also its conditions and pods. The numbers are the operator's last ones; --live asks the pods.
    Exit code 1: a Pooler is not Ready.

    \b
    Examples:
      kubectl pgweir status -A
      kubectl pgweir status pooler-example-rw --live
    """
    from pgweir_operator.cli.plugin.cluster import Where, run
    from pgweir_operator.cli.plugin.status import show_status

    where = Where(namespace, context, kubeconfig, everywhere and pooler is None)
    raise typer.Exit(run(where, lambda cluster: show_status(cluster, pooler, live=live, as_json=as_json)))


@app.command(short_help="Hold every client, and release every server.")
def pause(
    pooler: PoolerName,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until every pod has proved it.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", "-t", min=0, metavar="SECONDS", help="With --wait: stay no longer than this.")
    ] = 120.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Hold every client of a Pooler between transactions and release every server (spec.paused: true).

    With --wait it shows how far it is and names who still holds a server. Exit code 4: not in time; the pause goes on.

    \b
    Example:
      kubectl pgweir pause pooler-example-rw --wait --timeout 60
    """
    from pgweir_operator.cli.plugin.cluster import Where, run
    from pgweir_operator.cli.plugin.pausing import set_paused

    where = Where(namespace, context, kubeconfig)
    raise typer.Exit(run(where, lambda cluster: set_paused(cluster, pooler, True, wait=wait, timeout=timeout)))


@app.command(short_help="End a pause: whoever waits is served.")
def resume(
    pooler: PoolerName,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until every pod has proved it.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", "-t", min=0, metavar="SECONDS", help="With --wait: stay no longer than this.")
    ] = 60.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """End a pause (spec.paused and pgbouncer.paused: false): whoever waits is served.

    \b
    Example:
      kubectl pgweir resume pooler-example-rw --wait
    """
    from pgweir_operator.cli.plugin.cluster import Where, run
    from pgweir_operator.cli.plugin.pausing import set_paused

    where = Where(namespace, context, kubeconfig)
    raise typer.Exit(run(where, lambda cluster: set_paused(cluster, pooler, False, wait=wait, timeout=timeout)))


def _show(
    words: list[str],
    pooler: str | None,
    as_json: bool,
    watch: float | None,
    columns: str,
    where: tuple[str | None, str | None, str | None],
) -> int:
    from pgweir_operator.cli.plugin.cluster import Where, run
    from pgweir_operator.cli.plugin.views import show_tables

    wanted = picked(columns)
    return run(
        Where(*where),
        lambda cluster: show_tables(cluster, words, pooler, as_json=as_json, every=watch, columns=wanted),
    )


@app.command(short_help="The clients of all pods, the oldest transaction first.")
def clients(
    pooler: PoolerOrAll = None,
    as_json: AsJson = False,
    watch: Watch = None,
    columns: Columns = "",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """The clients of all pods; in each pod, the oldest transaction first.

    \b
    Example:
      kubectl pgweir clients pooler-example-rw --columns pod,user,application_name,addr,state,transaction_seconds
    """
    raise typer.Exit(_show(["clients"], pooler, as_json, watch, columns, (namespace, context, kubeconfig)))


@app.command(short_help="Who waits, for which limit, and who holds it.")
def waiters(
    pooler: PoolerOrAll = None,
    as_json: AsJson = False,
    watch: Watch = None,
    columns: Columns = "",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Who waits in any pod, the longest wait first: for which limit, and who holds what they wait for.

    \b
    Example:
      kubectl pgweir waiters pooler-example-rw --watch 1
    """
    raise typer.Exit(_show(["waiters"], pooler, as_json, watch, columns, (namespace, context, kubeconfig)))


@app.command()
def show(
    table: Annotated[
        str, typer.Argument(help="Any table of the console: pools, servers, stats, …", show_default=False)
    ],
    pooler: PoolerOrAll = None,
    as_json: AsJson = False,
    watch: Watch = None,
    columns: Columns = "",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """A table of the console from every pod, put together.

    \b
    Example:
      kubectl pgweir show pools pooler-example-rw
    """
    raise typer.Exit(_show([table], pooler, as_json, watch, columns, (namespace, context, kubeconfig)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(
    context_: typer.Context,
    pooler: PoolerName,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", "-U", metavar="USER", help="Default: the cluster's application user.", show_default=False
        ),
    ] = None,
    database: Annotated[
        str | None, typer.Option("--dbname", "-d", metavar="DATABASE", help="Default: the user's.", show_default=False)
    ] = None,
    console: Annotated[
        bool, typer.Option("--console", help="The console of a pod instead, by exec: needs create of pods/exec.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Connect through a Pooler with the psql of this machine. What stands behind -- is psql's.

    Without --user it is the application's user of the cluster's Secret, if you may read that. The exit code is psql's. With
    --console it is pgweir-console, in the pod.

    \b
    Examples:
      kubectl pgweir psql pooler-example-rw -- -c "SELECT 1"
      kubectl pgweir psql pooler-example-rw --console -- -c "SHOW POOLS"
    """
    from pgweir_operator.cli.plugin.cluster import Where, run
    from pgweir_operator.cli.plugin.psql import console_command, run_psql

    where = Where(namespace, context, kubeconfig)
    if not console:
        work = lambda cluster: run_psql(cluster, pooler, user=user, database=database, arguments=context_.args)  # noqa: E731
        raise typer.Exit(run(where, work))
    found: list[str] = []

    async def find(cluster: object) -> int:
        found.extend(await console_command(cluster, pooler, where, context_.args))  # type: ignore[arg-type]
        return 0

    code = run(where, find)
    if found:
        os.execv(found[0], found)  # noqa: S606 (kubectl takes our place, and its terminal)
    raise typer.Exit(code)


@app.command(short_help="What the pods wrote, as sentences.")
def logs(
    pooler: PoolerName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the pods write.")] = False,
    tail: Annotated[int, typer.Option("--tail", min=0, metavar="LINES", help="So many lines of each pod.")] = 100,
    since: Annotated[
        int | None,
        typer.Option("--since", min=1, metavar="SECONDS", help="Instead: what is so new.", show_default=False),
    ] = None,
    grep: Annotated[str, typer.Option("--grep", metavar="TEXT", help="Only lines with this.", show_default=False)] = "",
    as_json: Annotated[bool, typer.Option("--json", "-j", help="The JSON lines as they were written.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """What the pods of a Pooler wrote, as sentences, each with its pod.

    A connection that ended says why: close_reason, with the client's id and the pid that PostgreSQL's own log has.

    \b
    Examples:
      kubectl pgweir logs pooler-example-rw --grep close_reason
      kubectl pgweir logs pooler-example-rw -f
    """
    from pgweir_operator.cli.plugin.cluster import Where, run
    from pgweir_operator.cli.plugin.logs import show_logs

    where = Where(namespace, context, kubeconfig)
    raise typer.Exit(
        run(
            where,
            lambda cluster: show_logs(cluster, pooler, follow=follow, tail=tail, since=since, raw=as_json, grep=grep),
        )
    )


@app.command(name="support-bundle", short_help="Collect what a helper needs, without any secret.")
def support_bundle(
    pooler: PoolerOrAll = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Default: pgweir-support-TIME.tar.gz here.", show_default=False
        ),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Collect manifests, status, Events, logs and the pods' tables into one archive, without passwords, keys and Secrets.

    What may not be read is listed in the archive. Secrets that you may read are used to strike their contents out elsewhere.

    \b
    Example:
      kubectl pgweir support-bundle pooler-example-rw -f ticket-4711.tar.gz
    """
    from pgweir_operator.cli.plugin.bundle import support_bundle as collect
    from pgweir_operator.cli.plugin.cluster import Where, run

    where = Where(namespace, context, kubeconfig)
    raise typer.Exit(run(where, lambda cluster: collect(cluster, pooler, file)))


@app.command(short_help="Make another instance the primary, without errors.")
def switchover(
    cluster: Annotated[
        str, typer.Argument(metavar="CLUSTER", help="The Cluster, or a Pooler of it.", show_default=False)
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="POD", help="The new primary; needed where there are several standbys.", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", "-t", min=1, metavar="SECONDS", help="For the whole of it.")
    ] = 60.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make another instance of a CloudNativePG cluster the primary, with every client held meanwhile: a delay and no error.

    Every rw Pooler of the cluster holds its clients first; only then the Cluster is told. If they cannot be held in time,
    nothing is changed and everything goes on (exit code 4).

    \b
    Example:
      kubectl pgweir switchover cluster-example --to cluster-example-2
    """
    from pgweir_operator.cli.plugin.cluster import Where, run
    from pgweir_operator.cli.plugin.switchover import switch_over

    where = Where(namespace, context, kubeconfig)
    raise typer.Exit(run(where, lambda found: switch_over(found, cluster, to, timeout)))


@app.command(short_help="Find out what is wrong, with evidence and a way out.")
def doctor(
    pooler: Annotated[
        str | None,
        typer.Argument(metavar="POOLER", help="Name of a Pooler; default: the only one.", show_default=False),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            "--secret",
            metavar="NAME",
            help="Log in as an application does: a Secret with username, password and dbname. Default: the cluster's own.",
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
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Find out what is wrong: Service, DNS, NetworkPolicies, TCP, TLS, logins, the time of SELECT 1, limits, PostgreSQL.

    What has to be measured from inside is measured in a pod of the Pooler, by exec: no other image is needed. Each finding
    has the evidence and the way out; where nothing is wrong, nothing is found and the exit code is 0. Otherwise it is the
    class of the first finding, 10 to 17 (see the exit codes).

    Logins are the application's and the superuser's, where you may read those Secrets of the cluster. What you may not look
    at (pods/exec, pods/portforward, pods/log, endpointslices, networkpolicies, secrets) is left out and named.

    \b
    Examples:
      kubectl pgweir doctor pooler-example-rw
      kubectl pgweir doctor pooler-example-rw --secret cluster-example-app   # or the one that your application has
      kubectl pgweir doctor pooler-example-rw --burst 5 --json
    """
    from pgweir_operator.cli.plugin.cluster import Where, run
    from pgweir_operator.cli.plugin.doctor import examine

    options = doctoring.options(tries, threshold, stuck, timeout, patience, burst, clients, as_json)
    raise typer.Exit(
        run(Where(namespace, context, kubeconfig), lambda cluster: examine(cluster, pooler, options, secret))
    )


def main() -> None:
    """The entry point `kubectl-pgweir`."""
    app(prog_name="kubectl pgweir")


def complete() -> None:
    """The entry point `kubectl_complete-pgweir`, which kubectl asks for words: names of commands, then nothing."""
    words = sys.argv[1:]
    if len(words) <= 1:
        known = [
            command.name or (command.callback.__name__ if command.callback else "")
            for command in app.registered_commands
        ]
        sys.stdout.write("".join(f"{name}\n" for name in known if name.startswith("".join(words))))
    sys.stdout.write(":4\n")  # cobra's directive: no file names


if __name__ == "__main__":
    main()
