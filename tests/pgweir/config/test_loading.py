"""Loading a configuration.

Plan: a representative file reads back as what it says; every fault names file, line, key, value and fix; what does
not belong together is refused; nothing is half loaded; noise gets a ConfigError and nothing else.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pgweir.config import Config, ConfigError, find_faults, load
from pgweir.settings import DATABASE_SETTINGS, SETTINGS, DatabaseSettings, Settings, Support, format_value

Loader = Callable[..., Config]


@pytest.fixture
def load_ini(tmp_path: Path) -> Loader:
    """Write p.ini and the other files, and load it with names relative to their folder."""

    def load_it(text: str, **files: str) -> Config:
        for name, content in {"p.ini": text, **files}.items():
            (tmp_path / name.replace("__", ".")).write_text(content, encoding="utf-8", errors="surrogateescape")
        return load(tmp_path / "p.ini", base_dir=tmp_path)

    return load_it


REPRESENTATIVE = """
; a pooler like many
[databases]
app = host=10.0.0.1 port=5433 dbname=application pool_size=3 reserve_pool=2
shop = host=db1,db2 load_balance_hosts=disable user=shop password='it''s secret' connect_query='select 1'
* = host=/run/postgresql

[users]
alice = pool_mode=session pool_size=7 query_timeout=2.5

[peers]
1 = host=10.0.0.8
2 = host=/run/other port=5555 pool_size=4

