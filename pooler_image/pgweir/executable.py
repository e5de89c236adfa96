"""`pgweir-pooler [options] pgbouncer.ini`: PgBouncer's command line, and a few options for life in a pod."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import pwd
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from pgweir import VERSION_LINE, log
from pgweir.admin.metrics import DEFAULT_PREFIX
from pgweir.bundle import Bundle, BundleError
from pgweir.bundle_store import BundleStore
from pgweir.config import Config, ConfigError, load
from pgweir.lifecycle import Options, Service, StartError
from pgweir.net.listener import ListenError
from pgweir.protocol.cancel_keys import derived_peer_id
from pgweir.settings import Settings

EPILOG = """\
signals: HUP reload · TERM drain, then exit · INT exit when no server is in use · QUIT exit at once ·
USR1 PAUSE · USR2 RESUME. Console: connect to the database `pgbouncer`, or run pgweir-console.
exit status: 0 stopped as asked, 1 could not start, 2 wrong command line."""


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point; exits with a status."""
    sys.exit(run(sys.argv[1:] if argv is None else list(argv)))


def run(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    options = Options(
        config_path=arguments.config,
        state_dir=arguments.state_dir,
        http_listen=arguments.http_listen,
        metrics_listen=arguments.metrics_listen,
        metrics_prefix=arguments.metrics_prefix,
        metrics_tls=arguments.metrics_tls,
        control_listen=arguments.control_listen,
        control_dir=arguments.control_dir,
        drain_accept_seconds=arguments.drain_accept_seconds,
        drain_seconds=arguments.drain_seconds,
        peers_host=arguments.peers_host,
        peers_address=arguments.peers_address,
    )
    if arguments.json_log:
        log.setup(Settings(), json=True)  # what loading has to say is a record, too
    try:
        _check_peers(options)
        config, bundle, store = _load(options)
        _settle_user(arguments.user or config.settings.user)
        _refuse_second_process(config.settings.pidfile)
        if arguments.daemon:
            _daemonize(config)
    except (ConfigError, BundleError, StartError) as error:
        if arguments.json_log:
            log.fatal(str(error))
        else:
            print(f"pgweir-pooler: {error}", file=sys.stderr)
        return 1
    log.setup(config.settings, json=arguments.json_log, quiet=arguments.quiet, verbosity=arguments.verbose)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(options, config, bundle, store))
    except (ConfigError, ListenError, StartError) as error:
        log.fatal(str(error))
        return 1
    return 0


async def _serve(options: Options, config: Config, bundle: Bundle | None, store: BundleStore | None) -> None:
    await Service(options, config, bundle, store).run()


def _load(options: Options) -> tuple[Config, Bundle | None, BundleStore | None]:
    if options.state_dir is None:
        return load(options.config_path), None, None
    store = BundleStore(mounted=options.config_path.parent, state_dir=options.state_dir)
    bundle, config = store.best()
    return config, bundle, store


def _settle_user(name: str | None) -> None:
    """Become the Unix user that was named. Nobody becomes root by accident."""
    if os.geteuid() != 0:
        return
    if name is None:
        raise StartError("will not run as root: name a user with -u USER or user = USER (-u root, if you mean it)")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise StartError(f"user = {name!r}: there is no such Unix user") from None
    if entry.pw_uid == 0:
        return
    os.initgroups(name, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _refuse_second_process(pidfile: str) -> None:
    path = Path(pidfile)
    if not pidfile or not path.exists():
        return
    try:
        pid = int(path.read_text())
        if pid == os.getpid():  # in a container every start may get the same
            return
        os.kill(pid, 0)
    except (ValueError, ProcessLookupError):
        return  # stale
    except PermissionError:
        pass
    raise StartError(f"pidfile = {pidfile!r}: process {path.read_text().strip()} is running")


def _check_peers(options: Options) -> None:
    if not options.peers_host:
        return
    try:
        derived_peer_id(options.peers_address)
    except ValueError:
        raise StartError(
            f"--peers-host needs --peers-address, the IP address of this pod; not {options.peers_address!r}"
        ) from None


def _daemonize(config: Config) -> None:
    if not config.settings.pidfile:
        raise StartError("-d needs a pidfile: set pidfile = PATH")
    if not (config.settings.logfile or config.settings.syslog):
        raise StartError("-d needs a place for the log: set logfile = PATH")
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pgweir-pooler",
        description="A PostgreSQL connection pooler that reads PgBouncer's configuration.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="pgbouncer.ini", help="the configuration file")
    parser.add_argument("-d", "--daemon", action="store_true", help="run in the background (needs pidfile and logfile)")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not log to stderr")
    parser.add_argument("-R", "--reboot", action=_Refused, help="not supported: use so_reuseport and SIGTERM instead")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="more log; may be repeated")
    parser.add_argument("-u", "--user", metavar="USER", help="Unix user to become when started as root")
    parser.add_argument("-V", "--version", action="version", version=VERSION_LINE)
    _add_pod_options(parser)
    return parser


