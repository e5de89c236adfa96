"""The integration, done: look, decide (`sql`), run, and prove it by a login as the auth role; or take it all back.

Every function opens its connections and closes them; none keeps state. Failures are PrerequisiteErrors. Called by
reconcile.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import psycopg

from pgweir_operator.api.budget import TargetCapacity
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.integration import psql, scram, sql
from pgweir_operator.integration.login import Connection, Credentials, Endpoint, explained, session
from pgweir_operator.integration.psql import Shell

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holder:
    """Another Pooler that has the role's password. `where`: its own target, as the operator reaches it; None: it may be
    shared with this Pooler as it is."""

    name: str
    password: str = field(repr=False)
    where: Endpoint | None = None


FindHolders = Callable[[str], Awaitable[Sequence[Holder]]]
"""Of a verifier that PostgreSQL has: who has its password."""


Announce = Callable[[], Awaitable[None]]
"""Called before the first thing is made, so that whoever is to take it back knows of it. Raises where it is not to be made."""


async def nobody(verifier: str) -> Sequence[Holder]:
    return ()


async def nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class ProvisionSpec:
    """Whom to provision, where, and how that role will log in (a password; None: by certificate)."""

    role: str
    database: str = "postgres"
    password: str | None = None
    holders: FindHolders = field(default=nobody, compare=False)
    announce: Announce = field(default=nothing, compare=False)
    may_seize: bool = True
    """Whether a password that nobody known here has set is replaced."""

    def __repr__(self) -> str:
        return f"<ProvisionSpec {self.role} in {self.database}>"


@dataclass(frozen=True, slots=True)
class Made:
    """What had to be done, without any secret, and the password that the role has now. `seized`: it had one that nobody
    known here has set."""

    statements: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)
    seized: bool = False


class InUseError(Exception):
    """Other Poolers log in as the role, by a name for PostgreSQL that is not ours."""


Administrator = Credentials | Shell
"""Whoever provisions: a superuser who logs in over the network, or psql beside PostgreSQL."""


class Session(Protocol):
    """A superuser's connection to one database, whichever way it came about. Raises psycopg.Error."""

    user: str

    async def rows(self, query: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]: ...
    async def run(self, statement: str) -> None: ...
    def transaction(self) -> AbstractAsyncContextManager[object]: ...


