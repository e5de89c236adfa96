"""The SQL of the integration, decided from what was found. Touches nothing.

One row of facts per database comes in (`FACTS`), the statements that bring it to what we want go out: none when nothing
has drifted, so that a periodic check leaves no trace in the target's catalogues. What is ours says so in its COMMENT;
what does not say so is never altered and never dropped. Called by `provisioning`; `manual` also by reconcile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgweir_operator.api import names
from pgweir_operator.api.conditions import PrerequisiteError, Reason

SCHEMA = "pgweir"
FUNCTION = "user_search"
SIGNATURE = f"{SCHEMA}.{FUNCTION}(text)"
OWNERSHIP = "Managed by pgweir.io: provisioned for connection poolers, removed with the last of them."

# SPEC: VALID UNTIL must hold for a pooled login too (CVE-2025-2291): an expired role keeps its row and loses its
# secret, so that the pooler can tell "expired" from "unknown".
FUNCTION_BODY = """
  SELECT a.rolname,
         CASE WHEN a.rolvaliduntil <= pg_catalog.clock_timestamp() THEN NULL ELSE a.rolpassword END
  FROM pg_catalog.pg_authid AS a
  WHERE a.rolname OPERATOR(pg_catalog.=) $1 AND a.rolcanlogin
"""
# WHY pg_temp is named, and last: unnamed it would be searched first, and anybody may create objects in it.
SEARCH_PATH = "search_path=pg_catalog, pg_temp"

LOCK = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('pgweir.io/provisioning', 0))"
SESSION_LOCK = LOCK.replace("_xact_", "_")

# ruff: noqa: S608 (only our own constants are put together here; what comes from outside is a parameter or quoted)
FACTS = f"""
SELECT pg_catalog.pg_is_in_recovery() AS is_standby,
       (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS is_superuser,
       r.oid IS NOT NULL AS role_exists,
       pg_catalog.shobj_description(r.oid, 'pg_authid') IS NOT DISTINCT FROM %(ownership)s AS role_ours,
       coalesce(r.rolcanlogin, false) AS role_can_login,
       coalesce(r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls
                OR r.rolvaliduntil < 'infinity' OR r.rolconnlimit <> -1, false) AS role_too_much,
       (SELECT a.rolpassword FROM pg_catalog.pg_authid a WHERE a.oid = r.oid AND
          pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')) AS role_secret,
       EXISTS (SELECT FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) x
               WHERE d.datname = current_database() AND x.grantee = r.oid AND x.privilege_type = 'CONNECT')
         AS connect_granted,
       coalesce(pg_catalog.has_database_privilege(r.oid, current_database(), 'CONNECT'), false) AS may_connect,
       n.oid IS NOT NULL AS schema_exists,
       pg_catalog.obj_description(n.oid, 'pg_namespace') IS NOT DISTINCT FROM %(ownership)s AS schema_ours,
       coalesce((SELECT o.rolsuper FROM pg_catalog.pg_roles o WHERE o.oid = n.nspowner), false) AS schema_owner_trusted,
       coalesce((SELECT pg_catalog.array_agg(g.rolname || ':' || x.privilege_type ORDER BY 1)
                 FROM pg_catalog.aclexplode(n.nspacl) x JOIN pg_catalog.pg_roles g ON g.oid = x.grantee
                 WHERE x.grantee <> n.nspowner AND NOT (g.rolname = %(other)s AND x.privilege_type = 'USAGE')),
                '{{}}') AS schema_grants,
       EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) x WHERE x.grantee = 0) AS schema_public,
       EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) x JOIN pg_catalog.pg_roles g ON g.oid = x.grantee
               WHERE g.rolname = %(other)s AND x.privilege_type = 'EXECUTE') AS other_role_uses_it,
       p.oid IS NOT NULL AS function_exists,
       pg_catalog.obj_description(p.oid, 'pg_proc') IS NOT DISTINCT FROM %(ownership)s AS function_ours,
       coalesce(p.prosecdef AND p.prosrc = %(body)s AND p.proconfig = ARRAY[%(search_path)s]
                AND p.prolang = (SELECT l.oid FROM pg_catalog.pg_language l WHERE l.lanname = 'sql')
                AND pg_catalog.pg_get_function_result(p.oid) = 'TABLE(usename name, passwd text)', false)
         AS function_as_wanted,
       coalesce((SELECT o.rolsuper FROM pg_catalog.pg_roles o WHERE o.oid = p.proowner), false)
         AS function_owner_trusted,
       coalesce((SELECT pg_catalog.array_agg(coalesce(g.rolname, 'public') || ':' || x.privilege_type ORDER BY 1)
                 FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) x
                 LEFT JOIN pg_catalog.pg_roles g ON g.oid = x.grantee
                 WHERE x.grantee <> p.proowner AND
                   (g.rolname = %(other)s AND x.privilege_type = 'EXECUTE') IS NOT TRUE), '{{}}') AS function_grants
