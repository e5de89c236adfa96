"""LDAP directories for tests: Debian's slapd where it can be had, and a small one of our own that is always there.

slapd is taken from the PATH, or unpacked (not installed) from Debian's packages into ${PGWEIR_CACHE:-~/.cache/pgweir}/slapd by
apt-get, once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import socketserver
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.postgres.certificates import Certificates
from tests.postgres.server import free_port, make_directory

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3

SUFFIX = "dc=example,dc=org"
PEOPLE = f"ou=people,{SUFFIX}"
ADMIN_DN, ADMIN_PASSWORD = f"cn=admin,{SUFFIX}", "directory-admin"
# uid -> password; one with characters that mean something in a name or a filter
USERS = {"alice": "alice-in-ldap", "bob": "bob-in-ldap", "o*(dd)\\": "odd-in-ldap"}


@dataclass
class Directory:
    """Where it listens, and (the small one) what it was asked."""

    port: int
    tls_port: int = 0
    users: dict[str, str] = field(default_factory=lambda: dict(USERS))
    asked: list[str] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)  # the small one waits for it


# --- slapd -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slapd:
    program: Path
    root: Path  # what its files lie under

    @property
    def environment(self) -> dict[str, str]:
        libraries = [str(path.parent) for path in self.root.glob("usr/lib/*/libslapi-*.so.*")]
        own = {"LD_LIBRARY_PATH": ":".join(libraries)} if self.root != Path("/") else {}
        return {**os.environ, **own}


def find_slapd() -> Slapd | None:
    found = shutil.which("slapd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is not None:
        return Slapd(Path(found), Path("/"))
    folder = Path(os.environ.get("PGWEIR_CACHE") or Path.home() / ".cache/pgweir") / "slapd"
    unpacked = Slapd(folder / "usr/sbin/slapd", folder)
    if not unpacked.program.exists():
        _unpack(folder)
    works = (
        unpacked.program.exists()
        and not subprocess.run(
            [unpacked.program, "-VV"], env=unpacked.environment, capture_output=True, check=False
        ).returncode
    )
    return unpacked if works else None


def _unpack(folder: Path) -> None:
    """Nothing where there is no apt-get, or nothing to get."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for package in ("libltdl7", "slapd"):
        fetched = subprocess.run(
            ["apt-get", "download", package], cwd=folder, capture_output=True, check=False, timeout=60
        )
        if fetched.returncode:
            return
        for file in folder.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg-deb", "-x", file, folder], check=True)
            file.unlink()


@contextlib.contextmanager
def slapd(program: Slapd, certificates: Certificates) -> Iterator[Directory]:
    directory = Directory(free_port(), free_port())
    folder = make_directory("slapd-")
    (folder / "data").mkdir()
    schema = program.root / "etc/ldap/schema"
    (folder / "slapd.conf").write_text(
        "".join(f'include "{schema}/{name}.schema"\n' for name in ("core", "cosine", "inetorgperson"))
        + f'modulepath "{program.root}/usr/lib/ldap"\nmoduleload back_mdb\n'
        f"TLSCACertificateFile {certificates.ca}\nTLSCertificateFile {certificates.server.certificate}\n"
        f"TLSCertificateKeyFile {certificates.server.key}\npidfile {folder}/pid\n"
        f"database mdb\nsuffix {SUFFIX}\nrootdn {ADMIN_DN}\nrootpw {ADMIN_PASSWORD}\ndirectory {folder}/data\n"
    )
    addresses = f"ldap://127.0.0.1:{directory.port} ldaps://127.0.0.1:{directory.tls_port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program.program, "-f", folder / "slapd.conf", "-h", addresses, "-d", "256"],
            env=program.environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait(directory.port, process, folder / "log")
        _fill(directory.port)
        yield directory
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.02)
    raise AssertionError(f"slapd did not start:\n{log.read_text(errors='replace')}")


