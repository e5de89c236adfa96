"""Noise gets the parser's own error, and nothing else.

One table: every function of the data plane that reads what somebody else wrote, the samples that are damaged for it, and the
one error that it may raise. A test walks the package and insists that no parser is missing from it.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.robustness.noise import PLACES, cuts, few_or_many, noisy_bytes, noisy_text

import pgweir
from pgweir import bundle, hba, ldap, userlist
from pgweir.admin import control, http, parameters
from pgweir.admin import parse as console
from pgweir.config import ConfigError, ini, load
from pgweir.protocol import messages, prepared, replay, startup, statements
from pgweir.protocol.auth import auth_query, md5, scram, secrets
from pgweir.protocol.auth.client_auth import ClientAuthentication
from pgweir.protocol.auth.heavy import done_at_once
from pgweir.protocol.auth.server_auth import ServerAuthentication
from pgweir.protocol.errors import ClientError, ProtocolError, ServerLoginError
from pgweir.protocol.exchange import Exchange
from pgweir.protocol.prepared import Action, Owed
from pgweir.protocol.reader import MessageReader
from pgweir.settings import SETTINGS, declaration

KEY = bytes(range(32))
VERIFIER = scram.build_verifier("secret", b"salt" * 4, 1)
NONCE = b"rOprNGfwEbeRWgbNEkqO"
CLIENT_FIRST = b"n,,n=,r=" + NONCE
SERVER_FIRST = b"r=" + NONCE + b"more,s=" + b"c2FsdHNhbHQ=" + b",i=4096"


def random(size: int) -> bytes:
    return bytes(size)


def body(message: bytes) -> bytes:
    return message[5:]


# --- how each parser is called ---------------------------------------------------------------------------------------


def read_messages(data: bytes, places: list[int]) -> None:
    reader = MessageReader(4096)
    for piece in cuts(data, places):
        list(reader.feed(piece))


def read_startup(data: bytes, places: list[int]) -> None:
    reader = startup.StartupReader()
    for piece in cuts(data, places):
        reader.feed(piece)


def split_startup(data: bytes) -> None:
    event = startup.StartupReader().feed(data)
    if isinstance(event, startup.Startup):
        for mode in ("reject", "ignore", "relay"):
            startup.negotiate(event)
            try:
                startup.split_parameters(event, ("client_encoding", "TimeZone"), ("extra_float_digits",), mode)
            except ClientError:
                pass


def scan(data: bytes, places: list[int]) -> None:
    exchange = Exchange()
    statement = prepared.Statement(b"PGBOUNCER_1", b"SELECT 1\0\0\0")
    for kind in b"QPBDESPBES":
        exchange.expect(kind)
    exchange.expect_special(Owed(ord("P"), Action.SKIP, statement))
    exchange.expect_special(Owed(ord("P"), Action.FAKE, statement, {}, b"name"))
    exchange.expect(ord("S"))
    for piece in cuts(data, places):
        exchange.scan(piece)
        exchange.settled  # noqa: B018


def look_up(data: bytes) -> None:
    result = auth_query.AuthQueryResult()
    for type_, content in MessageReader(4096).feed(data):
        result.receive(type_, content)


def prove(method: Any, secret: str | None) -> Callable[[list[bytes]], None]:
    def run(bodies: list[bytes]) -> None:
        proof = ClientAuthentication(
            method, user="alice", secret=secret, random=random, mock_key=KEY, scram_iterations=1
        )
        proof.start()
        for content in bodies:
            done_at_once(proof.receive(messages.F.PASSWORD, content))

    return run


def log_in(bodies: list[bytes]) -> None:
    login = ServerAuthentication("alice", password="secret", scram_keys=None, random=random)
    for content in bodies:
        done_at_once(login.receive(content))


def scram_server(bodies: list[bytes]) -> None:
    exchange = scram.ScramServer(VERIFIER, NONCE)
    exchange.first(bodies[0] if bodies else b"")
    for content in bodies[1:]:
        exchange.final(content)


def scram_client(bodies: list[bytes]) -> None:
    exchange = scram.ScramClient(nonce=NONCE, keys=scram.ScramKeys(KEY, KEY))
    exchange.first()
    for number, content in enumerate(bodies):
        if number:
            exchange.verify(content)
        else:
            exchange.final(content)


def read_ini(text: str) -> None:
    """The file includes itself, a file that is not there, and one that cannot be decoded."""

    def read(name: str) -> str:
        if name == "gone":
            raise FileNotFoundError(2, "no such file", name)
        return text if name in ("pgbouncer.ini", "self") else ""

    list(ini.parse_ini("pgbouncer.ini", read))


def load_file(folder: Path) -> Callable[[str], None]:
    def run(text: str) -> None:
        (folder / "pgbouncer.ini").write_bytes(text.encode("utf-8", "surrogateescape"))
        load(folder / "pgbouncer.ini", base_dir=folder)

    return run


def use_hba(text: str) -> None:
    rules = hba.parse_hba(text, lambda name: text if name == "self" else None).rules
    for address in ("10.0.0.1", "::1", None, "?"):
        for transport in ("tcp", "unix"):
            for replication in (False, True):
                hba.match_hba(
                    rules,
                    transport=transport,  # type: ignore[arg-type]
                    tls=True,
                    address=address,
                    database="app",
                    user="alice",
                    replication=replication,
                )


def use_ldap(text: str) -> None:
    options = ldap.parse_ldap_options(text)
    options.filter_for(text)
    options.bind_name(text)


def use_ident(text: str) -> None:
    maps = hba.parse_ident(text).maps
    for name in [*maps, "none"]:
        hba.ident_allows(maps, name, system_user="root", user="alice")


def parse_every_setting(text: str) -> None:
    for info in SETTINGS.values():
        try:
            declaration.format_value(info, declaration.parse_value(info, text))
        except declaration.SettingError:
            pass


def replay_is_safe(error: bytes, spoken: bytes) -> None:
    trouble = replay.statement_trouble(error)
    for assumed in (replay.Trouble.CHANGED, replay.Trouble.LOST):
        assert replay.may_replay(spoken, list(b"BDES"), trouble or assumed) in (True, False)


def bind_parameters(types: list[int], formats: list[int], values: list[bytes | None]) -> None:
    (command,) = console.parse("SET $1 = $2")
    parameters.bound(command, parameters.parameter_types(command, types), formats, values)


def bind_names(data: bytes) -> None:
    portal_end, statement_end = prepared.bind_names_end(data, 5, len(data))
    assert statement_end == -1 or 5 <= portal_end < statement_end < len(data)


def many(*samples: bytes) -> st.SearchStrategy[list[bytes]]:
    return st.lists(noisy_bytes(*samples), min_size=1, max_size=4)


# --- the table -------------------------------------------------------------------------------------------------------

LOGIN = messages.authentication_ok() + messages.parameter_status("TimeZone", "UTC") + messages.ready_for_query(b"I")
ERROR = messages.error_response("ERROR", "42601", "syntax error", "detail", "hint")
ROWS = messages.row_description([("name", 25), ("secret", 25)]) + messages.data_row([b"alice", None])
ANSWER = ROWS + messages.command_complete("SELECT 1") + messages.ready_for_query(b"T")
EXTENDED = messages.PARSE_COMPLETE + messages.BIND_COMPLETE + ANSWER + messages.CLOSE_COMPLETE
COPY = b"G\0\0\0\x07\0\0\0" + b"d\0\0\0\x07abc" + messages.command_complete("COPY 1")
STARTUP = messages.startup_message(
    {"user": "alice", "database": "app", "options": r"-c a=b --c-d=e\ f", "TimeZone": "UTC"}
)
INI = """
; a comment
[databases]
app = host=127.0.0.1 port=5432 dbname='it''s' pool_size=3
* = host=/tmp
'quoted name' = host=a,b
[users]
alice = pool_mode=session
[peers]
1 = host=/tmp
[pgbouncer]
listen_port = 6432
auth_type = trust
server_idle_timeout = 1.5
%include self
%include gone
"""
LOADABLE = INI.split("%include")[0]
HBA = """
local all all trust
host app,other alice,"b ob" 10.0.0.0/8 md5
hostssl all @self ::1/128 cert map=m
host all all 10.0.0.0 255.0.0.0 scram-sha-256
hostnossl sameuser all 0.0.0.0/0 reject # no
"""
IDENT = 'm root alice\nm "x y" all\n'
BUNDLE = bundle.bundle_manifest(revision=3, paused=True, catalogue_version=1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["revision", "paused", "catalogueVersion", "files", "pgbouncer.ini", "bundle.json"])
            | st.text(max_size=8),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)
PUSHED = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {
            "revision": JSON | st.just(3),
            "paused": JSON | st.just(True),
            "catalogueVersion": JSON | st.just(1),
            "files": JSON | st.dictionaries(st.text(max_size=8), st.just("YQ=="), max_size=3),
        }
    ),
)


@dataclass(frozen=True)
class Parser:
    """`covers` are the functions that this entry puts to the test."""

    name: str
    covers: tuple[str, ...]
    call: Callable[..., object]
    noise: tuple[st.SearchStrategy[Any], ...]
    errors: tuple[type[Exception], ...] = ()


P = "protocol."
BODIES: list[Parser] = [
    Parser(name, (f"{P}messages.{name}",), getattr(messages, name), (noisy_bytes(body(sample)),), (ProtocolError,))
    for name, sample in {
        "parse_error": ERROR,
        "parse_parameter_status": messages.parameter_status("TimeZone", "UTC"),
        "parse_backend_key_data": messages.backend_key_data(1, b"1234"),
        "parse_ready_for_query": messages.ready_for_query(b"I"),
        "parse_authentication": messages.authentication_sasl(["SCRAM-SHA-256", "X"]),
        "parse_row_description": messages.row_description([("name", 25), ("secret", 25)]),
        "parse_data_row": messages.data_row([b"alice", None, b""]),
        "parse_command_complete": messages.command_complete("SELECT 1"),
        "parse_password": messages.password_message("secret"),
        "parse_sasl_initial_response": messages.sasl_initial_response("SCRAM-SHA-256", CLIENT_FIRST),
        "parse_query": messages.query("SELECT 1"),
    }.items()
]
AUTHENTICATIONS = [
    body(message)
    for message in (
        messages.authentication_ok(),
        messages.authentication_cleartext(),
        messages.authentication_md5(b"salt"),
        messages.authentication_sasl(["SCRAM-SHA-256"]),
        messages.authentication_sasl_continue(b"r=" + bytes(24).hex().encode() + b",s=c2FsdA==,i=1"),
        messages.authentication_sasl_final(b"v=c2FsdA=="),
    )
]
PROOFS = [
    body(messages.sasl_initial_response("SCRAM-SHA-256", CLIENT_FIRST)),
    b"c=biws,r=" + NONCE + b"AAAA,p=" + b"A" * 43 + b"=",
    b"md5" + b"0" * 32 + b"\0",
    b"secret\0",
]
TABLE: list[Parser] = [
    *BODIES,
    Parser(
        "MessageReader",
        (P + "reader.MessageReader.feed",),
        read_messages,
        (noisy_bytes(LOGIN, ERROR), PLACES),
        (ProtocolError,),
    ),
    Parser(
        "StartupReader",
        (P + "startup.StartupReader.feed",),
        read_startup,
        (
            noisy_bytes(
                STARTUP,
                messages.ssl_request(),
                messages.cancel_request(b"12345678"),
                messages.gssenc_request(),
                b"\x16\x03\x01",
            ),
            PLACES,
        ),
        (ProtocolError,),
    ),
    Parser(
        "split_parameters", (P + "startup.split_parameters",), split_startup, (noisy_bytes(STARTUP),), (ProtocolError,)
    ),
    Parser(
        "parse_options",
        (P + "startup.parse_options",),
        lambda text: list(startup.parse_options(text)),
        (noisy_text(r"-c a=b -ca=b --c-d=e\ f"),),
        (ProtocolError,),
    ),
    Parser(
        "scan",
        (P + "exchange.Exchange.scan",),
        scan,
        (noisy_bytes(LOGIN, ERROR, ANSWER, EXTENDED, COPY), PLACES),
        (ProtocolError,),
    ),
    Parser(
        "AuthQueryResult",
        (P + "auth.auth_query.AuthQueryResult.receive",),
        look_up,
        (noisy_bytes(ANSWER, ERROR),),
        (ProtocolError,),
    ),
    *(
        Parser(
            f"ClientAuthentication-{method}-{kind}",
            (P + "auth.client_auth.ClientAuthentication.receive",),
            prove(method, secret),
            (many(*PROOFS),),
            (ClientError,),
        )
        for method in ("plain", "md5", "scram-sha-256")
        for kind, secret in {
            "nobody": None,
            "empty": "",
            "plain": "secret",
            "md5": md5.md5_secret("alice", "secret"),
            "scram": VERIFIER.format(),
        }.items()
    ),
    Parser(
        "ServerAuthentication",
        (P + "auth.server_auth.ServerAuthentication.receive",),
        log_in,
        (many(*AUTHENTICATIONS),),
        (ServerLoginError, ProtocolError),
    ),
    Parser(
        "ScramServer",
        (P + "auth.scram.ScramServer.first", P + "auth.scram.ScramServer.final"),
        scram_server,
        (many(CLIENT_FIRST, PROOFS[1]),),
        (ProtocolError,),
    ),
    Parser(
        "ScramClient",
        tuple(f"{P}auth.scram.ScramClient.{verb}" for verb in ("first", "final", "verify")),
        scram_client,
        (many(SERVER_FIRST, b"v=c2FsdA==", b"e=other-error"),),
        (ProtocolError, ServerLoginError),
    ),
    Parser(
        "parse_verifier", (P + "auth.scram.parse_verifier",), scram.parse_verifier, (noisy_text(VERIFIER.format()),)
    ),
    Parser(
        "secret_kind",
        (P + "auth.secrets.secret_kind",),
        secrets.secret_kind,
        (noisy_text(VERIFIER.format(), "md5" + "0" * 32),),
    ),
    Parser(
        "normalized_password",
        (P + "auth.scram.normalized_password",),
        scram.normalized_password,
        (st.text(max_size=40),),
    ),
    Parser(
        "split_parse",
        (P + "prepared.split_parse",),
        prepared.split_parse,
        (noisy_bytes(b"name\0SELECT 1\0\0\0"),),
        (ProtocolError,),
    ),
    Parser(
        "split_target",
        (P + "prepared.split_target",),
        lambda data: prepared.split_target(data, "broken"),
        (noisy_bytes(b"Sname\0"),),
        (ProtocolError,),
    ),
    Parser(
        "replay",
        (P + "replay.statement_trouble", P + "replay.may_replay"),
        replay_is_safe,
        (
            noisy_bytes(b"VERROR\0C0A000\0RRevalidateCachedQuery\0\0", b"VERROR\0C26000\0Mno PGBOUNCER_1\0\0"),
            noisy_bytes(
                messages.bind("", "s", [b"1"]) + messages.describe("P", "") + messages.execute() + messages.sync()
            ),
        ),
    ),
    Parser(
        "split_statements",
        (P + "statements.split_statements",),
        statements.split_statements,
        (noisy_text("DISCARD ALL; SELECT ';' -- ;\n; /* ; */ SELECT $$;$$"),),
    ),
    Parser(
        "ldap",
        ("ldap.parse_ldap_options",),
        ldap.parse_ldap_options,
        (noisy_text('ldapserver=a ldapprefix="cn="', "ldapurl=ldaps://h:636/dc=x?uid?sub?(a=b) ldaptls=0"),),
        (ValueError,),
    ),
    Parser(
        "console parameters",
        ("admin.parameters.parameter_types", "admin.parameters.bound"),
        bind_parameters,
        (
            st.lists(st.sampled_from([0, 20, 21, 23, 25, 4242]), max_size=3),
            st.lists(st.integers(0, 3), max_size=3),
            st.lists(st.none() | st.binary(max_size=9), max_size=3),
        ),
        (console.ConsoleError,),
    ),
    Parser(
        "bind_names_end", (P + "prepared.bind_names_end",), bind_names, (noisy_bytes(messages.bind("p", "s", [b"1"])),)
    ),
    Parser(
        "parse_userlist",
        ("userlist.parse_userlist",),
        userlist.parse_userlist,
        (noisy_text('"alice" "secret"\n; comment\n"b""ob" "md5"\n'),),
    ),
    Parser("parse_hba", ("hba.parse_hba", "hba.match_hba"), use_hba, (noisy_text(HBA),)),
    Parser(
        "parse_ldap_options",
        ("ldap.parse_ldap_options",),
        use_ldap,
        (
            noisy_text(
                'ldapserver=x ldapbasedn="dc=x" ldapsearchfilter="(uid=$username)"', "ldapurl=ldap://x:1/dc=x?a?sub"
            ),
        ),
        (ValueError,),
    ),
    Parser("parse_ident", ("hba.parse_ident", "hba.ident_allows"), use_ident, (noisy_text(IDENT),)),
    Parser("parse_ini", ("config.ini.parse_ini",), read_ini, (noisy_text(INI, LOADABLE),), (ConfigError,)),
    Parser(
        "parse_connection_string",
        ("config.ini.parse_connection_string",),
        lambda text: list(ini.parse_connection_string(text)),
        (noisy_text("host=a dbname='it''s' port = 1"),),
        (ValueError,),
    ),
    Parser(
        "parse_value",
        ("settings.declaration.parse_value", "settings.declaration.format_value"),
        parse_every_setting,
        (noisy_text("0x1F", "-1", "1.5e3", "a, b", "transaction"),),
    ),
    Parser(
        "console",
        ("admin.parse.parse",),
        console.parse,
        (noisy_text("SHOW POOLS; SET a = 'it''s'; PAUSE \"a db\" -- x\n /* y */ KILL x;"),),
        (console.ConsoleError,),
    ),
    Parser(
        "read_bundle",
        ("bundle.read_bundle",),
        lambda name, manifest: bundle.read_bundle({name: b"", "bundle.json": manifest}).digest,
        (
            st.just("pgbouncer.ini") | st.text(max_size=10),
            noisy_bytes(BUNDLE) | JSON.map(lambda value: json.dumps(value).encode()),
        ),
        (bundle.BundleError,),
    ),
    Parser(
        "bundle_of",
        ("admin.control.bundle_of",),
        lambda document: control.bundle_of(document).digest,
        (PUSHED,),
        (ValueError,),
    ),
    Parser("revision_of", ("admin.control._revision_of",), control._revision_of, (JSON,), (ValueError,)),
    Parser(
        "parse_address",
        ("admin.http.parse_address",),
        http.parse_address,
        (noisy_text("127.0.0.1:80", "[::]:80", "*:1"),),
        (ValueError,),
    ),
]


@pytest.mark.parametrize("parser", TABLE, ids=lambda parser: parser.name)
def test_noise_gets_the_parsers_own_error_and_nothing_else(parser: Parser) -> None:
    @few_or_many
    @given(st.tuples(*parser.noise))
    def survives(noise: tuple[Any, ...]) -> None:
        try:
            parser.call(*noise)
        except parser.errors:
            pass

    survives()


@few_or_many
@given(
    noisy_text(
        LOADABLE, "[pgbouncer]\nauth_file = gone\n", "[pgbouncer]\nauth_hba_file = pgbouncer.ini\nauth_type = hba\n"
    )
)
def test_a_noisy_file_does_not_load_with_a_sentence(tmp_path: Path, text: str) -> None:
    try:
        load_file(tmp_path)(text)
    except ConfigError:
        pass


# --- is every parser there? ------------------------------------------------------------------------------------------

# Names that say "I read what somebody else wrote".
READS = re.compile(
    r"(parse|read|split)(_.*)?|feed|scan|receive|first|final|verify|secret_kind|bind_names_end|match_.*|ident_allows"
    r"|bundle_of|_revision_of|normalized_password"
)
# Public functions with such a name that do something else, and what.
OTHERS = {
    "protocol.messages.parse": "builds a Parse message",
    "protocol.prepared.Statement.parse_message": "builds a Parse message",
    "config.loading._Files.read_bytes": "reads a file",
    "config.loading._Files.read_text": "reads a file",
    "config.loading._Files.read_ini": "reads a file",
    "net.calls.receive": "the system call",
}


def functions() -> Iterator[str]:
    for module in pkgutil.walk_packages(pgweir.__path__, "pgweir."):
        if module.name.endswith("__main__"):
            continue
        room = importlib.import_module(module.name)
        for name, found in vars(room).items():
            if getattr(found, "__module__", None) != module.name:
                continue
            path = f"{module.name.removeprefix('pgweir.')}.{name}"
            if inspect.isroutine(found):
                yield path
            elif inspect.isclass(found):
                yield from (f"{path}.{verb}" for verb, member in vars(found).items() if inspect.isroutine(member))


def test_every_parser_of_the_data_plane_is_in_the_table() -> None:
    covered = {path for parser in TABLE for path in parser.covers}
    existing = set(functions())
    assert covered <= existing, "the table names what is not there"
    readers = {path for path in existing if READS.fullmatch(path.rpartition(".")[2])}
    missing = readers - covered - OTHERS.keys()
    assert not missing, f"give these a line in TABLE, or in OTHERS with what they are: {sorted(missing)}"
