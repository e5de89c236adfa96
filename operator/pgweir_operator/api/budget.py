"""Counting server connections: what a Pooler's pods may open together, and each pod's share of a budget.

Pure arithmetic over a Pooler. validation.py rules with it, desired/ renders the share, status.py tells the sum, and
reconcile asks it whether more pods may start.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgweir.settings import SettingError, parse_value
from pgweir_operator.api.parameters import DATABASE_PARAMETERS, PARAMETERS, USER_PARAMETERS
from pgweir_operator.api.pooler import Pooler

HEADROOM: Final = 10
"""For everybody else: administrators, monitoring, replication, the pods' own look-ups. (pgpool's rule of thumb.)"""

NO_LIMIT: Final = math.inf


@dataclass(frozen=True, slots=True)
class TargetCapacity:
    """What PostgreSQL has room for."""

    max_connections: int
    reserved: int

    @property
    def usable(self) -> int:
        return self.max_connections - self.reserved


def surge(pooler: Pooler) -> int:
    """How many pods a rollout adds for a while. What cannot be read is for the API server to refuse."""
    strategy = pooler.spec.deployment_strategy
    if not strategy:
        return 1
    if strategy.get("type") == "Recreate":
        return 0
    rolling = strategy.get("rollingUpdate")
    given = rolling.get("maxSurge", "25%") if isinstance(rolling, Mapping) else "25%"
    if isinstance(given, int):
        return max(0, given)
    share = str(given).removesuffix("%")
    return math.ceil(pooler.spec.instances * int(share) / 100) if share.isascii() and share.isdigit() else 1


def pods_at_once(pooler: Pooler) -> int:
    """That are wanted at the most, in the middle of a rollout."""
    return max(1, pooler.spec.instances + surge(pooler))


def share(pooler: Pooler, pods: int) -> int | None:
    """A pod's part of the budget, `pods` being there now; None without a budget.

    Pods that are still on their way out count: what is theirs becomes the others' only when they are gone.
    """
    budget = pooler.spec.connection_budget
    return None if budget is None else max(1, budget // max(pods_at_once(pooler), pods))


@dataclass(frozen=True, slots=True)
class PerPod:
    """The most server connections that one pod may open, and how that comes about."""

    most: float
    because: str


def per_pod(pooler: Pooler) -> PerPod:
    """Without a budget. Where neither databases nor users are named, one of each is presumed."""
    limit = _number(PARAMETERS, pooler.spec.pgbouncer.parameters, "max_server_connections")
    sizes = _pool_sizes(pooler)
    databases = {database for database, _ in sizes}
    users = {user for _, user in sizes}
    by_database = sum(_capped(sizes, 0, database, _database_limit(pooler, database)) for database in databases)
    by_user = sum(_capped(sizes, 1, user, _user_limit(pooler, user)) for user in users)
    pools = min(by_database, by_user)
    if limit and limit <= pools:
        return PerPod(limit, f"max_server_connections is {limit:g}")
    presumed = "" if pooler.spec.pgbouncer.databases and pooler.spec.pgbouncer.users else ", as far as they are named"
    return PerPod(pools, f"{_plural(len(databases), 'database')}, {_plural(len(users), 'user')}{presumed}")


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _pool_sizes(pooler: Pooler) -> dict[tuple[str, str], float]:
    """Each pool that the spec makes likely: a database's own, or that of every named user."""
    bouncer = pooler.spec.pgbouncer
    of_users = {entry.name: entry.parameters for entry in bouncer.users} or {"": {}}
    of_databases = {entry.name: entry.parameters for entry in bouncer.databases}
    everybody = of_databases.pop("*", {})
    pools = {}
    for database, settings in (of_databases or {"": everybody}).items():
        forced = settings.get("user")
        for user in [forced] if forced else of_users:
            pools[database, user] = _pool_size(bouncer.parameters, settings, of_users.get(user, {}))
    return pools


def _pool_size(everywhere: Mapping[str, str], database: Mapping[str, str], user: Mapping[str, str]) -> float:
    size = _first(
        _number(USER_PARAMETERS, user, "pool_size"),
        _number(DATABASE_PARAMETERS, database, "pool_size"),
        _number(PARAMETERS, everywhere, "default_pool_size"),
    )
    reserve = _first(
        _number(USER_PARAMETERS, user, "reserve_pool_size"),
        _number(DATABASE_PARAMETERS, database, "reserve_pool_size"),
        _number(PARAMETERS, everywhere, "reserve_pool_size"),
    )
    return size + reserve if size else NO_LIMIT


def _database_limit(pooler: Pooler, database: str) -> float:
    own = {entry.name: entry.parameters for entry in pooler.spec.pgbouncer.databases}
    return _first(
        _number(DATABASE_PARAMETERS, own.get(database or "*", {}), "max_db_connections"),
        _number(PARAMETERS, pooler.spec.pgbouncer.parameters, "max_db_connections"),
    )


def _user_limit(pooler: Pooler, user: str) -> float:
    own = {entry.name: entry.parameters for entry in pooler.spec.pgbouncer.users}
    return _first(
        _number(USER_PARAMETERS, own.get(user, {}), "max_user_connections"),
        _number(PARAMETERS, pooler.spec.pgbouncer.parameters, "max_user_connections"),
    )


def _capped(sizes: Mapping[tuple[str, str], float], part: int, name: str, limit: float) -> float:
    total = sum(size for key, size in sizes.items() if key[part] == name)
    return min(total, limit) if limit else total


def _number(catalogue: Mapping[str, Any], given: Mapping[str, str], name: str) -> float | None:
    """The value that counts; None where an entry leaves it to the global setting."""
    info = catalogue[name]
    try:
        value = parse_value(info, given[name]) if name in given else info.default
    except SettingError:
        value = info.default  # validation.py has said so.
    return None if value is None else float(value)


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def over_share(servers_of_pods: Iterable[tuple[str, int | None]], most: int) -> list[str]:
    """The pods that have not come down to their share yet, in words; None: it has not said that it knows its share."""
    return [
        f"{pod} (its share is not acknowledged)" if servers is None else f"{pod} ({servers} servers, {most} are its)"
        for pod, servers in servers_of_pods
        if servers is None or servers > most
    ]
