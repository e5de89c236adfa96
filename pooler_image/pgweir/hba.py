"""The rules of auth_type hba, and the user name maps of cert and peer.

Pure: text in, rules out; a connection in, its rule out. `config` reads the files, authentication asks `match_hba`
and `ident_allows`, the operator reads the lines of a Pooler here before a pod sees them. The first rule that matches wins;
where none does, the login is refused. A line that cannot be read is a fault of the whole file, as in PostgreSQL: without a
mistyped `reject` the next line would let in whom it was to keep out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pgweir.hba_words import Word, columns, short
from pgweir.ldap import LdapOptions, ldap_options

CONNECTION_TYPES: Final = ("local", "host", "hostssl", "hostnossl")
METHODS: Final = ("trust", "reject", "md5", "password", "peer", "cert", "scram-sha-256", "ldap")
METHODS_REFUSED: Final = ("pam",)
_TEXT_MAX: Final = 200  # of a line, in an error
_OPTION: Final = re.compile("=|passw", re.IGNORECASE)  # where the values begin that an error does not show

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Names:
    """A database or user column: keywords that stood there unquoted, and plain names."""

    keywords: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class HbaRule:
    line: int
    type: str
    databases: Names
    users: Names
    network: Network | None  # None: every address
    method: str
    map: str | None = None
    ldap: LdapOptions | None = None


@dataclass(frozen=True, slots=True)
class LineFault:
    """A line that cannot be read: the file must not load. `text` has no values of options, one of which may be a password."""

    line: int
    text: str
    expected: str


@dataclass(frozen=True, slots=True)
class HbaFile:
    rules: tuple[HbaRule, ...] = ()
    faults: tuple[LineFault, ...] = ()


@dataclass(frozen=True, slots=True)
class IdentEntry:
    """`pattern`: the system user was written as /expression, and `\\1` in the database user is what its first
    parentheses found."""

    system_user: str
    database_user: str | None  # None: all
    pattern: re.Pattern[str] | None = None

    def allows(self, system_user: str, user: str) -> bool:
        if self.pattern is None:
            return self.system_user == system_user and self.database_user in (None, user)
        found = self.pattern.search(system_user)
        if found is None:
            return False
        if self.database_user is None or "\\1" not in self.database_user:
            return self.database_user in (None, user)
        return self.database_user.replace("\\1", found[1] or "", 1) == user


@dataclass(frozen=True, slots=True)
class IdentFile:
    maps: Mapping[str, tuple[IdentEntry, ...]]
    faults: tuple[LineFault, ...] = ()


def match_hba(
    rules: tuple[HbaRule, ...],
    *,
    transport: Literal["unix", "tcp"],
    tls: bool,
    address: str | None,
    database: str,
    user: str,
    replication: bool,
) -> HbaRule | None:
    """The first rule for this connection. `replication` means physical replication; logical is an ordinary database."""
    source = _client_address(address) if transport == "tcp" else None
    for rule in rules:
        if (
            _type_matches(rule, transport, tls)
            and _address_matches(rule, source)
            and _database_matches(rule.databases, database, user, replication)
            and ("all" in rule.users.keywords or user in rule.users.names)
        ):
            return rule
    return None


def ident_allows(
    maps: Mapping[str, tuple[IdentEntry, ...]], map_name: str | None, *, system_user: str, user: str
) -> bool:
    """May this system user (or certificate name) log in as `user`? Without a map the two must be the same."""
    if map_name is None:
        return system_user == user
    return any(entry.allows(system_user, user) for entry in maps.get(map_name, ()))


def parse_hba(text: str, read: Callable[[str], str | None] = lambda name: None) -> HbaFile:
    """Every line that can be understood, and those that cannot; `read` gives the text of an @file, or None where there
    is none."""
    rules: list[HbaRule] = []
    faults: list[LineFault] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            found = columns(line)
            if found:
                rules.append(_rule(number, found, read))
        except ValueError as error:
            faults.append(_fault(number, line, error))
    return HbaFile(tuple(rules), tuple(faults))


def parse_ident(text: str) -> IdentFile:
    maps: dict[str, tuple[IdentEntry, ...]] = {}
    faults: list[LineFault] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            words = columns(line)
            if not words:
                continue
            if len(words) != 3 or any(len(column) != 1 or column[0].file for column in words):
                raise ValueError("write three words: map name, system user, database user or all")
            name, system_user, database_user = (column[0] for column in words)
            maps[name.text] = (*maps.get(name.text, ()), _ident_entry(system_user, database_user))
        except ValueError as error:
            faults.append(_fault(number, line, error))
    return IdentFile(maps, tuple(faults))


def _fault(number: int, line: str, error: ValueError) -> LineFault:
    text = line.strip()
    option = _OPTION.search(text)
    shown = text[: option.end()] + "…" if option else text
    return LineFault(number, shown if len(shown) <= _TEXT_MAX else shown[:_TEXT_MAX] + "…", str(error))


def _ident_entry(system_user: Word, database_user: Word) -> IdentEntry:
    wanted = None if database_user.is_keyword("all") else database_user.text
    if not system_user.text.startswith("/"):
        return IdentEntry(system_user.text, wanted)
    try:
        pattern = re.compile(system_user.text[1:])
    except re.error as error:
        raise ValueError(f"{short(system_user.text)} is no regular expression ({error})") from None
    if wanted is not None and "\\1" in wanted and not pattern.groups:
        raise ValueError(f"{short(system_user.text)} has no parentheses that \\1 could stand for")
    return IdentEntry(system_user.text, wanted, pattern)


# --- matching --------------------------------------------------------------------------------------------------------


def _client_address(address: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if address is None:
        return None
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    # WHY: a socket that listens on all addresses shows IPv4 clients as IPv6 ones.
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _type_matches(rule: HbaRule, transport: str, tls: bool) -> bool:
    if transport == "unix":
        return rule.type == "local"
    return rule.type == "host" or rule.type == ("hostssl" if tls else "hostnossl")


def _address_matches(rule: HbaRule, source: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if rule.type == "local" or rule.network is None:
        return True
    return source is not None and source.version == rule.network.version and source in rule.network


def _database_matches(databases: Names, database: str, user: str, replication: bool) -> bool:
    if replication:
        # WHY: as in PostgreSQL, `all` and names never let physical replication in.
        return "replication" in databases.keywords
    return (
        "all" in databases.keywords
        or ("sameuser" in databases.keywords and database == user)
        or database in databases.names
    )


# --- reading ---------------------------------------------------------------------------------------------------------


def _rule(number: int, found: list[list[Word]], read: Callable[[str], str | None]) -> HbaRule:
    kind = _word(found[0], "a connection type")
    if kind not in CONNECTION_TYPES:
        raise ValueError(f"{short(kind)} is no connection type; write one of {', '.join(CONNECTION_TYPES)}")
    needed = 4 if kind == "local" else 5
    if len(found) < needed:
        shape = "local database user method" if kind == "local" else f"{kind} database user address method"
        raise ValueError(f"columns are missing; write {shape}")
    databases = _names(found[1], ("all", "sameuser", "replication"), read)
    users = _names(found[2], ("all",), read)
    network: Network | None = None
    rest = found[3:]
    if kind != "local":
        address = _word(rest.pop(0), "an address")
        mask = _word(rest[0], "a mask or method") if rest else ""
        if "/" not in address and address != "all" and len(rest) > 1 and is_address(mask):
            rest.pop(0)
            network = _masked(address, mask)
        else:
            network = _network(address)
    method = _word(rest.pop(0), "a method")
    if method in METHODS_REFUSED:
        raise ValueError(f"{method} is not supported; write one of {', '.join(METHODS)}")
    if method not in METHODS:
        raise ValueError(f"{short(method)} is no method; write one of {', '.join(METHODS)}")
    if method == "peer" and kind != "local":
        raise ValueError("peer works on local lines alone")
    if method == "cert" and kind != "hostssl":
        raise ValueError("cert works on hostssl lines alone")
    if method == "ldap":
        options = ldap_options(word.text for column in rest for word in column)
        return HbaRule(number, kind, databases, users, network, method, ldap=options)
    return HbaRule(number, kind, databases, users, network, method, _map_option(rest))


def _map_option(found: list[list[Word]]) -> str | None:
    name: str | None = None
    for column in found:
        key, _, value = _word(column, "an option").partition("=")
        if key != "map" or not value:
            raise ValueError(f"{short(key)} is no option; only map=NAME is")
        name = value
    return name


def _names(column: list[Word], keywords: tuple[str, ...], read: Callable[[str], str | None]) -> Names:
    found: set[str] = set()
    names: set[str] = set()
    for token in column:
        if token.file:
            names |= _names_of_file(token.text, read)
        elif not token.quoted and token.text in keywords:
            found.add(token.text)
        elif not token.quoted and token.text.startswith("+"):
            raise ValueError(f"{short(token.text)} asks for a group, which the pooler cannot see; list the users")
        else:
            names.add(token.text)
    return Names(frozenset(found), frozenset(names))


def _names_of_file(name: str, read: Callable[[str], str | None]) -> set[str]:
    text = read(name)
    if text is None:
        raise ValueError(f"the file @{short(name)} cannot be read")
    names: set[str] = set()
    for line in text.split("\n"):
        for column in columns(line):
            if any(token.file for token in column):
                raise ValueError(f"the file @{short(name)} names a further file; write its names there")
            names |= {token.text for token in column}
    return names


def _word(column: list[Word], what: str) -> str:
    if len(column) != 1 or column[0].file:
        raise ValueError(f"write one word as {what}")
    return column[0].text


def is_address(text: str) -> bool:
    """Whether this is an IP address, and not a name that may lead to one."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _network(text: str) -> Network | None:
    if text == "all":
        return None
    address, slash, length = text.partition("/")
    if not slash:
        raise ValueError(f"{short(text)} is no address range; write all, ADDRESS/LENGTH or ADDRESS MASK")
    if not (length.isascii() and length.isdigit() and is_address(address)):
        raise ValueError(f"{short(text)} is no address range; write an IP address, a slash and a number of bits")
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{short(text)} has too many bits for its address") from None


def _masked(address: str, mask: str) -> Network:
    if not is_address(address):
        raise ValueError(f"{short(address)} is no IP address")
    bits = ipaddress.ip_address(mask)
    if bits.version != ipaddress.ip_address(address).version:
        raise ValueError(f"the mask {short(mask)} is of another family than the address")
    ones = format(int(bits), f"0{bits.max_prefixlen}b")
    if "01" in ones:
        raise ValueError(f"the mask {short(mask)} has a gap; write ones first, then zeros, like 255.255.0.0")
    return ipaddress.ip_network(f"{address}/{ones.count('1')}", strict=False)
