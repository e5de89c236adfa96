"""What leaves a support bundle, and what stays readable."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir_operator.cli.plugin.redaction import GONE, Redaction

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMARKED\nMARKED\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        "connecting with password=MARKED to db",
        "host=x password='MARKED it''s' user=y",
        'PASSWORD = "MARKED and more"',
        "ALTER ROLE app PASSWORD 'MARKED'",
        "auth_ldap_options = ldapbindpasswd=MARKED ldapport=1",
        "postgresql://app:MARKED@db:5432/app?sslmode=require",
        "Authorization: Bearer MARKED.x-y_z",
        "PGPASSWORD=MARKED psql",
        '{"password": "MARKED", "user": "x"}',
        '{"msg": "{\\"password\\": \\"MARKED\\"}"}',
        "--admin-password=MARKED --verbose",
        "api_key: MARKED",
        "client_secret=MARKED",
        KEY,
        KEY.replace("\n", "\\n"),
        KEY.removesuffix("-----END RSA PRIVATE KEY-----"),
        "SCRAM-SHA-256$4096:MARKEDsalt==$MARKEDstored=:MARKEDserver=",
    ],
)
def test_a_text_loses_what_is_secret(text: str) -> None:
    left = Redaction().text(text)
    assert "MARKED" not in left
    assert GONE in left


def test_a_verifier_of_the_old_kind_goes_too() -> None:
    assert Redaction().text("x md5" + "0a" * 16 + " y") == f"x {GONE} y"


@pytest.mark.parametrize(
    "text",
    [
        "password authentication failed for user 'alice'",
        "no password was given",
        "auth_type = scram-sha-256",
        "client_tls_sslmode = verify-full",
        "select passed_tests from t",
        "Secret 'shop-app' has no key 'password' (its keys: username); add it.",
    ],
)
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert Redaction().text(text) == text


def test_what_is_known_to_be_secret_goes_wherever_it_stands_also_in_base64() -> None:
    redaction = Redaction([b"hunter22\n", b"app"])
    assert redaction.text("a hunter22 b") == f"a {GONE} b"
    assert redaction.text(b64encode(b"hunter22").decode()) == GONE
    assert redaction.text("the app") == "the app", "what is as short as a word is one"


def test_a_manifest_keeps_its_shape_and_loses_what_hides_secrets() -> None:
    manifest: dict[str, Any] = {
        "kind": "Pooler",
        "metadata": {
            "name": "p",
            "managedFields": ["x"],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "MARKED", "note": "kept"},
        },
        "spec": {
            "env": [
                {"name": "A", "value": "MARKED"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
            ],
            "args": ["--password", "MARKED", "--token=MARKED", "--verbose", "word"],
            "authQuerySecret": {"name": "lookup"},
            "password": "MARKED",
            "secretName": "kept",
        },
    }
    found = Redaction().object(manifest)
    assert "MARKED" not in str(found)
    assert found["metadata"] == {"name": "p", "annotations": {"note": "kept"}}
    assert found["spec"]["env"][1] == manifest["spec"]["env"][1]
    assert found["spec"]["args"] == ["--password", GONE, f"--token={GONE}", "--verbose", "word"]
    assert found["spec"]["authQuerySecret"] == {"name": "lookup"}
    assert (found["spec"]["password"], found["spec"]["secretName"]) == (GONE, "kept")


def test_of_a_secret_nothing_is_left() -> None:
    for secret in ({"kind": "Secret", "data": {"a": "MARKED"}}, {"stringData": {"a": "MARKED"}}):
        assert "MARKED" not in str(Redaction().object([secret]))


@given(st.text())
def test_any_text_comes_through(text: str) -> None:
    assert isinstance(Redaction([b"hunter22"]).text(text), str)
