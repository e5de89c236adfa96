"""Options of method ldap: what they mean together, and that a name is never more than a value."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.ldap import LdapOptions, escaped_in_dn, escaped_in_filter, parse_ldap_options


def test_the_simple_way_binds_as_the_name_between_prefix_and_suffix():
    options = parse_ldap_options('ldapserver=ldap.example.net ldapprefix="cn=" ldapsuffix=", dc=example, dc=net"')
    assert (options.servers, options.port, options.scheme) == (("ldap.example.net",), 389, "ldap")
    assert options.base_dn is None
    assert options.bind_name("alice") == "cn=alice, dc=example, dc=net"


def test_a_domain_name_is_no_distinguished_name():
    assert parse_ldap_options("ldapserver=ad ldapsuffix=@example.net").bind_name("a+b") == "a+b@example.net"


def test_the_search_has_an_attribute_or_a_filter():
    base = 'ldapserver=x ldapbasedn="dc=example,dc=net"'
    assert parse_ldap_options(base).filter_for("alice") == "(uid=alice)"
    assert parse_ldap_options(f"{base} ldapsearchattribute=mail").filter_for("a@b") == "(mail=a@b)"
    both = parse_ldap_options(f'{base} ldapsearchfilter="(|(uid=$username)(mail=$username))"')
    assert both.filter_for("a)(b") == "(|(uid=a\\29\\28b)(mail=a\\29\\28b))"
    assert both.scope == "sub"


def test_a_url_says_it_all_in_one():
    options = parse_ldap_options('ldapurl="ldaps://dir.example.net:1636/ou=people%2Cdc=example?mail?one"')
    assert options == LdapOptions(
        servers=("dir.example.net",),
        port=1636,
        scheme="ldaps",
        base_dn="ou=people,dc=example",
        search_attribute="mail",
        scope="one",
    )
    assert parse_ldap_options('ldapurl="ldap://x/dc=x??sub?(mail=$username)"').filter_for("a") == "(mail=a)"
    plain = parse_ldap_options('ldapurl="ldap://127.0.0.1:12345/dc=example,dc=net?uid?sub"')
    assert (plain.servers, plain.port, plain.base_dn, plain.scope) == (
        ("127.0.0.1",), 12345, "dc=example,dc=net", "sub",
    )  # fmt: skip
    assert parse_ldap_options('ldapurl="ldap:///dc=x" ldapserver="a b"').servers == ("a", "b")


def test_the_port_follows_the_scheme_unless_given():
    assert parse_ldap_options("ldapserver=x ldapprefix=a ldapscheme=ldaps").port == 636
    assert parse_ldap_options("ldapserver=x ldapprefix=a ldaptls=1").start_tls
    assert parse_ldap_options("ldapserver=x ldapprefix=a ldapport=1389").port == 1389


def test_the_password_of_the_search_is_never_shown():
    options = parse_ldap_options("ldapserver=x ldapbasedn=dc=x ldapbinddn=cn=me ldapbindpasswd=hush")
    assert options.bind_password == "hush"
    assert "hush" not in repr(options)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ldapserver=x", "ldap needs ldapprefix or ldapsuffix"),
        ("ldapprefix=x", "ldap needs ldapserver"),
        ("ldapserver=x ldapprefix=a ldapbasedn=b", "write one kind"),
        ("ldapserver=x ldapbinddn=b", "a search needs ldapbasedn"),
        ("ldapserver=x ldapbasedn=b ldapsearchattribute=c ldapsearchfilter=(d)", "write one of them"),
        ("ldapserver=x ldapbasedn=b ldapsearchattribute=c)(d", "is no name of an attribute"),
        ("ldapserver=x ldapbasedn=b ldapsearchfilter=uid=$username", "is no filter"),
        ("ldapserver=x ldapbasedn=dc=example,dc=net", "'dc' is no option of ldap"),
        ("ldapserver=x ldapprefix=a ldapport=0", "write a number from 1 to 65535"),
        ("ldapserver=x ldapprefix=a ldapport=ldap", "write a number from 1 to 65535"),
        ("ldapserver=x ldapprefix=a ldapscheme=http", "write ldap or ldaps"),
        ("ldapserver=x ldapprefix=a ldaptls=yes", "write 0 or 1"),
        ("ldapserver=x ldapprefix=a ldaptls=1 ldapscheme=ldaps", "leave one of them out"),
        ("ldapurl=http://x/dc=x", "must begin with ldap://"),
        ("ldapurl=ldap://me:hush@x/dc=x", "no place for a password"),
        ("ldapurl=ldap://x:port/dc=x", "the port of"),
        ("ldapurl=ldap://x/dc=x??tree", "is no scope"),
        ("ldapurl=ldap://x/dc=x????ext", "extensions are not supported"),
        ("ldapurl=ldap://x", "a search needs ldapbasedn"),
        ('ldapserver="x', "close the double quote"),
        ("server=x", "'server' is no option of ldap"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_a_sentence(text: str, sentence: str):
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        parse_ldap_options(text)
    assert "hush" not in str(raised.value)


@given(st.text())
def test_noise_gets_a_value_error_and_nothing_else(text: str):
    try:
        parse_ldap_options(text)
        parse_ldap_options(f'ldapserver=x ldapurl="{text}"')
    except ValueError:
        pass


@given(st.text())
def test_a_name_in_a_filter_is_a_value_and_comes_back_whole(name: str):
    escaped = escaped_in_filter(name)
    assert not set("*()\0") & set(escaped)
    parts = escaped.split("\\")
    assert parts[0] + "".join(chr(int(part[:2], 16)) + part[2:] for part in parts[1:]) == name


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("alice", "alice"),
        ("a,b", "a\\,b"),
        ("a+cn=b", "a\\+cn\\=b"),
        (' "x" ', '\\ \\"x\\"\\ '),
        ("#1", "\\#1"),
        ("a\\b", "a\\\\b"),
        ("<>;", "\\<\\>\\;"),
        (" ", "\\ "),
    ],
)
def test_a_name_in_a_distinguished_name_is_a_value(name: str, escaped: str):
    assert escaped_in_dn(name) == escaped
