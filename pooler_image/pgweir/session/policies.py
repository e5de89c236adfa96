"""From the configuration to what one pool may do: the only reader of precedence besides `config.effective` itself."""

from __future__ import annotations

from pgweir.config import Config
from pgweir.pool.policy import PoolPolicy
from pgweir.protocol.statements import split_statements


def pool_policy(config: Config, database: str, user: str) -> PoolPolicy:
    """The policy of the pool (database, user); `user` is the pool's user, which a forced user replaces."""
    settings = config.settings
    mode = config.pool_mode(database, user)
    settings_of_database = config.database(database)
    runs_reset = mode == "session" or settings.server_reset_query_always
    return PoolPolicy(
        mode=mode,
        size=config.pool_size(database, user),
        min_size=config.min_pool_size(database),
        min_size_always=settings_of_database is not None and settings_of_database.user == user,
        reserve_size=config.reserve_pool_size(database, user),
        reserve_timeout=settings.reserve_pool_timeout,
        max_db_connections=config.max_db_connections(database),
        max_user_connections=config.max_user_connections(user),
        max_server_connections=settings.max_server_connections,
        round_robin=settings.server_round_robin,
        lifetime=config.server_lifetime(database),
        idle_timeout=settings.server_idle_timeout,
        check_delay=settings.server_check_delay,
        check_query=_check_query(settings.server_check_query),
        reset_queries=split_statements(settings.server_reset_query) if runs_reset else (),
        login_retry=settings.server_login_retry,
        primary_only=config.target_session_attrs(database) == "primary",
        fast_close=settings.server_fast_close and mode == "session",
        connect_timeout=settings.server_connect_timeout,
        query_wait_timeout=config.query_wait_timeout(database, user),
        query_wait_notify=float(settings.query_wait_notify),
        query_timeout=config.query_timeout(user),
        idle_transaction_timeout=config.idle_transaction_timeout(user),
        transaction_timeout=config.transaction_timeout(user),
        client_idle_timeout=config.client_idle_timeout(user),
        client_idle_limit=settings.client_idle_limit,
    )


def _check_query(text: str) -> str:
    # SPEC: PgBouncer's server_check_query: "<empty>" sends an empty query, nothing at all switches the check off.
    return ";" if text.strip().lower() == "<empty>" else text
