"""Databases and users with settings of their own, and the passwords that server logins go by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.pgweir_operator.worlds import cluster, observed, pooler, provisioned, secret

from pgweir.config import Config, load
from pgweir_operator.api.conditions import PrerequisiteError, Reason
from pgweir_operator.api.observed import Observed, Provisioned, SecretFacts
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired import desired_state
from pgweir_operator.integration.automatic import stored
from pgweir_operator.observe import watched

APP = secret("shop-app", type="kubernetes.io/basic-auth", username="app", password="s3cret")


def files(of: Pooler, seen: Observed | None = None, by: Provisioned | None = None) -> dict[str, bytes]:
    seen = seen or observed(of, cluster=cluster(of, server_ca=None, client_ca=None, server=None))
    by = by or Provisioned("cnp_pooler_pgbouncer", "SELECT 1, $1", password="look")
    return dict(desired_state(of, seen, by, image="pgweir-pooler:1").bundle_files)


@pytest.fixture
def loaded(tmp_path: Path) -> Any:
    """What a pod makes of the files of a Pooler."""

    def run(of: Pooler, seen: Observed | None = None) -> Config:
        for name, content in files(of, seen).items():
            (tmp_path / name).write_bytes(content)
        return load(tmp_path / "pgbouncer.ini", base_dir=tmp_path)

    return run


def with_app(of: Pooler, app: SecretFacts | None = APP, **secrets: SecretFacts | None) -> Observed:
    return observed(of, cluster=cluster(of, app=app, server_ca=None, client_ca=None, server=None), secrets=secrets)


def test_a_pod_reads_the_settings_of_each_database_and_of_each_user(loaded: Any) -> None:
    subject = pooler(
        pgbouncer={
            "databases": [
                {"name": "it's", "parameters": {"dbname": "shop", "pool_size": "3", "connect_query": "SET a TO 'b c'"}}
            ],
            "users": [{"name": "a b", "parameters": {"pool_size": "2", "query_timeout": "1.5"}}, {"name": "plain"}],
        }
    )
    config = loaded(subject)
    entry = config.database("it's")
    assert (entry.host, entry.dbname, entry.pool_size, entry.connect_query) == ("shop-rw", "shop", 3, "SET a TO 'b c'")
    assert config.database("another").host == "shop-rw"
    assert (config.pool_size("another", "a b"), config.query_timeout("a b")) == (2, 1.5)
    assert list(config.users) == ["a b"]
    assert config.warnings == ()


def test_an_entry_for_all_databases_does_not_take_the_lookup_with_it(loaded: Any) -> None:
    entries = [{"name": "*", "parameters": {"dbname": "shop", "user": "batch", "pool_size": "4"}}]
    config = loaded(pooler(pgbouncer={"databases": entries}))
    assert (config.database("any").dbname, config.database("any").user) == ("shop", "batch")
    assert (config.database("postgres").dbname, config.database("postgres").user) == ("postgres", None)


def test_the_application_users_password_is_there_for_server_logins(loaded: Any) -> None:
    subject = pooler()
    config = loaded(subject, with_app(subject))
    assert config.userlist == {"app": "s3cret", "cnp_pooler_pgbouncer": "look"}
    assert config.server_password("shop", "app") == "s3cret"


def test_it_is_there_beside_a_certificate_and_before_anything_was_provisioned() -> None:
    subject = pooler()
    by_certificate = files(subject, observed(subject, cluster=cluster(subject, app=APP)), provisioned())
    assert (by_certificate["userlist.txt"], "server.crt" in by_certificate) == (b'"app" "s3cret"\n', True)
    before = dict(desired_state(subject, with_app(subject), None, image="x").bundle_files)
    assert before["userlist.txt"] == b'"app" "s3cret"\n'
    # That file alone does not say that the look-up was ever made.
    bundle = SecretFacts("pooler", "Opaque", "1", before, owned=True)
    assert not stored(observed(subject, bundle=bundle), "look").was_integrated
    bundle = SecretFacts("pooler", "Opaque", "1", files(subject, with_app(subject)), owned=True)
    assert stored(observed(subject, bundle=bundle), "look").was_integrated


@pytest.mark.parametrize("app", [None, secret("shop-app", password="x"), secret("shop-app", uri="postgres://")])
def test_a_cluster_without_such_a_secret_goes_by_the_lookup_alone(loaded: Any, app: SecretFacts | None) -> None:
    subject = pooler()
    assert loaded(subject, with_app(subject, app)).userlist == {"cnp_pooler_pgbouncer": "look"}


def test_a_users_own_secret_wins_over_the_clusters(loaded: Any) -> None:
    users = [{"name": "app", "passwordSecret": {"name": "own"}}, {"name": "b", "passwordSecret": {"name": "of-b"}}]
    subject = pooler(pgbouncer={"users": users})
    own = {"own": secret("own", username="app", password='n"ew'), "of-b": secret("of-b", password="b")}
    config = loaded(subject, with_app(subject, **own))
    assert (config.userlist["app"], config.userlist["b"]) == ('n"ew', "b")
    assert {("Secret", name) for name in ("own", "of-b", "shop-app")} <= watched(subject).keys()


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [
        (None, Reason.MISSING_SECRET, "names Secret 'login', which does not exist"),
        (secret("login", username="b"), Reason.INVALID_SECRET, "has no key 'password'"),
        (secret("login", username="other", password="hush"), Reason.INVALID_SECRET, "another user than 'b'"),
        (secret("login", password="hush\n"), Reason.INVALID_SECRET, "line break"),
        (secret("login", password=b"hush\xff"), Reason.INVALID_SECRET, "not UTF-8"),
    ],
)
def test_a_secret_that_will_not_do_is_named_and_never_quoted(
    given: SecretFacts | None, reason: Reason, words: str
) -> None:
    users = [{"name": "b", "passwordSecret": {"name": "login"}}]
    subject = pooler(pgbouncer={"users": users})
    with pytest.raises(PrerequisiteError) as caught:
        files(subject, with_app(subject, login=given))
    assert caught.value.reason is reason
    assert "spec.pgbouncer.users[0].passwordSecret" in caught.value.message
    assert words in caught.value.message
    assert "hush" not in caught.value.message
