"""The parts of a `Pooler` that a login comes by; `Pooler` makes them, and is one of these. `essentials` has those that each
transaction comes by.

PERF: compiled where that is possible (`pgweir.compiled`): then a login, which asks its pooler for some twenty of them, finds
each by its place and not by its name, and calls it directly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pgweir.session.essentials import Essentials

if TYPE_CHECKING:
    from pgweir.config import Config
    from pgweir.pool.stats import Timings
    from pgweir.protocol.reasons import CloseReason
    from pgweir.protocol.variables import Tracker
    from pgweir.session.cancels import Cancels
    from pgweir.session.client_login import ClientLogin
    from pgweir.session.credentials import ServerCredentials
    from pgweir.session.database import Database
    from pgweir.session.holder import PoolKey, SessionPool
    from pgweir.session.lookup import Lookups
    from pgweir.session.opening import Opening
    from pgweir.session.overflow import Overflow
    from pgweir.session.roster import Logins, Roster
    from pgweir.session.startups import KnownStartup
    from pgweir.session.turns import Turns
    from pgweir.session.wire import Edge, Wire
    from pgweir.settings import Settings


class Parts(Essentials):
    """Attributes, and nothing that is done with them."""

    __slots__ = (
        "accepting",
        "auth_failures",
        "cancels",
        "client_logins",
        "closed_counts",
        "config",
        "credentials",
        "databases",
        "edge",
        "logins",
        "lookups",
        "open_console",
        "opening",
        "overflow",
        "pools",
        "roster",
        "settings",
        "startups",
        "tracker",
        "turns",
    )

    edge: Edge
    config: Config
    settings: Settings
    tracker: Tracker
    databases: dict[str, Database]
    pools: dict[PoolKey, SessionPool]
    credentials: ServerCredentials
    opening: Opening
    roster: Roster
    logins: Logins
    startups: dict[bytes, KnownStartup]  # startup packets, and what they ask for under these settings
    turns: Turns
    cancels: Cancels
    lookups: Lookups
    overflow: Overflow
    accepting: bool  # False: new logins are refused (shutting down)
    closed_counts: dict[CloseReason, int]
    auth_failures: dict[str, int]  # by stage
    client_logins: Timings  # from the connection to the greeting
    open_console: Callable[[ClientLogin, Wire, bool], object] | None  # set by `lifecycle`