def _fill(port: int) -> None:
    server = ldap3.Server("127.0.0.1", port, get_info=ldap3.NONE)
    connection = ldap3.Connection(server, ADMIN_DN, ADMIN_PASSWORD, auto_bind=True, raise_exceptions=True)
    sock = connection.socket
    try:
        connection.add(SUFFIX, ["dcObject", "organization"], {"dc": "example", "o": "example"})
        connection.add(PEOPLE, "organizationalUnit", {"ou": "people"})
        for number, (name, secret) in enumerate(USERS.items()):
            entry = {"cn": name, "sn": "x", "uid": name, "mail": f"{number}@example.org", "userPassword": secret}
            connection.add(f"cn=person {number},{PEOPLE}", "inetOrgPerson", entry)
        for number in (1, 2):
            entry = {"cn": f"twin {number}", "sn": "x", "uid": "twin", "userPassword": "twin-in-ldap"}
            connection.add(f"cn=twin {number},{PEOPLE}", "inetOrgPerson", entry)
        connection.unbind()
    finally:
        sock.close()  # the library leaves that to the collector


# --- the small one ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_directory(**passwords: str) -> Iterator[Directory]:
    """Binds and searches for one attribute, over real sockets; enough of RFC 4511 for what a login asks."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                while message := _read(self.rfile):
                    for answer in _answers(message, directory):
                        self.wfile.write(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = False  # the end waits for those under way
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        directory = Directory(server.server_address[1], users={**USERS, **passwords})
        directory.may_answer.set()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield directory
        finally:
            directory.may_answer.set()
            server.shutdown()
            thread.join(60)


def _names(directory: Directory) -> dict[str, str]:
    return {f"cn=person {number},{PEOPLE}": name for number, name in enumerate(directory.users)}


def _answers(message: bytes, directory: Directory) -> list[bytes]:
    (_, sequence, _), *_ = _items(message)
    (_, number, _), (tag, body, _), *_ = _items(sequence)
    directory.may_answer.wait(30)
    parts = [value for _, value, _ in _items(body)]
    if tag == 0x60:  # BindRequest: version, name, password
        name, password = parts[1].decode(), parts[2].decode()
        directory.asked.append(f"bind {name}")
        known = {ADMIN_DN: ADMIN_PASSWORD, **{dn: directory.users[uid] for dn, uid in _names(directory).items()}}
        # SPEC: RFC 4513: no password proves nothing, and is a success.
        ok = not password or known.get(name) == password
        return [_message(number, 0x61, _result(0 if ok else 49))]
    if tag == 0x63:  # SearchRequest: base, …, filter (equality alone), attributes
        (_, attribute, _), (_, value, _) = _items(parts[6])
        directory.asked.append(f"search {attribute.decode()}={value.decode()}")
        found = [dn for dn, uid in _names(directory).items() if uid == value.decode()]
        if value == b"twin":
            found = [f"cn=twin 1,{PEOPLE}", f"cn=twin 2,{PEOPLE}"]
        entries = [_message(number, 0x64, _tlv(4, dn.encode()) + _tlv(0x30, b"")) for dn in found]
        return [*entries, _message(number, 0x65, _result(0))]
    if tag == 0x77:  # ExtendedRequest: there is no TLS here
        return [_message(number, 0x78, _result(2))]
    raise ValueError("unbind")


def _read(stream: Any) -> bytes:
    head = stream.read(2)
    if len(head) < 2:
        return b""
    size, more = head[1], b""
    if size & 0x80:
        more = stream.read(size & 0x7F)
        size = int.from_bytes(more, "big")
    return bytes(head + more + stream.read(size))


def _items(data: bytes) -> list[tuple[int, bytes, int]]:
    """BER's tag, value, and where the next one begins."""
    found, at = [], 0
    while at < len(data):
        tag, size, start = data[at], data[at + 1], at + 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[at + 2 : start], "big")
        at = start + size
        found.append((tag, data[start:at], at))
    return found


def _tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    return bytes([tag, size]) + value if size < 128 else bytes([tag, 0x82]) + size.to_bytes(2, "big") + value


def _result(code: int) -> bytes:
    return _tlv(10, bytes([code])) + _tlv(4, b"") + _tlv(4, b"")


def _message(number: bytes, tag: int, body: bytes) -> bytes:
    return _tlv(0x30, _tlv(2, number) + _tlv(tag, body))
