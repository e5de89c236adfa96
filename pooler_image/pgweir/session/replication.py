"""Replication connections: what a client with the `replication` parameter gets instead of a place in an ordinary pool.

Its server is opened with the client's own startup parameters, serves it alone for as long as it stays, and is closed with it. In
the book it stands in a pool of its own kind, (database, user, those parameters), so that limits, SHOW and PAUSE need no second
set of rules. Nothing here is on the way of an ordinary client.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pgweir.config import Config
from pgweir.pool.policy import PoolPolicy
from pgweir.protocol.startup import Replication, StartupPlan, application_name_with_host
from pgweir.session.policies import pool_policy

_PARAMETER: Final = "replication"  # also what tells such a pool; startup_parameters=relay never relays that one


def server_parameters(plan: StartupPlan, peer: str | None) -> dict[str, str]:
    """The startup parameters of this client's server beyond user and database; `peer`: for application_name_add_host."""
    if not plan.replication:
        return plan.relayed
    wanted = {**plan.variables, **plan.relayed}
    if plan.application_name is not None:
        wanted["application_name"] = plan.application_name
    if peer is not None:
        wanted["application_name"] = application_name_with_host(plan.application_name, peer)
    if plan.options_verbatim is not None:
        wanted["options"] = plan.options_verbatim
    wanted[_PARAMETER] = "database" if plan.replication is Replication.LOGICAL else "true"
    return wanted


def kind_of(parameters: tuple[tuple[str, str], ...]) -> Replication:
    """Whether servers with these startup parameters replicate, and how."""
    value = dict(parameters).get(_PARAMETER)
    if value is None:
        return Replication.NONE
    return Replication.LOGICAL if value == "database" else Replication.PHYSICAL


def word(parameters: tuple[tuple[str, str], ...]) -> str:
    """The same as SHOW CLIENTS and SHOW SERVERS print it."""
    return kind_of(parameters).value or "none"


def policy_for(config: Config, database: str, user: str, parameters: tuple[tuple[str, str], ...]) -> PoolPolicy:
    """The policy of this pool, ordinary or not.

    A walsender streams for days, so no timeout of queries and transactions fits; and in physical replication it knows no SQL, so
    it is neither checked nor reset.
    """
    policy = pool_policy(config, database, user)
    if not kind_of(parameters):
        return policy
    return replace(
        policy,
        mode="session",
        single_use=True,
        min_size=0,
        check_query="",
        query_timeout=0.0,
        transaction_timeout=0.0,
        idle_transaction_timeout=0.0,
    )
