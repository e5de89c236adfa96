"""What a session asks of the transport under it, and of the edge around it. `net` provides both; tests hand in recorders.

PERF: compiled where that is possible (`pgweir.compiled`), for `Origin` and the goodbye: every login has one of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from pgweir.ldap import LdapOptions, LdapOutcome

if TYPE_CHECKING:
    from pgweir.session.client_login import ClientLogin
    from pgweir.session.server import ServerSession


LAST_WORDS: Final = 10.0  # seconds that a peer has to take what is left for it, once we have closed


class Wire(Protocol):
    """A byte stream to a peer: the part of `asyncio.Transport` that sessions use."""

    def write(self, data: bytes, /) -> None: ...
    def close(self) -> None:
        """Send what is buffered, then close."""

    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def get_write_buffer_size(self) -> int: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_protocol(self, protocol: Any, /) -> None:
        """From now on its bytes and events go to this object."""


class Origin:
    """Where a client comes from. Nobody changes it."""

    __slots__ = ("address", "is_own_uid", "local_address", "local_port", "peer_pid", "peer_user", "port")

    def __init__(
        self,
        address: str | None,  # None: a Unix socket
        port: int,
        local_address: str | None = None,
        local_port: int = 0,
        peer_user: str | None = None,  # of a Unix socket's peer
        peer_pid: int | None = None,
        is_own_uid: bool = False,  # the peer of a Unix socket runs as the pooler itself does
    ) -> None:
        self.address = address
        self.port = port
        self.local_address = local_address
        self.local_port = local_port
        self.peer_user = peer_user
        self.peer_pid = peer_pid
        self.is_own_uid = is_own_uid

    def __repr__(self) -> str:
        return f"<Origin {self}>"

    @property
    def is_unix(self) -> bool:
        return self.address is None

    def __str__(self) -> str:
        if self.address is None:
            return f"unix({self.peer_pid}):{self.port}"
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What the handshake agreed on; `peer_names` are the common name and the DNS names of a verified certificate."""

    version: str
    cipher: str
    common_name: str | None = None
    has_certificate: bool = False  # the other side has shown one, and it was good

    def __str__(self) -> str:
        return f"{self.version}/{self.cipher}"


class Edge(Protocol):
    """What sessions need done outside: the clock, randomness, and everything that takes time."""

    def clock(self) -> float:
        """Monotonic seconds."""

    def random(self, size: int, /) -> bytes: ...

    def round(self) -> int:
        """Another number in each turn of the loop; where nobody tells of them, in each small slice of time."""

    def later(self, seconds: float, action: Callable[[], None], /) -> None:
        """Do that then: for the few things that cannot wait for the next tick."""

    def client_tls_available(self) -> bool: ...

    def start_client_tls(self, login: ClientLogin, first_bytes: bytes, /) -> None:
        """Handshake, then `login.tls_started(wire, info)`; a failure closes the connection. From this call on nothing that comes
        in clear reaches the login."""

    def compute(self, run: Callable[[], Any], done: Callable[[Any], None], /) -> None:
        """Run what takes milliseconds where nobody waits for it, then `done` with its result."""

    def ask_ldap(self, options: LdapOptions, user: str, password: str, done: Callable[[LdapOutcome], None], /) -> None:
        """Ask a directory whether this is the user's password."""

    def connect(self, server: ServerSession, /) -> None:
        """Connect (and TLS), then `server.connected(wire, …)`; or `pooler.opening.failed(server, …)`."""

    def abandon(self, server: ServerSession, /) -> None:
        """This server is not wanted any more; if it is not connected yet, it need not be."""

    def send_cancel(self, server: ServerSession, done: Callable[[], None], /) -> None:
        """Send the server's cancel key over a connection of its own; `done` when the server has closed that."""

    def send_cancel_to_peer(
        self, host: str, port: int, key: bytes, sent: Callable[[], None], done: Callable[[], None], /
    ) -> None:
        """Send a key that another process gave out to that process: `sent` when it has left, if it ever does, and
        `done` (in any case) when the peer has closed the connection."""

    def resolve(self, name: str, found: Callable[[tuple[str, ...]], None], /) -> None:
        """Every address that the name leads to; none when it cannot be resolved."""


def close_in_time(edge: Edge, wire: Wire) -> None:
    """Close. A peer that takes nothing would else keep its descriptor and its buffer for as long as it likes, and no limit
    counts what is closing."""
    wire.close()
    if wire.get_write_buffer_size():
        edge.later(LAST_WORDS, wire.abort)


def printable(text: str) -> str:
    """Names come as whatever bytes a stranger sent; what cannot be encoded is shown as escapes, in log and report."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
