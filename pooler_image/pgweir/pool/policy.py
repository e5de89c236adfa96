"""What one pool is allowed, resolved once from the configuration (user over database over global; facts of `config`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class PoolPolicy:
    """The settings that govern one pool. Durations are seconds; 0 switches a timeout off unless said otherwise."""

    mode: str = "session"  # session, transaction or statement
    single_use: bool = False  # a server serves one client and is closed with it (replication)
    size: int = 20  # pool_size; 0: no limit
    min_size: int = 0
    min_size_always: bool = False  # kept without clients, too: the pool of a forced user
    reserve_size: int = 0
    reserve_timeout: float = 5.0
    max_db_connections: int = 0
    max_user_connections: int = 0
    max_server_connections: int = 0  # over all pools
    round_robin: bool = False
    lifetime: float = 3600.0  # 0: a server is used once
    idle_timeout: float = 600.0
    check_delay: float = 30.0
    check_query: str = ""  # "": no check; ";" is an empty query
    reset_queries: tuple[str, ...] = ()  # in their order; already empty where the mode does not run them
    login_retry: float = 15.0
    primary_only: bool = False  # target_session_attrs
    fast_close: bool = False  # server_fast_close, where a session keeps its server
    connect_timeout: float = 15.0
    query_wait_timeout: float = 120.0
    query_wait_notify: float = 5.0
    query_timeout: float = 0.0
    idle_transaction_timeout: float = 0.0
    transaction_timeout: float = 0.0
    client_idle_timeout: float = 0.0
    client_idle_limit: float = 0.0  # also for clients that hold a server

    @cached_property
    def hands_over(self) -> bool:
        """A server that is given back needs neither reset nor check before its next use."""
        return not (self.reset_queries or self.single_use or (self.check_query and self.check_delay == 0))
