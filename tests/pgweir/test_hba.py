"""Rules of auth_type hba: which line lets whom in, and that a line which cannot be read is a fault of the file."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.hba import HbaRule, IdentEntry, ident_allows, is_address, match_hba, parse_hba, parse_ident


def rule_for(text: str, **connection: Any) -> HbaRule | None:
    given: dict[str, Any] = {
        "transport": "tcp",
        "tls": False,
        "address": "10.1.2.3",
        "database": "app",
        "user": "alice",
        "replication": False,
        **connection,
    }
    parsed = parse_hba(text)
    assert not parsed.faults
    return match_hba(parsed.rules, **given)


def method_for(text: str, **connection: Any) -> str | None:
    rule = rule_for(text, **connection)
    return rule.method if rule else None


def test_the_first_line_that_matches_wins():
    assert method_for("host all all all reject\nhost all all all trust") == "reject"


def test_without_a_matching_line_there_is_no_rule():
    assert method_for("host other all all trust") is None
    assert method_for("") is None


def test_local_is_for_the_unix_socket_alone():
    assert method_for("local all all peer", transport="unix", address=None) == "peer"
    assert method_for("local all all peer") is None
    assert method_for("host all all all trust", transport="unix", address=None) is None


def test_hostssl_is_for_tls_and_hostnossl_for_clear_text_and_host_for_both():
    text = "hostssl all all all cert\nhostnossl all all all reject"
    assert method_for(text, tls=True) == "cert"
    assert method_for(text, tls=False) == "reject"
    assert method_for("host all all all md5", tls=True) == method_for("host all all all md5", tls=False) == "md5"


@pytest.mark.parametrize(
    ("address", "matches"),
    [
        ("10.0.0.0/8", True),
        ("10.1.2.3/32", True),
        ("10.1.2.99/24", True),
        ("10.0.0.0 255.0.0.0", True),
        ("10.1.2.4/32", False),
        ("192.168.0.0/16", False),
        ("0.0.0.0/0", True),
        ("::/0", False),
        ("all", True),
    ],
)
def test_an_address_is_matched_by_its_leading_bits(address: str, matches: bool):
    assert (method_for(f"host all all {address} trust") == "trust") is matches


def test_ipv6_addresses_match_with_length_mask_and_zone():
    assert method_for("host all all fd00::/8 trust", address="fd12::1") == "trust"
    assert method_for("host all all fd00:: ff00:: trust", address="fd12::1") == "trust"
    assert method_for("host all all fe80::/10 trust", address="fe80::1%eth0") == "trust"
    assert method_for("host all all ::1/128 trust", address="::2") is None


def test_an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client():
    assert method_for("host all all 10.0.0.0/8 trust", address="::ffff:10.1.2.3") == "trust"


def test_a_client_without_a_readable_address_matches_no_address_range():
    assert method_for("host all all 0.0.0.0/0 trust", address=None) is None
    assert method_for("host all all 0.0.0.0/0 trust", address="nonsense") is None


def test_databases_and_users_are_lists():
    text = "host app,shop alice,bob all trust"
    assert method_for(text, database="shop", user="bob") == "trust"
    assert method_for(text, database="shop", user="carol") is None
    assert method_for("host app , shop alice all trust", database="shop") == "trust"


def test_sameuser_is_for_the_database_of_the_users_name():
    assert method_for("host sameuser all all trust", database="alice") == "trust"
    assert method_for("host sameuser all all trust", database="app") is None


def test_physical_replication_needs_the_word_replication():
    assert method_for("host all all all trust", replication=True) is None
    assert method_for("host replication all all trust", replication=True) == "trust"
    assert method_for("host replication all all trust", replication=False, database="replication") is None


def test_a_quoted_keyword_is_a_plain_name():
    assert method_for('host "all" all all trust') is None
    assert method_for('host "all" all all trust', database="all") == "trust"
    assert method_for('host all "we ""said"" so" all trust', user='we "said" so') == "trust"


def test_a_comment_ends_a_line():
    assert method_for("# host all all all reject\nhost all all all trust # reject") == "trust"


def test_names_come_from_a_file():
    parsed = parse_hba("host @dbs @users all md5", {"dbs": "app\nshop,lab # not this\n", "users": '"alice"'}.get)
    assert parsed.rules[0].databases.names == {"app", "shop", "lab"}
    assert parsed.rules[0].users.names == {"alice"}


def test_a_word_in_a_file_is_a_plain_name():
    assert parse_hba("host @dbs all all md5", {"dbs": "all"}.get).rules[0].databases.names == {"all"}


def test_map_is_the_one_option():
    rule = rule_for("hostssl all all all cert map=staff", tls=True)
    assert rule is not None
    assert rule.map == "staff"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("socket all all trust", "'socket' is no connection type; write one of local, host"),
        ("host all all trust", "columns are missing; write host database user address method"),
        ("local all all", "columns are missing; write local database user method"),
        ("host all all all gss", "'gss' is no method; write one of trust"),
        ("host all all all peer", "peer works on local lines alone"),
        ("host all all all cert", "cert works on hostssl lines alone"),
        ("host all +staff all trust", "asks for a group"),
        ("host all all example.com trust", "is no address range"),
        ("host all all samenet trust", "is no address range"),
        ("host all all 10.0.0.1 trust", "is no address range"),
        ("host all all 10.0.0.0/33 trust", "has too many bits"),
        ("host all all 10.0.0.0/255.0.0.0 trust", "is no address range"),
        ("host all all 10.0.0.0 255.0.255.0 trust", "has a gap"),
        ("host all all 10.0.0.0 0.0.0.255 trust", "has a gap"),
        ("host all all 10.0.0.0 ff00:: trust", "of another family"),
        ("host all all all md5 clientcert=1", "'clientcert' is no option; only map=NAME is"),
        ("host all all all md5 map=", "only map=NAME is"),
        ('host "all all all md5', "close the double quote"),
        ("host all, all", "columns are missing"),
        (",host all all all md5", "write a name before the comma"),
        ("host all all all md5,", "write a name behind the comma"),
        ("host @nowhere all all md5", "the file @'nowhere' cannot be read"),
        ("host,local all all all md5", "write one word as a connection type"),
        ("host all all all rejct", "'rejct' is no method; write one of trust, reject"),
        ("host all all all pam", "pam is not supported; write one of trust, reject, md5"),
        ("host all all all ldap ldapserver=x map=y", "'map' is no option of ldap"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_fault_with_its_number_and_text_and_what_to_write(line: str, sentence: str):
    parsed = parse_hba(f"# rules\n  {line}\nhost all all all reject")
    assert [rule.method for rule in parsed.rules] == ["reject"]
    (fault,) = parsed.faults
    assert fault.line == 2
    assert line.startswith(fault.text.removesuffix("…"))
    assert sentence in fault.expected


@pytest.mark.parametrize(
    "line",
    [
        "host all all all ldpa ldapserver=x ldapbindpasswd=hunter2",
        'host all all all ldap "ldapbindpasswd=hunter2',
        "host all all all ldap ldapbindPasswd hunter2",
        f"host {'a' * 300} all all rejct",
    ],
)
def test_a_fault_shows_no_password_and_no_endless_line(line: str):
    (fault,) = parse_hba(line).faults
    assert "hunter2" not in fault.text + fault.expected
    assert line.startswith(fault.text.removesuffix("…"))
    assert len(fault.text) < 210


def test_an_ldap_line_has_its_options_and_values_with_commas_stand_in_quotes():
    rule = rule_for('host all all all ldap ldapserver="one two" ldapprefix="uid=" ldapsuffix=", dc=example, dc=net"')
    assert rule is not None
    assert rule.ldap is not None
    assert rule.ldap.servers == ("one", "two")
    assert rule.ldap.bind_name("alice") == "uid=alice, dc=example, dc=net"


@given(st.text())
def test_noise_gets_rules_and_faults_and_nothing_else(text: str):
    parsed = parse_hba(text)
    assert len(parsed.rules) + len(parsed.faults) <= text.count("\n") + 1


@given(
    st.lists(
        st.sampled_from(
            ["host", "hostssl", "local", "all", "@f", '"', ",", "10.0.0.1", "/8", "255.0.0.0", "::", "md5", "map=", "#"]
        )
    ),
    st.text(max_size=5),
)
def test_noise_made_of_the_right_words_does_no_harm_either(words: list[str], name: str):
    parsed = parse_hba(" ".join([*words, name]), {"f": name}.get)
    match_hba(parsed.rules, transport="tcp", tls=True, address=name, database=name, user=name, replication=bool(words))


def test_a_map_says_which_certificate_name_may_be_which_user():
    ident = parse_ident('staff "CN of alice" alice\nstaff root all # everybody\nother bob bob\n')
    assert ident.maps["staff"] == (IdentEntry("CN of alice", "alice"), IdentEntry("root", None))
    assert ident_allows(ident.maps, "staff", system_user="CN of alice", user="alice")
    assert not ident_allows(ident.maps, "staff", system_user="CN of alice", user="bob")
    assert ident_allows(ident.maps, "staff", system_user="root", user="anybody")
    assert not ident_allows(ident.maps, "staff", system_user="bob", user="bob")
    assert not ident_allows(ident.maps, "nowhere", system_user="bob", user="bob")


def test_without_a_map_the_names_must_be_the_same():
    assert ident_allows({}, None, system_user="alice", user="alice")
    assert not ident_allows({}, None, system_user="alice", user="bob")


def test_a_quoted_all_in_a_map_is_a_user_of_that_name():
    assert parse_ident('m root "all"').maps["m"] == (IdentEntry("root", "all"),)


def test_a_slash_begins_a_regular_expression_over_the_system_user():
    ident = parse_ident('m /^(.*)@example\\.org$ \\1\nm /^dba- all\nm "/^(a|b),c$" "x\\1"\n')
    assert not ident.faults
    for system_user, user, expected in (
        ("alice@example.org", "alice", True),
        ("alice@example.org", "bob", False),
        ("alice@exampleXorg", "alice", False),
        ("alice@example.org.evil", "alice", False),
        ("dba-1", "anybody", True),
        ("no-dba-1", "anybody", False),
        ("a,c", "xa", True),
        ("b,c", "xa", False),
    ):
        assert ident_allows(ident.maps, "m", system_user=system_user, user=user) is expected, system_user


@pytest.mark.parametrize(
    ("line", "sentence"), [("m /( x", "is no regular expression"), (r"m /abc \1", "has no parentheses that")]
)
def test_an_expression_that_cannot_be_is_a_fault(line: str, sentence: str):
    ident = parse_ident(line)
    assert not ident.maps
    assert sentence in ident.faults[0].expected


@pytest.mark.parametrize("line", ["a b", "a b c d", "a b,c d", 'a "b', "a @b c"])
def test_a_map_line_that_cannot_be_read_is_a_fault(line: str):
    ident = parse_ident(f"{line}\nm x y")
    assert list(ident.maps) == ["m"]
    assert [(fault.line, fault.text) for fault in ident.faults] == [(1, line)]


@given(st.text())
def test_noise_gets_maps_and_faults_and_nothing_else(text: str):
    parse_ident(text)


def test_addresses_are_told_from_names():
    assert is_address("127.0.0.1")
    assert is_address("::1")
    assert not is_address("db.example")
