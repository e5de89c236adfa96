"""A login asked of a directory: Debian's slapd where it can be had, and a small one that is always there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.pooler.directory import (
    ADMIN_DN,
    ADMIN_PASSWORD,
    PEOPLE,
    USERS,
    Directory,
    find_slapd,
    slapd,
    small_directory,
)
from tests.postgres.certificates import Certificates
from tests.postgres.server import free_port

from pgweir.ldap import LdapAccepted, LdapFailed, LdapOutcome, LdapRefused, parse_ldap_options
from pgweir.net import directory as asking

SEARCH = f'ldapbasedn="{PEOPLE}" ldapbinddn="{ADMIN_DN}" ldapbindpasswd="{ADMIN_PASSWORD}"'


@pytest.fixture(scope="module", params=["small", "slapd"])
def directory(request: pytest.FixtureRequest) -> Iterator[Directory]:
    with ExitStack() as stack:
        if request.param == "small":
            yield stack.enter_context(small_directory())
            return
        program = find_slapd()
        if program is None:
            pytest.skip("no slapd here, and no way to unpack one")
        certificates: Certificates = request.getfixturevalue("certificates")
        yield stack.enter_context(slapd(program, certificates))


def ask(directory: Directory, options: str, user: str, password: str) -> LdapOutcome:
    parsed = parse_ldap_options(f"ldapserver=127.0.0.1 ldapport={directory.port} {options}")
    return asking.ask(parsed, user, password, 5.0)


@pytest.mark.parametrize("user", USERS)
def test_the_search_finds_a_user_and_the_password_decides(directory: Directory, user: str):
    assert ask(directory, SEARCH, user, USERS[user]) == LdapAccepted()
    assert isinstance(ask(directory, SEARCH, user, "wrong"), LdapRefused)


def test_the_simple_way_binds_without_a_search(directory: Directory):
    options = f'ldapprefix="cn=" ldapsuffix=",{PEOPLE}"'
    assert ask(directory, options, "person 0", USERS["alice"]) == LdapAccepted()
    assert isinstance(ask(directory, options, "person 0", "wrong"), LdapRefused)
    assert isinstance(ask(directory, options, "nobody", "wrong"), LdapRefused)


@pytest.mark.parametrize("user", ["*", "alice)(uid=*", "a*", "nobody", "alice\0", " "])
def test_a_name_that_would_widen_the_search_finds_nobody(directory: Directory, user: str):
    outcome = ask(directory, SEARCH, user, USERS["alice"])
    assert outcome == LdapRefused("no such user in the directory")


@pytest.mark.parametrize("user", [f"person 0,{PEOPLE}", "person 0+sn=x", 'x",cn=person 0'])
def test_a_name_that_would_be_more_than_a_name_is_nobody(directory: Directory, user: str):
    outcome = ask(directory, f'ldapprefix="cn=" ldapsuffix=",{PEOPLE}"', user, USERS["alice"])
    assert isinstance(outcome, LdapRefused | LdapFailed)


def test_an_empty_password_is_refused_before_anybody_is_asked(directory: Directory):
    before = len(directory.asked)
    assert ask(directory, SEARCH, "alice", "") == LdapRefused("empty password")
    assert len(directory.asked) == before


def test_two_entries_for_one_name_let_nobody_in(directory: Directory):
    outcome = ask(directory, SEARCH, "twin", "twin-in-ldap")
    assert outcome == LdapRefused("the search finds more than one entry for this user")


def test_a_search_that_may_not_bind_is_a_fault_of_the_configuration(directory: Directory):
    outcome = ask(directory, f'ldapbasedn="{PEOPLE}" ldapbinddn="{ADMIN_DN}" ldapbindpasswd=wrong', "alice", "x")
    assert isinstance(outcome, LdapFailed)
    assert ADMIN_DN in outcome.reason


def test_the_next_server_is_asked_where_one_cannot_be_reached(directory: Directory):
    # Both names have the same port: nobody listens on this address of the loop.
    parsed = parse_ldap_options(f'ldapserver="127.0.0.99 127.0.0.1" ldapport={directory.port} {SEARCH}')
    assert asking.ask(parsed, "alice", USERS["alice"], 5.0) == LdapAccepted()


def test_nobody_there_is_a_fault_and_not_a_wrong_password():
    outcome = asking.ask(
        parse_ldap_options(f"ldapserver=127.0.0.1 ldapport={free_port()} ldapprefix=cn="), "alice", "x", 2.0
    )
    assert isinstance(outcome, LdapFailed)


def test_a_directory_that_never_answers_is_given_up():
    with small_directory() as slow:
        slow.may_answer.clear()
        parsed = parse_ldap_options(f"ldapserver=127.0.0.1 ldapport={slow.port} ldapprefix=cn=")
        assert isinstance(asking.ask(parsed, "alice", "x", 0.3), LdapFailed)


def test_tls_is_verified_and_a_directory_without_it_gets_no_password(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
):
    with small_directory() as plain:
        outcome = ask(plain, f"{SEARCH} ldaptls=1", "alice", USERS["alice"])
        assert isinstance(outcome, LdapFailed)
        assert plain.asked == []
    program = find_slapd()
    if program is None:
        pytest.skip("no slapd here, and no way to unpack one")
    with slapd(program, certificates) as directory:
        over_tls = f"ldapserver=127.0.0.1 ldapport={directory.tls_port} ldapscheme=ldaps {SEARCH}"
        started = f"ldapserver=127.0.0.1 ldapport={directory.port} ldaptls=1 {SEARCH}"
        for options in (over_tls, started):
            parsed = parse_ldap_options(options)
            monkeypatch.delenv("LDAPTLS_CACERT", raising=False)
            assert isinstance(asking.ask(parsed, "alice", USERS["alice"], 5.0), LdapFailed)
            monkeypatch.setenv("LDAPTLS_CACERT", str(certificates.ca))
            assert asking.ask(parsed, "alice", USERS["alice"], 5.0) == LdapAccepted()