[pgbouncer]
listen_addr = 127.0.0.1, ::1
listen_port = 6543
unix_socket_mode = 0700
pool_mode = Transaction
query_wait_timeout = 30.5
auth_type = scram-sha-256
auth_file = userlist__txt
admin_users = root, alice
track_extra_parameters = IntervalStyle, search_path
""".replace("__", ".")


def test_a_representative_file_reads_back_as_what_it_says(load_ini: Loader):
    config = load_ini(REPRESENTATIVE, userlist__txt='"alice" "SCRAM-SHA-256$4096:a$b:c"')
    assert config.settings == Settings(
        listen_addr=("127.0.0.1", "::1"),
        listen_port=6543,
        unix_socket_mode=0o700,
        pool_mode="transaction",
        query_wait_timeout=30.5,
        auth_type="scram-sha-256",
        auth_file="userlist.txt",
        admin_users=("root", "alice"),
        track_extra_parameters=("IntervalStyle", "search_path"),
    )
    assert config.database("app") == DatabaseSettings(
        name="app", host="10.0.0.1", port=5433, dbname="application", pool_size=3, reserve_pool_size=2
    )
    shop = config.database("shop")
    assert shop is not None
    assert (shop.hosts, shop.password, shop.connect_query) == (("db1", "db2"), "it's secret", "select 1")
    assert config.users["alice"].query_timeout == 2.5
    assert {number: (peer.host, peer.port, peer.pool_size) for number, peer in config.peers.items()} == {
        1: ("10.0.0.8", 6432, None),
        2: ("/run/other", 5555, 4),
    }
    assert config.userlist == {"alice": "SCRAM-SHA-256$4096:a$b:c"}
    assert config.warnings == ()


def test_every_setting_written_out_reads_back(load_ini: Loader):
    lines = [
        f"{name} = {format_value(info, info.default)}"
        for name, info in SETTINGS.items()
        if info.support is not Support.REFUSED and info.default is not None
    ]
    config = load_ini("[pgbouncer]\n" + "\n".join(lines))
    assert config.settings == Settings()
    assert config.warnings == ()


def test_the_smallest_file_is_an_empty_section(load_ini: Loader):
    config = load_ini("[pgbouncer]")
    assert config.settings == Settings()
    assert config.database("app") is None


# --- the template ---


def test_the_template_serves_every_name_but_the_console(load_ini: Loader):
    config = load_ini("[databases]\n* = host=db\n[pgbouncer]")
    assert config.database("anything") == DatabaseSettings(name="anything", host="db", dbname="anything")
    assert config.database("pgbouncer") is None
    assert dict(config.databases) == {}


def test_a_database_of_the_template_is_the_one_it_names(load_ini: Loader):
    database = load_ini("[databases]\n* = dbname=one\n[pgbouncer]").database("other")
    assert database is not None
    assert (database.name, database.dbname) == ("other", "one")


# --- which value wins ---


PRECEDENCE = """
[databases]
plain =
own = pool_size=5 pool_mode=statement reserve_pool_size=6 min_pool_size=2 max_db_connections=9 server_lifetime=60 query_wait_timeout=0 max_db_client_connections=8 auth_user=looker auth_query='select 1' auth_dbname=plain
zero = pool_size=0 server_lifetime=0 max_db_connections=0 pool_size=-1
[users]
alice = pool_size=7 pool_mode=session reserve_pool_size=0 query_wait_timeout=4 max_user_connections=3 max_user_client_connections=2 query_timeout=1 idle_transaction_timeout=2 transaction_timeout=3 client_idle_timeout=4
nobody = query_timeout=0 max_user_connections=0
[pgbouncer]
default_pool_size = 20
pool_mode = transaction
reserve_pool_size = 1
query_wait_timeout = 100
max_user_connections = 50
query_timeout = 11
"""  # noqa: E501


def test_a_user_wins_over_a_database_and_a_database_over_the_global_value(load_ini: Loader):
    config = load_ini(PRECEDENCE)
    assert [config.pool_size(*pool) for pool in [("own", "alice"), ("own", "bob"), ("plain", "bob")]] == [7, 5, 20]
    assert [config.pool_mode(*pool) for pool in [("own", "alice"), ("own", "bob"), ("plain", "bob")]] == [
        "session",
        "statement",
        "transaction",
    ]
    assert [config.reserve_pool_size(*p) for p in [("own", "alice"), ("own", "bob"), ("plain", "bob")]] == [0, 6, 1]
    assert [config.query_wait_timeout(*p) for p in [("own", "alice"), ("own", "bob"), ("plain", "bob")]] == [4, 0, 100]


def test_what_only_a_database_may_say_wins_over_the_global_value(load_ini: Loader):
    config = load_ini(PRECEDENCE)
    assert (config.min_pool_size("own"), config.min_pool_size("plain")) == (2, 0)
    assert (config.max_db_connections("own"), config.max_db_connections("zero")) == (9, 0)
    assert config.max_db_client_connections("own") == 8
    assert (config.server_lifetime("own"), config.server_lifetime("zero")) == (60, 3600)
    assert (config.auth_user("own"), config.auth_query("own"), config.auth_dbname("own")) == (
        "looker",
        "select 1",
        "plain",
    )
    assert (config.auth_user("plain"), config.auth_dbname("plain")) == (None, "plain")


def test_what_only_a_user_may_say_wins_over_the_global_value(load_ini: Loader):
    config = load_ini(PRECEDENCE)
    assert (config.max_user_connections("alice"), config.max_user_connections("nobody")) == (3, 50)
    assert config.max_user_client_connections("alice") == 2
    assert (config.query_timeout("alice"), config.query_timeout("nobody")) == (1, 11)
    assert config.idle_transaction_timeout("alice") == 2
    assert config.transaction_timeout("alice") == 3
    assert config.client_idle_timeout("alice") == 4


def test_a_negative_size_is_not_set_and_the_template_counts_for_unknown_names(load_ini: Loader):
    assert load_ini(PRECEDENCE).pool_size("zero", "bob") == 20
    assert load_ini("[databases]\n* = pool_size=3\n[pgbouncer]").pool_size("any", "bob") == 3


def test_a_forced_users_password_comes_from_the_entry_or_from_auth_file(load_ini: Loader):
    config = load_ini(
        "[databases]\na = user=x password=p\nb = user=x\n[pgbouncer]\nauth_file = u.txt", u__txt='"x" "from file"'
    )
    assert config.server_password("a", "x") == "p"
    assert config.server_password("a", "y") is None
    assert config.server_password("b", "x") == "from file"
    assert config.server_password("b", "y") is None


# --- faults ---


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "p.ini: the section [pgbouncer] is missing"),
        ("a = 1", "p.ini:1: a: write a section such as [pgbouncer] above this line"),
        ("[other]", "p.ini:1: [other]: this section is not known; write one of [pgbouncer], [databases]"),
        ("[pgbouncer]\npool_mod = session", "p.ini:2: pool_mod: there is no such setting; did you mean pool_mode?"),
        ("[pgbouncer]\nzzzzzz = 1", "p.ini:2: zzzzzz: there is no such setting; remove it"),
        ("[pgbouncer]\npool_mode = fast", "p.ini:2: pool_mode = 'fast': write one of session, transaction, statement"),
        ("[pgbouncer]\n\nlisten_port = 65536", "p.ini:3: listen_port = '65536': write a whole number from 0 to 65535"),
        ("[pgbouncer]\nquery_timeout = 5s", "p.ini:2: query_timeout = '5s': write seconds as a number"),
        ("[pgbouncer]\nauth_type = pam", "p.ini:2: auth_type = 'pam': pam is not supported here"),
        ("[pgbouncer]\nserver_tls13_ciphers = x", "p.ini:2: server_tls13_ciphers = 'x': remove this line"),
        ("[databases]\npgbouncer = host=a", "p.ini:2: pgbouncer: this name is reserved for the console"),
        ("[databases]\na = hots=b", "p.ini:2: a: hots: there is no such key; did you mean host?"),
        ("[databases]\na = port=0", "p.ini:2: a: port = '0': write a whole number from 1 to 65535"),
        ("[databases]\na = host", "p.ini:2: a: the text cannot be read; write key=value pairs"),
        ("[users]\nu = host=a", "p.ini:2: u: host: there is no such key"),
        ("[users]\nu = pool_mode=x", "p.ini:2: u: pool_mode = 'x': write one of session"),
        ("[peers]\n0 = host=a", "p.ini:2: 0: name a peer by a number from 1 to 16383"),
        ("[peers]\n16384 = host=a", "p.ini:2: 16384: name a peer by a number from 1 to 16383"),
        ("[peers]\nx = host=a", "p.ini:2: x: name a peer by a number from 1 to 16383"),
        ("[peers]\n1 = port=1", "p.ini:2: 1: add host=, the address of this peer"),
        ("[pgbouncer]\nauth_file = gone", "p.ini:2: auth_file = 'gone': name a file that can be read (No such file"),
        ("[pgbouncer]\nauth_file = .", "p.ini:2: auth_file = '.': name a file that can be read (Is a directory"),
    ],
)
def test_a_fault_names_file_line_key_value_and_what_to_write(load_ini: Loader, text: str, sentence: str):
    with pytest.raises(ConfigError) as error:
        load_ini(text)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("auth_type = hba", "auth_type = 'hba': this needs auth_hba_file too"),
        ("auth_type = cert", "auth_type = 'cert': this needs client_tls_sslmode = verify-full and client_tls_ca_file"),
        ("client_tls_sslmode = require", "this needs client_tls_cert_file and client_tls_key_file"),
        (
            "client_tls_sslmode = verify-ca\nclient_tls_cert_file = c\nclient_tls_key_file = k",
            "this needs client_tls_ca_file",
        ),
        ("server_tls_key_file = k", "server_tls_key_file = 'k': this needs server_tls_cert_file too"),
        ("server_tls_cert_file = c", "server_tls_cert_file = 'c': this needs server_tls_key_file too"),
        ("server_tls_ca_file = gone", "server_tls_ca_file = 'gone': name a file that can be read"),
        ("auth_dbname = postgres", "auth_dbname = 'postgres': auth_dbname needs auth_user too"),
        ("auth_user = x\nauth_dbname = pgbouncer", "auth_dbname cannot be the console"),
        ("[databases]\na = auth_dbname=b", "databases.a = 'b': auth_dbname needs auth_user too"),
        ("server_tls_sslnegotiation = direct", "'direct': this needs server_tls_sslmode = require"),
        ("reserved_connections = 100", "reserved_connections = '100': nobody could connect; write less than"),
    ],
)
def test_what_does_not_belong_together_is_refused(load_ini: Loader, lines: str, sentence: str):
    with pytest.raises(ConfigError) as error:
        load_ini(f"[pgbouncer]\n{lines}")
    assert sentence in str(error.value)
    assert error.value.line > 0


def test_every_fault_is_found_and_the_first_is_the_one_that_stops_a_load(tmp_path: Path):
    ini = tmp_path / "p.ini"
    ini.write_text("[pgbouncer]\nlog_stats = 2\nauth_type = hba\n[nonsense]\n[users]\na = pool_size=x b=1\n")
    faults, _ = find_faults(ini)
    assert [(fault.line, fault.key) for fault in faults] == [
        (2, "log_stats"),
        (4, "[nonsense]"),
        (6, "a: pool_size"),
    ], "what belongs together (auth_type) is looked at when each line is good"
    with pytest.raises(ConfigError) as error:
        load(ini)
    assert str(error.value) == str(faults[0])
    ini.write_text("[pgbouncer]\nauth_type = hba\npkt_buf = 1\n")
    faults, warnings = find_faults(ini)
    assert [fault.key for fault in faults] == ["auth_type"]
    assert ["pkt_buf" in warning for warning in warnings] == [True]
    ini.write_text("[pgbouncer]\n")
    assert find_faults(ini) == ([], ())


def test_a_missing_file_is_named():
    assert [str(fault) for fault in find_faults("/nowhere/p.ini")[0]] == [
        "/nowhere/p.ini: name a file that can be read (No such file or directory)"
    ]
    with pytest.raises(ConfigError, match=r"^/nowhere/p\.ini: name a file that can be read"):
        load("/nowhere/p.ini")


@pytest.mark.parametrize(
    "text",
    [
        "[databases]\na = password=hunter2 hunter2",
        "[databases]\na = passwort=hunter2",
        "[databases]\na = 'hunter2",
        "[pgbouncer]\napp = host=x password=hunter2",
        "[pgbouncer]\npassword=hunter2\n",
        "app host=x password=hunter2",
    ],
)
def test_no_error_shows_a_password(load_ini: Loader, text: str):
    with pytest.raises(ConfigError) as error:
        load_ini(text)
    assert "hunter2" not in str(error.value) + repr(error.value)


def test_no_repr_shows_a_password(load_ini: Loader):
    config = load_ini(
        "[databases]\na = password=hunter2\n* = password=hunter2\n[pgbouncer]\nauth_file=u", u='"u" "hunter2"'
    )
    assert "hunter2" not in repr(config)


# --- warnings ---


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[pgbouncer]\npkt_buf = 8192", "p.ini:2: pkt_buf: this has no effect here."),
        ("[pgbouncer]\nmin_pool_size = 30", "p.ini:2: min_pool_size: min_pool_size 30 is more than the pool size 20"),
        ("[pgbouncer]\n[databases]\na = pool_size=1 min_pool_size=2", "p.ini:3: databases.a: min_pool_size 2 is more"),
        (
            "[pgbouncer]\npool_mode=statement\n[pgbouncer]",
            "p.ini:3: another section [pgbouncer] begins here: pool_mode",
        ),
        ("[pgbouncer]\n[databases]\na = password=x", "p.ini:3: databases.a: password counts only together with user"),
        ("[pgbouncer]\nauth_user = x\nauth_dbname = gone", "auth_dbname 'gone' is no entry of [databases]"),
    ],
)
def test_what_may_surprise_is_a_warning(load_ini: Loader, text: str, sentence: str):
    (warning,) = load_ini(text).warnings
    assert sentence in warning


def test_an_unlimited_pool_may_have_any_minimum(load_ini: Loader):
    assert load_ini("[pgbouncer]\ndefault_pool_size = 0\nmin_pool_size = 30").warnings == ()


def test_another_section_pgbouncer_begins_at_the_defaults(load_ini: Loader):
    config = load_ini("[pgbouncer]\npool_mode = statement\nlisten_port = 1\n[pgbouncer]\nlisten_port = 2")
    assert config.settings == Settings(listen_port=2)


def test_an_entry_is_still_found_after_another_section_pgbouncer(load_ini: Loader):
    with pytest.raises(ConfigError) as error:
        load_ini("[pgbouncer]\npool_mode = statement\n[databases]\na = auth_dbname=b\n[pgbouncer]")
    assert error.value.line == 4


AUTH_FILES = "[pgbouncer]\nauth_type = hba\nauth_hba_file = h\nauth_file = u\nauth_ident_file = i"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"h": "\nhost all all all rejct"},
            "h:2: 'host all all all rejct': 'rejct' is no method; write one of trust, rej",
        ),
        ({"h": "host all all all ldap"}, "h:1: 'host all all all ldap': ldap needs ldapprefix"),
        ({"u": '"alice" "hunter2"\n"bob" hunter2'}, 'u:2: write "name" "secret", both in double quotes'),
        ({"i": "staff root"}, "i:1: 'staff root': write three words"),
    ],
)
def test_a_line_that_cannot_be_read_refuses_the_whole_and_names_its_file(
    load_ini: Loader, files: dict[str, str], sentence: str
):
    good = {"h": "host all all all trust", "u": '"alice" "x"', "i": "staff root all"}
    assert load_ini(AUTH_FILES, **good).warnings == ()
    with pytest.raises(ConfigError) as error:
        load_ini(AUTH_FILES, **good | files)
    assert str(error.value).startswith(sentence)
    assert "hunter2" not in str(error.value)


def test_every_line_that_cannot_be_read_is_found(tmp_path: Path):
    (tmp_path / "p.ini").write_text(AUTH_FILES)
    for name in "hui":
        (tmp_path / name).write_text("what\n\never\n")
    faults, _ = find_faults(tmp_path / "p.ini", base_dir=tmp_path)
    assert [(fault.file, fault.line) for fault in faults] == [(name, line) for name in "uhi" for line in (1, 3)]


def test_hba_names_come_from_files_beside_it(load_ini: Loader):
    config = load_ini("[pgbouncer]\nauth_type = hba\nauth_hba_file = h", h="host @dbs all all trust", dbs="app\nshop")
    assert config.hba[0].databases.names == {"app", "shop"}


# --- files, digests, includes ---


def test_names_resolve_against_the_folder_that_is_given_and_stay_as_written(load_ini: Loader, tmp_path: Path):
    config = load_ini("%include more\n", more="[pgbouncer]\nauth_file = u", u='"a" "b"')
    assert config.settings.auth_file == "u"
    assert config.userlist == {"a": "b"}
    assert config.file("u") == tmp_path / "u"


def test_without_a_folder_names_resolve_against_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "p.ini").write_text("[pgbouncer]\nauth_file = u")
    (tmp_path / "u").write_text('"a" "b"')
    monkeypatch.chdir(tmp_path)
    assert load("conf/p.ini").userlist == {"a": "b"}


def test_the_digest_changes_with_every_file_and_not_with_the_folder(tmp_path: Path):
    def digest(folder: str, userlist: str = '"a" "b"', ini: str = "[pgbouncer]\nauth_file = u") -> str:
        base = tmp_path / folder
        base.mkdir(exist_ok=True)
        (base / "p.ini").write_text(ini)
        (base / "u").write_text(userlist)
        return load(base / "p.ini", base_dir=base).digest

    first = digest("one")
    assert first == digest("two")
    assert first != digest("one", userlist='"a" "c"')
    assert first != digest("one", ini="[pgbouncer]\nauth_file = u\n")


def test_the_identity_of_tls_changes_with_its_settings_and_the_bytes_of_its_files(load_ini: Loader):
    text = "[pgbouncer]\nserver_tls_ca_file = ca"
    first = load_ini(text, ca="one")
    assert first.tls_identity("server") == load_ini(f"{text}\npool_mode = statement").tls_identity("server")
    assert first.tls_identity("server") != load_ini(text, ca="two").tls_identity("server")
    assert first.tls_identity("client") == load_ini(text, ca="three").tls_identity("client")
    assert first.tls_identity("server") != load_ini(f"{text}\nserver_tls_sslmode = require").tls_identity("server")


def test_bytes_that_are_no_utf8_pass_through(tmp_path: Path):
    (tmp_path / "p.ini").write_bytes(b"[pgbouncer]\nauth_file = u\nserver_reset_query = \xff")
    (tmp_path / "u").write_bytes(b'"\xe9" "\xff"')
    config = load(tmp_path / "p.ini", base_dir=tmp_path)
    assert config.settings.server_reset_query.encode("utf-8", "surrogateescape") == b"\xff"
    assert config.userlist == {"\udce9": "\udcff"}


# --- noise ---

KEYS = [*SETTINGS, *DATABASE_SETTINGS, "%include", "[pgbouncer]", "[databases]", "[users]", "[peers]", "*", "'"]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.text(),
            st.tuples(st.sampled_from(KEYS), st.text(max_size=20)).map(" = ".join),
            st.sampled_from(KEYS),
        )
    ).map("\n".join),
    st.booleans(),
)
@example("%include \0", True)
@example("%include \udcff", True)
@example("auth_file = " + "x" * 5000, True)
@example("auth_file = ~/\udc80", True)
def test_noise_gets_a_config_error_and_nothing_else(load_ini: Loader, text: str, section: bool):
    with contextlib.suppress(ConfigError):
        load_ini(("[pgbouncer]\n" if section else "") + text.encode("utf-8", "replace").decode())
