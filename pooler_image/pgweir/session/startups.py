"""What a startup packet asks for, and what follows from that under one configuration.

PERF: compiled where that is possible (`pgweir.compiled`). Most clients say what others have said, so `Pooler.startups` keeps it
by the packet's bytes; `client_login` looks there, and asks here for those that are new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from pgweir.config import CONSOLE_DATABASE, Config
from pgweir.protocol import messages
from pgweir.protocol.startup import Startup, StartupParameters, StartupPlan, negotiate, split_parameters
from pgweir.session.database import Database
from pgweir.session.holder import PoolKey, pool_key
from pgweir.settings import DatabaseSettings

if TYPE_CHECKING:
    from pgweir.session.pooler import Pooler

MAX_KNOWN_STARTUPS: Final = 64  # startup packets that are kept
MAX_KNOWN_STARTUP: Final = 1024  # bytes of one

_READY: Final = messages.ready_for_query(b"I")
_TLS_VERIFIED: Final = ("verify-ca", "verify-full")
_TLS_REQUIRED: Final = ("require", *_TLS_VERIFIED)


class KnownStartup:
    """What a startup packet asks for, and what follows from that under one configuration."""

    __slots__ = (
        "application_name",
        "clients_of_database",
        "clients_of_user",
        "config",
        "database",
        "ending",
        "is_console",
        "is_logged",
        "is_replication",
        "key",
        "minor",
        "names_host",
        "needs_certificate",
        "needs_tls",
        "negotiation",
        "plan",
        "pool_key",
        "settings",
        "user",
        "variables",
    )

    def __init__(self, plan: StartupPlan, minor: int, negotiation: bytes) -> None:
        self.plan = plan
        self.user = plan.user
        self.database = plan.database
        self.is_console = plan.database == CONSOLE_DATABASE
        self.is_replication = bool(plan.replication)
        self.variables = plan.variables
        self.key = tuple(plan.variables.items())  # of the greeting
        self.application_name = plan.variables.get("application_name", "")
        self.minor = minor  # of the protocol, and what the client is told of that
        self.negotiation = negotiation
        self.config: Config | None = None  # that the rest is of
        self.needs_tls = self.needs_certificate = False
        self.names_host = False  # in application_name
        self.is_logged = False
        self.ending = _READY  # of the greeting
        self.clients_of_database = self.clients_of_user = 0  # limits; 0: none
        self.settings: DatabaseSettings | None = None  # of the database (they follow a RELOAD a moment later), that
        self.pool_key: PoolKey = ("", "", ())  # is of; it is of no replication client

    def follow(self, config: Config) -> None:
        """This configuration is new to it."""
        settings = config.settings
        self.config, self.settings = config, None
        self.needs_tls = settings.client_tls_sslmode in _TLS_REQUIRED
        self.needs_certificate = settings.client_tls_sslmode in _TLS_VERIFIED
        self.names_host = settings.application_name_add_host
        self.is_logged = settings.log_connections
        self.ending = _READY
        if settings.login_notify_message:
            self.ending = messages.notice_response("NOTICE", "00000", settings.login_notify_message) + _READY
        self.clients_of_database = config.max_db_client_connections(self.database)
        self.clients_of_user = config.max_user_client_connections(self.user)

    def find_pool(self, database: Database) -> None:
        self.settings = database.settings
        self.pool_key = pool_key(database.name, database.pool_user(self.user), self.plan.relayed)


def planned(pooler: Pooler, startup: Startup, packet: bytes) -> KnownStartup:
    """What is asked for. It is kept, when the packet came in one read.

    Never the end of one that came in two: its bytes may be what another client says, who is somebody else.
    """
    settings = pooler.settings
    plan = split_parameters(
        startup,
        pooler.tracker.names,
        settings.ignore_startup_parameters,
        cast(StartupParameters, settings.startup_parameters),
    )
    made = KnownStartup(plan, *negotiate(startup))
    if 0 < len(packet) <= MAX_KNOWN_STARTUP:
        if len(pooler.startups) >= MAX_KNOWN_STARTUPS:
            pooler.startups.clear()
        pooler.startups[packet] = made
    return made
