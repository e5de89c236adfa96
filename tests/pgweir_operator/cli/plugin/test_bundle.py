"""`kubectl pgweir support-bundle`: marked secrets stand everywhere, and none is in the archive."""

from __future__ import annotations

import json
import tarfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pgweir_operator.cli.plugin.api_server import ApiServer
from tests.pooler.process import FLAVOUR, PoolerProcess
from tests.postgres.server import PostgresServer

from pgweir_operator.cli.plugin.bundle import named_secrets

Plugin = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.skipif(FLAVOUR != "pgweir", reason="the plugin looks into our own pods")


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer) -> Iterator[PoolerProcess]:
    marked = {"alice": "alice-password", "lookup": "MARKED-userlist"}
    databases = {
        "other": "host=127.0.0.1 port={port} user=alice password=MARKED-entry",
        "*": "host=127.0.0.1 port={port}",
    }
    with PoolerProcess(postgres.port, userlist=marked, databases=databases) as made, made.connect(application_name="x"):
        yield made
    postgres.terminate_clients()


def secret(**data: str) -> dict[str, str]:
    return {key: b64encode(value.encode()).decode() for key, value in data.items()}


@pytest.fixture
def everywhere(api: ApiServer, pooler: PoolerProcess) -> ApiServer:
    """A secret in each place where somebody may have put one."""
    key = "-----BEGIN PRIVATE KEY-----\nMARKED-key\n-----END PRIVATE KEY-----\n"
    made = api.pooler("shop-rw", configRevision=1)
    made["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": json.dumps({"x": "MARKED-applied"})
    }
    made["spec"] |= {
        "template": {"spec": {"containers": [{"name": "side", "env": [{"name": "X", "value": "MARKED-env"}]}]}},
        "pgbouncer": {
            "parameters": {"auth_ldap_options": "ldapbindpasswd=MARKED-ldap"},
            "users": [{"name": "batch", "passwordSecret": {"name": "batch-login"}}],
        },
    }
    api.put("Deployment", "shop-rw", spec={"args": ["--password", "MARKED-argument"]})
    api.put("Cluster", "shop", spec={"bootstrap": {"dsn": "postgresql://u:MARKED-dsn@h/d"}})
    api.put("Secret", "shop-rw", data=secret(**{"userlist.txt": '"lookup" "MARKED-userlist"\n', "server.key": key}))
    api.put("Secret", "shop-app", data=secret(username="app", password="MARKED-app"))
    api.put("Secret", "batch-login", data=secret(password="MARKED-batch"))
    api.put("Secret", "shop-ca", data=secret(**{"ca.key": key}))
    api.put("Event", "e1", regarding={"kind": "Pod", "name": "shop-rw-a"}, note="MARKED-app was tried")
    api.put("Event", "e2", regarding={"kind": "Pod", "name": "other"}, note="not ours")
    api.pod("shop-rw-a", "shop-rw", pooler.http_port)
    api.logs["shop-rw-a"] = f"password=MARKED-log\nsaw MARKED-batch go by\nan honest line\n{json.dumps({'msg': key})}\n"
    return api


def unpacked(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        found = {}
        for member in archive.getmembers():
            content = archive.extractfile(member)
            assert content is not None
            found[member.name.partition("/")[2]] = content.read().decode()
        return found


def test_no_secret_is_in_the_archive_and_what_helps_is(everywhere: ApiServer, plugin: Plugin, tmp_path: Path) -> None:
    code, printed, told = plugin("support-bundle", "--file", tmp_path / "b.tar.gz")
    assert (code, told) == (0, "")
    assert "b.tar.gz" in printed
    files = unpacked(tmp_path / "b.tar.gz")
    leaks = {
        name: [line for line in text.splitlines() if "MARKED" in line]
        for name, text in files.items()
        if "MARKED" in text
    }
    assert not leaks
    folder = "shop/shop-rw"
    assert yaml.safe_load(files[f"{folder}/pooler.yaml"])["status"]["configRevision"] == 1
    assert "an honest line" in files[f"{folder}/logs/shop-rw-a.log"]
    assert [event["note"] for event in yaml.safe_load(files[f"{folder}/events.yaml"])] == ["(removed) was tried"]
    shown = json.loads(files[f"{folder}/show/shop-rw-a/show-clients.json"])
    assert {row["application_name"] for row in shown["rows"]} == {"x"}
    assert json.loads(files[f"{folder}/show/shop-rw-a/health.json"])["clients"] == 1
    assert not [name for name in files if "secret" in name]


def test_without_the_right_to_read_secrets_their_places_are_still_empty(
    everywhere: ApiServer, plugin: Plugin, tmp_path: Path
) -> None:
    """What no pattern can know (a password that a log line has as a bare word) is struck out only for those who may read it."""
    everywhere.forbidden.add("Secret")
    everywhere.logs["shop-rw-a"] = "password=MARKED-log\n"
    everywhere.objects.pop(("Event", "e1"))
    assert plugin("support-bundle", "shop-rw", "--file", tmp_path / "b.tar.gz")[0] == 0
    assert "MARKED" not in str(unpacked(tmp_path / "b.tar.gz"))


def test_what_may_not_be_read_is_listed_and_the_rest_is_there(
    everywhere: ApiServer, plugin: Plugin, tmp_path: Path
) -> None:
    everywhere.forbidden |= {"log", "portforward"}
    assert plugin("support-bundle", "shop-rw", "--file", tmp_path / "b.tar.gz")[0] == 0
    files = unpacked(tmp_path / "b.tar.gz")
    assert "log of shop-rw-a: you may not get log shop-rw-a" in files["missing.txt"]
    assert "portforward" in files["missing.txt"].replace("port-forward", "portforward")
    assert "shop/shop-rw/deployment.yaml" in files


def test_no_pooler_no_archive(api: ApiServer, plugin: Plugin, tmp_path: Path) -> None:
    assert plugin("support-bundle", "--file", tmp_path / "b.tar.gz")[:2] == (1, "")
    assert not (tmp_path / "b.tar.gz").exists()


def test_every_secret_that_a_pooler_names_is_known() -> None:
    spec: dict[str, Any] = {
        "cluster": {"name": "shop"},
        "pgbouncer": {"authQuerySecret": {"name": "a"}, "users": [{"passwordSecret": {"name": "b"}}]},
        "template": {
            "spec": {
                "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "c", "key": "k"}}}]}],
                "volumes": [{"secret": {"secretName": "d"}}],
            }
        },
    }
    found = named_secrets({"metadata": {"name": "p"}, "spec": spec})
    assert {"a", "b", "c", "d", "p", "p-control", "p-control-ca", "shop-app", "shop-superuser", "shop-ca"} <= found