FROM (VALUES (1)) AS one (row)
LEFT JOIN pg_catalog.pg_roles r ON r.rolname = %(role)s
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = '{SCHEMA}'
LEFT JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid AND p.proname = '{FUNCTION}'
     AND p.proargtypes::text = 'text'::pg_catalog.regtype::pg_catalog.oid::text
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """One row of FACTS: what the target has of what we want. `role_secret` is a verifier, never shown."""

    is_standby: bool
    is_superuser: bool
    role_exists: bool
    role_ours: bool
    role_can_login: bool
    role_too_much: bool
    connect_granted: bool
    may_connect: bool
    """By whatever grant: PUBLIC's, a group's, its own."""
    schema_exists: bool
    schema_ours: bool
    schema_owner_trusted: bool
    schema_grants: tuple[str, ...]
    schema_public: bool
    other_role_uses_it: bool
    """A Pooler that knows this PostgreSQL as something else (CloudNativePG's cluster, a plain target) logs in as the other
    of the two roles. What it was granted is not ours to judge."""
    function_exists: bool
    function_ours: bool
    function_as_wanted: bool
    function_owner_trusted: bool
    function_grants: tuple[str, ...]
    secret_as_wanted: bool
    """The role's verifier is of the password we hold; or we hold none, and it has none, or one that others need."""


def parameters(role: str) -> dict[str, str]:
    """What FACTS wants beside it."""
    return {
        "role": role,
        "other": _other(role),
        "ownership": OWNERSHIP,
        "body": FUNCTION_BODY,
        "search_path": SEARCH_PATH,
    }


def _other(role: str) -> str:
    return names.AUTH_ROLE if role == names.AUTH_ROLE_CLOUDNATIVEPG else names.AUTH_ROLE_CLOUDNATIVEPG


def provisioning(facts: Facts, *, role: str, database: str, verifier: str | None) -> tuple[str, ...]:
    """What to run, in order. Raises where something in the way is not ours to change."""
    if facts.is_standby:
        raise PrerequisiteError(
            Reason.TARGET_UNAVAILABLE,
            "The target is a standby: role and lookup function can be made on the primary only. They arrive here by"
            " replication once the primary has them.",
        )
    return (*_role(facts, role, verifier), *_connect(facts, role, database), *_function(facts, role))


def _role(facts: Facts, role: str, verifier: str | None) -> tuple[str, ...]:
    name = identifier(role)
    secret = f"PASSWORD {literal(verifier)}" if verifier else "PASSWORD NULL"
    if not facts.role_exists:
        return (f"CREATE ROLE {name} LOGIN {secret}", f"COMMENT ON ROLE {name} IS {literal(OWNERSHIP)}")
    if not facts.role_ours:
        if not facts.role_can_login:
            raise PrerequisiteError(
                Reason.NOT_OWNED,
                f"Role {role} exists without LOGIN and was not made by pgweir: run ALTER ROLE {name} LOGIN, or drop it"
                " and it will be made.",
            )
        if verifier and not facts.secret_as_wanted:
            raise PrerequisiteError(
                Reason.NOT_OWNED,
                f"Role {role} exists and was not made by pgweir, so its password is not changed. Drop the role, or"
                " offer the cluster's ca.key so that the pooler logs in with a certificate, or bring authQuerySecret.",
            )
        return ()
    if not facts.role_can_login or facts.role_too_much or not facts.secret_as_wanted:
        altered = (
            f"ALTER ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
            " CONNECTION LIMIT -1 VALID UNTIL 'infinity'"
        )
        return (altered if facts.secret_as_wanted else f"{altered} {secret}",)
    return ()


def _connect(facts: Facts, role: str, database: str) -> tuple[str, ...]:
    # WHY less for a role of somebody else: a grant to it cannot be told from its owner's own, and so is never revoked.
    if facts.connect_granted or (facts.role_exists and not facts.role_ours and facts.may_connect):
        return ()
    return (f"GRANT CONNECT ON DATABASE {identifier(database)} TO {identifier(role)}",)


