"""What method ldap needs to know: PostgreSQL's options, who to bind as, what to search for. Pure: `net.directory` asks.

Two ways, as in PostgreSQL: bind as ldapprefix + name + ldapsuffix, or search below ldapbasedn for the one entry of that name
and bind as it. A name never becomes more than a value: it is escaped wherever it goes into a filter or a distinguished name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from pgweir.hba_words import columns, short

Scope = Literal["base", "one", "sub"]

OPTIONS: Final = (
    "ldapserver",
    "ldapport",
    "ldapscheme",
    "ldaptls",
    "ldapprefix",
    "ldapsuffix",
    "ldapbasedn",
    "ldapbinddn",
    "ldapbindpasswd",
    "ldapsearchattribute",
    "ldapsearchfilter",
    "ldapurl",
)
_PORTS: Final = {"ldap": 389, "ldaps": 636}
_SCOPES: Final[dict[str, Scope]] = {"": "base", "base": "base", "one": "one", "sub": "sub"}
_SIMPLE: Final = ("ldapprefix", "ldapsuffix")
_SEARCH: Final = ("ldapbasedn", "ldapbinddn", "ldapbindpasswd", "ldapsearchattribute", "ldapsearchfilter")


@dataclass(frozen=True, kw_only=True, slots=True)
class LdapOptions:
    """Where and how to ask. `base_dn` is None for the simple way (prefix and suffix)."""

    servers: tuple[str, ...]  # asked in this order, the next one when one cannot be reached
    port: int
    scheme: Literal["ldap", "ldaps"] = "ldap"
    start_tls: bool = False
    prefix: str = ""
    suffix: str = ""
    base_dn: str | None = None
    bind_dn: str = ""
    bind_password: str = field(default="", repr=False)
    search_attribute: str = "uid"
    search_filter: str = ""
    scope: Scope = "sub"

    def bind_name(self, user: str) -> str:
        """The simple way's name to bind as. In a distinguished name the user's name is escaped; `name@domain` and
        `DOMAIN\\name` are none."""
        is_dn = "=" in self.prefix or "=" in self.suffix
        return self.prefix + (escaped_in_dn(user) if is_dn else user) + self.suffix

    def filter_for(self, user: str) -> str:
        """The search's filter for this user."""
        name = escaped_in_filter(user)
        if self.search_filter:
            return self.search_filter.replace("$username", name)
        return f"({self.search_attribute}={name})"


@dataclass(frozen=True, slots=True)
class LdapAccepted:
    """The directory knows this user by this password."""


@dataclass(frozen=True, slots=True)
class LdapRefused:
    """It does not; the reason is for the log alone."""

    reason: str


@dataclass(frozen=True, slots=True)
class LdapFailed:
    """It could not be asked; the reason is for the log alone."""

    reason: str


LdapOutcome = LdapAccepted | LdapRefused | LdapFailed


def parse_ldap_options(text: str) -> LdapOptions:
    """auth_ldap_options: what an HBA line has behind the word ldap. Raises ValueError with what to write instead."""
    return ldap_options(word.text for column in columns(text) for word in column)


def ldap_options(words: Iterable[str]) -> LdapOptions:
    """From words of the form name=value. Raises ValueError with what to write instead; no secret is in it."""
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in OPTIONS or not equals:
            raise ValueError(
                f"{short(name)} is no option of ldap; write one of {', '.join(OPTIONS)} as name=value,"
                " and a value with commas or blanks in double quotes"
            )
        given[name] = value
    values: dict[str, object] = {}
    if "ldapurl" in given:
        values = _url(given["ldapurl"])
    if "ldapserver" in given:
        values["servers"] = tuple(given["ldapserver"].split())
    scheme = given.get("ldapscheme", values.get("scheme", "ldap"))
    if scheme not in _PORTS:
        raise ValueError(f"ldapscheme={short(str(scheme))}: write ldap or ldaps")
    values["scheme"] = scheme
    values["start_tls"] = _is_on(given.get("ldaptls", "0"))
    if values["start_tls"] and scheme == "ldaps":
        raise ValueError("ldaptls=1 begins in clear text, and ldaps never is in clear text; leave one of them out")
    values["port"] = _port(given["ldapport"]) if "ldapport" in given else values.get("port") or _PORTS[str(scheme)]
    searches = "ldapurl" in given or any(name in given for name in _SEARCH)
    if searches and any(name in given for name in _SIMPLE):
        raise ValueError(
            f"{' and '.join(_SIMPLE)} bind at once, {', '.join(_SEARCH)} and ldapurl search first; write one kind"
        )
    if searches:
        _add_search(values, given)
    elif not any(given.get(name) for name in _SIMPLE):
        raise ValueError("ldap needs ldapprefix or ldapsuffix to bind at once, or ldapbasedn to search first")
    values["prefix"], values["suffix"] = given.get("ldapprefix", ""), given.get("ldapsuffix", "")
    if not values.get("servers"):
        raise ValueError("ldap needs ldapserver (or ldapurl with a host); name the server")
    return LdapOptions(**values)  # type: ignore[arg-type]  # each was made with its type just above