class _Direct:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.user = connection.info.user

    async def rows(self, query: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        return await (await self._connection.execute(query.encode(), parameters)).fetchall()

    async def run(self, statement: str) -> None:
        # As bytes, without parameters: a percent sign or $1 inside a function body is nobody's placeholder.
        await self._connection.execute(statement.encode())

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return self._connection.transaction()


@contextlib.asynccontextmanager
async def _opened(endpoint: Endpoint, admin: Administrator, database: str) -> AsyncIterator[Session]:
    if isinstance(admin, Shell):
        async with psql.session(admin, database) as in_pod:
            yield in_pod
    else:
        async with session(endpoint, admin, database) as connection:
            yield _Direct(connection)


def _explained(error: psycopg.Error, endpoint: Endpoint, admin: Administrator) -> PrerequisiteError:
    if isinstance(admin, Shell):
        advice = "Its pg_hba.conf needs a line like `local all postgres peer`"
        return explained(error, admin, admin.user, advice=advice)
    return explained(error, endpoint, admin.user)


async def prove_administrator(endpoint: Endpoint, admin: Administrator, role: str) -> None:
    """Raises a PrerequisiteError where this is nobody who could provision there, or where it cannot be known now."""
    spec = ProvisionSpec(role)
    try:
        async with _opened(endpoint, admin, spec.database) as connection:
            await _facts(connection, spec)
    except psycopg.Error as error:
        raise _explained(error, endpoint, admin) from None


async def provision(endpoint: Endpoint, admin: Administrator, spec: ProvisionSpec) -> Made:
    """Bring role, grants and function to what we want.

    A password that another Pooler has set stays, and is ours too where we prove to be an administrator of theirs: one
    PostgreSQL has many names, and two Poolers that call it differently would set it in turns.
    """
    try:
        async with _opened(endpoint, admin, spec.database) as connection:
            found = await _look(connection, endpoint, admin, spec)
            if not found.statements:
                return found
            async with connection.transaction():
                # Two Poolers of one cluster provision the same objects: the second looks again after the first.
                await connection.run(sql.LOCK)
                found = await _look(connection, endpoint, admin, spec)
                if found.statements:
                    await spec.announce()
                for statement in found.statements:
                    await connection.run(statement)
    except psycopg.Error as error:
        raise _explained(error, endpoint, admin) from None
    done = tuple(statement.split(" PASSWORD ")[0] for statement in found.statements)
    for statement in done:
        logger.info("provisioned at %s: %s", endpoint, " ".join(statement.split())[:120])
    return replace(found, statements=done)


async def _look(connection: Session, endpoint: Endpoint, admin: Administrator, spec: ProvisionSpec) -> Made:
    """What is to be done, with the secrets."""
    facts, stored = await _facts(connection, spec)
    password, seized = spec.password, False
    if stored is not None and facts.role_ours and not facts.secret_as_wanted:
        shared = await _shared(stored, endpoint, admin, spec)
        if shared is not None or (password is None and not spec.may_seize):
            password = password and shared
            facts = replace(facts, secret_as_wanted=True)
        elif spec.may_seize:
            seized = True
        else:
            raise PrerequisiteError(
                Reason.NOT_OWNED,
                f"Somebody else keeps giving role {spec.role} another password: another operator, or a person. It is"
                f" left as it is. Run ALTER ROLE {sql.identifier(spec.role)} PASSWORD NULL once it is this Pooler's"
                " alone; else give this Pooler a role of its own (pgbouncer.authQuery with authQuerySecret).",
                retry_after=60.0,
            )
    verifier = None if password is None else scram.verifier(password)
    statements = sql.provisioning(facts, role=spec.role, database=spec.database, verifier=verifier)
    return Made(statements, password, seized)


async def _shared(stored: str, endpoint: Endpoint, admin: Administrator, spec: ProvisionSpec) -> str | None:
    """The password of a Pooler that has set it, where this one may know it. (Who needs none, need not know it.)

    WHY a proof at their PostgreSQL, too: ours may be one that we made up, with a verifier that was seen somewhere.
    """
    for holder in await spec.holders(stored):
        is_near = holder.where is None or (holder.where.host, holder.where.port) == (endpoint.host, endpoint.port)
        if spec.password is None or is_near or await _administers(holder, admin, spec.role):
            return holder.password
    return None


async def _administers(holder: Holder, admin: Administrator, role: str) -> bool:
    if isinstance(admin, Shell) or holder.where is None:
        return False  # Whoever is beside our PostgreSQL has nothing to show to theirs.
    try:
        await prove_administrator(holder.where, admin, role)
    except PrerequisiteError as error:
        logger.info("the password of %s is not shared: %s", holder.name, error.message)
        return False
    return True


_CAPACITY = """
SELECT pg_catalog.current_setting('max_connections')::int AS most,
  pg_catalog.current_setting('superuser_reserved_connections')::int
  + coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0) AS reserved
"""


async def check_login(endpoint: Endpoint, login: Credentials, *, query: str, database: str) -> TargetCapacity | None:
    """Log in as the auth role and look itself up, as a pod will; raises where that does not work.

    Answers what PostgreSQL has room for.
    """
    try:
        async with session(endpoint, login, database) as connection:
            cursor = await connection.execute(query.replace("%", "%%").replace("$1", "%(name)s"), {"name": login.user})
            row = await cursor.fetchone()
            room = await (await connection.execute(_CAPACITY)).fetchone()
    except psycopg.Error as error:
        trouble = explained(error, endpoint, login.user)
        if trouble.reason is Reason.TARGET_UNAVAILABLE:
            raise trouble from None
        way = "its certificate" if login.certificate else "its password" if login.password else "no secret"
        raise PrerequisiteError(
            Reason.LOOKUP_FAILED,
            f"{login.user} with {way} cannot look users up at {endpoint}: {_first_words(error)}.",
            retry_after=15.0,
        ) from None
    if row is None:
        raise PrerequisiteError(
            Reason.LOOKUP_FAILED,
            f"The lookup at {endpoint} does not find {login.user} itself: check the query {query!r}.",
            retry_after=30.0,
        )
    return TargetCapacity(room["most"], room["reserved"]) if room else None


async def capacity(endpoint: Endpoint, login: Credentials, database: str) -> TargetCapacity | None:
    """What PostgreSQL has room for, asked as whoever may log in: every role may know it."""
    try:
        async with session(endpoint, login, database) as connection:
            room = await (await connection.execute(_CAPACITY)).fetchone()
    except psycopg.Error as error:
        raise explained(error, endpoint, login.user, advice="Check the Secret that the Pooler names") from None
    return TargetCapacity(room["most"], room["reserved"]) if room else None


async def withdraw(endpoint: Endpoint, admin: Administrator, spec: ProvisionSpec) -> tuple[str, ...]:
    """Take back what says it is ours: function, schema, and the role with its grants in every database.

    The caller has made sure that no other Pooler of this target needs it; one that calls it by another name is known by
    its password (InUseError). Answers what remains, each with its reason: what somebody
    else built on it is theirs, and stays.
    """
    remains: list[str] = []
    try:
        async with _opened(endpoint, admin, spec.database) as connection:
            # Held until the connection ends: the last two Poolers of a cluster may go at the same moment.
            await connection.run(sql.SESSION_LOCK)
            facts, stored = await _facts(connection, spec)
            if facts.is_standby:
                raise PrerequisiteError(
                    Reason.TARGET_UNAVAILABLE, f"{endpoint} is a standby: nothing can be removed there."
                )
            if stored is not None and (holders := await spec.holders(stored)):
                raise InUseError(", ".join(holder.name for holder in holders))
            for statement in sql.withdrawal(facts, role=spec.role):
                try:
                    await connection.run(statement)
                except psycopg.errors.DependentObjectsStillExist as error:
                    remains.append(f"{statement}: {_dependents(error)}")
            if facts.role_exists and facts.role_ours:
                remains += await _drop_role(endpoint, admin, connection, spec.role)
    except psycopg.Error as error:
        raise _explained(error, endpoint, admin) from None
    logger.info("withdrawn at %s: role %s and its lookup; remains: %s", endpoint, spec.role, remains or "nothing")
    return tuple(remains)


_OWNED = """
SELECT pg_catalog.count(*) AS owned FROM pg_catalog.pg_shdepend
WHERE refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND deptype = 'o'
  AND refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %(role)s)
"""

_DATABASES_WITH_GRANTS = """
SELECT DISTINCT d.datname FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_database d
  ON d.oid = s.dbid OR (s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND d.oid = s.objid)
WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.datallowconn
  AND s.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %(role)s)
ORDER BY 1
"""


async def _drop_role(endpoint: Endpoint, admin: Administrator, connection: Session, role: str) -> list[str]:
    """Revoke what the role was granted in every database, then drop it. A role that owns something stays."""
    name = sql.identifier(role)
    if owned := await _owned(connection, role):
        return [f"role {role}: it owns {owned} object(s) that pgweir did not make"]
    for row in await connection.rows(_DATABASES_WITH_GRANTS, {"role": role}):
        async with _opened(endpoint, admin, row["datname"]) as there, there.transaction():
            # DROP OWNED is PostgreSQL's way to revoke everything granted here. The role owns nothing: looked at again,
            # in the same transaction.
            if owned := await _owned(there, role):
                return [f"role {role}: it owns {owned} object(s) that pgweir did not make"]
            await there.run(f"DROP OWNED BY {name}")
    try:
        await connection.run(f"DROP ROLE {name}")
    except psycopg.errors.DependentObjectsStillExist as error:
        return [f"role {role}: {_dependents(error)}"]
    return []


async def _owned(connection: Session, role: str) -> int:
    [row] = await connection.rows(_OWNED, {"role": role})
    return int(row["owned"])


def _dependents(error: psycopg.Error) -> str:
    return error.diag.message_detail or error.diag.message_primary or str(error)


async def _facts(connection: Session, spec: ProvisionSpec) -> tuple[sql.Facts, str | None]:
    """With the verifier that the role has."""
    [row] = await connection.rows(sql.FACTS, sql.parameters(spec.role))
    if not row.pop("is_superuser"):
        raise PrerequisiteError(
            Reason.NO_ADMIN_ACCESS,
            f"{connection.user} is no superuser, and the lookup reads pg_authid: name one in the Secret.",
            retry_after=60.0,
        )
    stored = row.pop("role_secret")
    wanted = stored is None if spec.password is None else scram.matches(spec.password, stored)
    known = {item.name for item in fields(sql.Facts)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in row.items() if key in known
    }
    return sql.Facts(**values, is_superuser=True, secret_as_wanted=wanted), stored


def _first_words(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