def _add_pod_options(parser: argparse.ArgumentParser) -> None:
    """Each of them may also come as a variable: PGWEIR_PEERS_HOST is --peers-host.

    WHY: a flag that a process does not know ends it, a variable does not. The operator gives what came after its first
    version as variables alone, so that pods of an older image start (operator: desired/deployment.py).
    """
    group = parser.add_argument_group(
        "in a pod (each may be given as a variable, too: PGWEIR_STATE_DIR for --state-dir)"
    )

    def option(name: str, **keywords: Any) -> None:
        given = os.environ.get("PGWEIR_" + name.removeprefix("--").replace("-", "_").upper())
        if given is not None:
            keywords["default"] = given not in ("", "0") if keywords.get("action") == "store_true" else given
        group.add_argument(name, **keywords)

    option("--json-log", action="store_true", help="log JSON lines to stdout")
    option("--state-dir", type=Path, metavar="DIR", help="keep the last accepted configuration bundle here")
    option("--http-listen", metavar="ADDR:PORT", help="serve /livez and /readyz (`*:8080`: every address)")
    option("--metrics-listen", metavar="ADDR:PORT", help="serve /metrics for Prometheus")
    option(
        "--metrics-prefix",
        type=_metrics_prefix,
        default=DEFAULT_PREFIX,
        metavar="NAME",
        help="what the metrics of PgBouncer's numbers begin with (cnpg_pgbouncer: CloudNativePG's; default %(default)s)",
    )
    option(
        "--metrics-tls",
        action="store_true",
        help="serve /metrics over TLS 1.3 alone, with the certificate of client_tls_cert_file",
    )
    option("--control-listen", metavar="ADDR:PORT", help="serve the operator's control endpoint (mutual TLS)")
    option("--control-dir", type=Path, metavar="DIR", help="ca.crt, tls.crt and tls.key of the control endpoint")
    option(
        "--drain-accept-seconds",
        type=_seconds,
        default=0.0,
        metavar="N",
        help="after SIGTERM, still accept for N seconds",
    )
    option(
        "--drain-seconds", type=_seconds, metavar="N", help="then give clients N seconds (absent: as long as they like)"
    )
    option("--peers-host", metavar="NAME", help="the pods that cancel requests may be for (a headless Service)")
    option("--peers-address", default="", metavar="ADDR", help="this pod's own address among them")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write seconds, such as 30 or 0.5")
    return seconds


def _metrics_prefix(text: str) -> str:
    prefix = text.removesuffix("_")
    if not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", prefix):
        raise argparse.ArgumentTypeError(f"{text!r} begins no metric's name: write letters, digits and _")
    return prefix


class _Refused(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, **keywords: object) -> None:
        super().__init__(option_strings, dest, nargs=0, help=str(keywords.get("help")))

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error("-R is not supported: run two processes with so_reuseport = 1 and stop the old one with SIGTERM")


if __name__ == "__main__":
    main()
