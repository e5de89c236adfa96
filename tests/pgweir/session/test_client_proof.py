"""A proof that takes time: heavy work and a directory, and what the client may do meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.pgweir.session.world import World

from pgweir.ldap import LdapAccepted, LdapFailed, LdapOutcome, LdapRefused, parse_ldap_options
from pgweir.protocol import messages
from pgweir.protocol.auth.scram import MAX_ITERATIONS, build_verifier

READY = messages.ready_for_query(b"I")
SCRAM = build_verifier("secret", b"0123456789abcdef", 2)


def with_scram_secret(make_world: Any, verifier: str = SCRAM.format()) -> World:
    world: World = make_world(auth_type="plain")
    world.operations.apply(replace(world.config, userlist={"alice": verifier}))
    return world


@pytest.fixture
def with_ldap(make_world: Any) -> World:
    options = parse_ldap_options("ldapserver=x ldapprefix=uid=")
    return make_world(auth_type="ldap", config={"ldap": options})  # type: ignore[no-any-return]


def test_heavy_work_is_done_elsewhere_and_the_login_goes_on_behind_it(make_world):
    world = with_scram_secret(make_world)
    world.edge.holds_work = True
    alice = world.starts_login()
    alice.hears()
    alice.says(messages.password_message("secret"))
    assert (alice.hears(), len(world.edge.work)) == (b"", 1)
    world.edge.work.pop()()
    world.run()
    assert alice.hears().endswith(READY)


def test_who_leaves_during_the_work_is_forgotten(make_world):
    world = with_scram_secret(make_world)
    world.edge.holds_work = True
    alice = world.starts_login()
    alice.says(messages.password_message("secret"))
    alice.leaves()
    world.edge.work.pop()()
    assert not world.pooler.logins
    assert not world.pooler.clients


def test_what_comes_during_the_work_waits_for_its_end(make_world):
    world = with_scram_secret(make_world)
    world.edge.holds_work = True
    alice = world.starts_login()
    alice.says(messages.password_message("secret"), messages.query("SELECT 1"))
    alice.hears()
    world.edge.work.pop()()
    world.run()
    assert READY in alice.hears()


def test_a_stored_secret_cannot_make_us_work_for_ever(make_world):
    world = with_scram_secret(make_world, SCRAM.format().replace("$2:", f"${MAX_ITERATIONS + 1}:"))
    world.edge.holds_work = True
    alice = world.starts_login()
    alice.says(messages.password_message("secret"))
    assert b"28P01" in alice.hears()
    assert not world.edge.work


@pytest.mark.parametrize(
    ("outcome", "heard"),
    [
        (LdapAccepted(), READY),
        (LdapRefused("bind as x: invalidCredentials"), b'LDAP authentication failed for user "alice"\0'),
        (LdapFailed("x:389: nobody there"), b'LDAP authentication failed for user "alice"\0'),
    ],
)
def test_a_directory_decides_and_its_reasons_stay_here(with_ldap: World, outcome: LdapOutcome, heard: bytes):
    alice = with_ldap.starts_login()
    alice.says(messages.password_message("from the directory"))
    ((options, user, password, done),) = with_ldap.edge.ldap_questions
    assert (options.servers, user, password) == (("x",), "alice", "from the directory")
    done(outcome)
    with_ldap.run()
    said = alice.hears()
    assert heard in said
    assert b"nobody there" not in said
    assert b"invalidCredentials" not in said


def test_who_leaves_before_the_directory_answers_is_forgotten(with_ldap: World):
    alice = with_ldap.starts_login()
    alice.says(messages.password_message("x"))
    alice.leaves()
    with_ldap.edge.ldap_questions[0][3](LdapAccepted())
    assert not with_ldap.pooler.clients


def test_an_empty_password_is_no_question(with_ldap: World):
    alice = with_ldap.starts_login()
    alice.says(messages.password_message(""))
    assert b"empty password" in alice.hears()
    assert not with_ldap.edge.ldap_questions


def test_the_silent_are_bounded_and_take_no_place(make_world):
    world = make_world(max_client_conn=1)
    silent = [world.pooler.accept(wire, origin) for wire, origin in world.strangers(101)]
    assert silent[0].is_over
    assert not silent[1].is_over
    assert len(world.pooler.logins) == 100
    assert world.client().state.value
    for login in silent:
        login.connection_lost(None)
    assert not world.pooler.logins