def _function(facts: Facts, role: str) -> tuple[str, ...]:
    name = identifier(role)
    if facts.schema_exists and not facts.schema_ours:
        raise PrerequisiteError(
            Reason.NOT_OWNED,
            f"Schema {SCHEMA} exists and was not made by pgweir: whoever owns it could replace the lookup function."
            " Rename or drop it.",
        )
    if facts.function_exists and not facts.function_ours:
        raise PrerequisiteError(
            Reason.NOT_OWNED, f"Function {SIGNATURE} exists and was not made by pgweir: rename or drop it."
        )
    result: list[str] = []
    if not facts.schema_exists:
        result += [f"CREATE SCHEMA {SCHEMA}", f"COMMENT ON SCHEMA {SCHEMA} IS {literal(OWNERSHIP)}"]
    elif not facts.schema_owner_trusted:
        result.append(f"ALTER SCHEMA {SCHEMA} OWNER TO CURRENT_USER")
    if facts.schema_public:
        result.append(f"REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC")
    for holder in sorted({grant.rpartition(":")[0] for grant in facts.schema_grants if grant != f"{role}:USAGE"}):
        result.append(f"REVOKE ALL ON SCHEMA {SCHEMA} FROM {identifier(holder)}")
    if set(facts.schema_grants) != {f"{role}:USAGE"}:
        result.append(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name}")
    fresh = not (facts.function_exists and facts.function_as_wanted and facts.function_owner_trusted)
    if fresh:
        # WHY dropped first: CREATE OR REPLACE keeps a foreign owner and its grants, and cannot change the result type.
        if facts.function_exists:
            result.append(f"DROP FUNCTION {SIGNATURE}")
        result += [
            f"CREATE FUNCTION {SCHEMA}.{FUNCTION}(uname text) RETURNS TABLE (usename name, passwd text)"
            f" LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {literal(FUNCTION_BODY)}",
            f"COMMENT ON FUNCTION {SIGNATURE} IS {literal(OWNERSHIP)}",
        ]
    wanted = {f"{role}:EXECUTE"}
    if fresh or set(facts.function_grants) != wanted:
        result.append(f"REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC")
        for holder in sorted({grant.rpartition(":")[0] for grant in facts.function_grants} - {role, "public"}):
            result.append(f"REVOKE ALL ON FUNCTION {SIGNATURE} FROM {identifier(holder)}")
        result.append(f"GRANT EXECUTE ON FUNCTION {SIGNATURE} TO {name}")
    if fresh and facts.other_role_uses_it:
        result.append(f"GRANT EXECUTE ON FUNCTION {SIGNATURE} TO {identifier(_other(role))}")
    return tuple(result)


def withdrawal(facts: Facts, *, role: str) -> tuple[str, ...]:
    """What takes the lookup back in the database that has it: our function and our schema, with the grants on them."""
    result: list[str] = []
    if facts.other_role_uses_it:
        if facts.function_ours and facts.function_grants:
            result.append(f"REVOKE ALL ON FUNCTION {SIGNATURE} FROM {identifier(role)}")
        if facts.schema_ours and facts.schema_grants:
            result.append(f"REVOKE ALL ON SCHEMA {SCHEMA} FROM {identifier(role)}")
        return tuple(result)
    if facts.function_exists and facts.function_ours:
        result.append(f"DROP FUNCTION {SIGNATURE}")
    if facts.schema_exists and facts.schema_ours:
        # No CASCADE: what somebody else put into the schema keeps it, and PostgreSQL says so.
        result.append(f"DROP SCHEMA {SCHEMA}")
    return tuple(result)


def manual(role: str, databases: Sequence[str]) -> str:
    """The same by hand, for a Pooler with secrets of its own: what the condition's message tells a person to run."""
    name = identifier(role)
    body = "\n".join(line for line in FUNCTION_BODY.strip("\n").splitlines())
    blocks = [f"CREATE ROLE {name} LOGIN;"]
    blocks += [f"GRANT CONNECT ON DATABASE {identifier(database)} TO {name};" for database in databases]
    blocks.append(
        f"-- in each database where auth_query runs (auth_dbname, by default {databases[0]}):\n"
        f"CREATE SCHEMA {SCHEMA};\n"
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name};\n"
        f"CREATE FUNCTION {SCHEMA}.{FUNCTION}(uname text) RETURNS TABLE (usename name, passwd text)\n"
        f"  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$\n{body}\n$$;\n"
        f"REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC;\n"
        f"GRANT EXECUTE ON FUNCTION {SIGNATURE} TO {name};"
    )
    return "\n".join(blocks)


def identifier(name: str) -> str:
    """A quoted identifier. PostgreSQL's names hold no NUL; everything else is allowed inside quotes."""
    if not name or "\0" in name:
        raise ValueError(f"{name!r} is no name of a role or database")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A quoted literal for statements that take no parameters (PASSWORD, COMMENT), whatever the escape setting."""
    if "\0" in text:
        raise ValueError("a literal cannot hold NUL")
    if "\\" in text:
        return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + text.replace("'", "''") + "'"