def _add_search(values: dict[str, object], given: dict[str, str]) -> None:
    for name, attribute in (
        ("ldapbasedn", "base_dn"),
        ("ldapbinddn", "bind_dn"),
        ("ldapbindpasswd", "bind_password"),
        ("ldapsearchattribute", "search_attribute"),
        ("ldapsearchfilter", "search_filter"),
    ):
        if name in given:
            values[attribute] = given[name]
    if not values.get("base_dn"):
        raise ValueError("a search needs ldapbasedn; name the entry below which the users are")
    if "search_attribute" in values and "search_filter" in values:
        raise ValueError("ldapsearchattribute and ldapsearchfilter say the same thing; write one of them")
    attribute = str(values.get("search_attribute", "uid"))
    if not re.fullmatch(r"[A-Za-z0-9.;_-]+", attribute):
        raise ValueError(f"{short(attribute)} is no name of an attribute; write one like uid or sAMAccountName")
    text = str(values.get("search_filter", ""))
    if text and not (text.startswith("(") and text.endswith(")")):
        raise ValueError(f"{short(text)} is no filter; write one in parentheses, like (uid=$username)")


def _url(text: str) -> dict[str, object]:
    """ldap[s]://host[:port]/basedn[?[attribute][?[scope][?[filter]]]]"""
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"ldapurl: the port of {short(parts.netloc)} is none") from None
    if parts.scheme not in _PORTS:
        raise ValueError("ldapurl must begin with ldap:// or ldaps://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("ldapurl has no place for a password; write ldapbinddn and ldapbindpasswd")
    attribute, _, rest = parts.query.partition("?")
    scope, _, rest = rest.partition("?")
    search_filter, question, _extensions = rest.partition("?")
    if scope.lower() not in _SCOPES:
        raise ValueError(f"ldapurl: {short(scope)} is no scope; write base, one or sub")
    if question or parts.fragment:
        raise ValueError("ldapurl: extensions are not supported; end it behind the filter")
    values: dict[str, object] = {
        "scheme": parts.scheme,
        "servers": (parts.hostname,) if parts.hostname else (),
        "port": port,
        "base_dn": unquote(parts.path.removeprefix("/")),
        "scope": _SCOPES[scope.lower()],
    }
    if attribute:
        values["search_attribute"] = unquote(attribute)
    if search_filter:
        values["search_filter"] = unquote(search_filter)
    return values


def _is_on(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"ldaptls={short(text)}: write 0 or 1")
    return text == "1"


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise ValueError(f"ldapport={short(text)}: write a number from 1 to 65535")
    return int(text)


def escaped_in_filter(value: str) -> str:
    """SPEC: RFC 4515, section 3: the value of an assertion."""
    return re.sub(r"[\\*()\0]", lambda found: f"\\{ord(found[0]):02x}", value)


def escaped_in_dn(value: str) -> str:
    """SPEC: RFC 4514, section 2.4: the value of an attribute."""
    escaped = re.sub(r'[,+"\\<>;=]', lambda found: "\\" + found[0], value).replace("\0", "\\00")
    if escaped.startswith(("#", " ")):
        escaped = "\\" + escaped
    if len(value) > 1 and value.endswith(" "):
        escaped = escaped[:-1] + "\\ "
    return escaped
