"""TLS without a socket: sealed bytes in, plain ones out, and the other way round. `stream` calls; nothing is read or sent here.

A `Channel` is one connection's TLS. What it has to say by itself (its part of the handshake, an alert, the answer to a new
key) lies in `reply` after each call, and is sent before anything else.

PERF: compiled where that is possible (`pgweir.compiled`). OpenSSL says "nothing more" by an exception, which costs as much as a
small record: so it is not asked for more when all that came has been looked at.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final

from pgweir.net import calls

MOST: Final = 256 * 1024  # sealed bytes that are opened at once
RECORD: Final = 32 * 1024  # more than one has (SPEC: RFC 8446, 16 KiB and what sealing adds)


class Workbench:
    """What the channels of one loop work on, one after the other: OpenSSL's two buffers in memory, and room for what was opened.

    WHY one for all: such a buffer never shrinks. A pair for each connection costs 2 KiB where little was said, and 268 KiB
    after a result of 256 KiB. Whoever worked here leaves both buffers empty, whatever happened: what is in a record is
    known to its own channel only, and bytes of one connection never wait where another's are read.
    """

    __slots__ = ("buffer", "incoming", "outgoing", "view")

    def __init__(self) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.buffer = bytearray(MOST + 2 * RECORD)  # (a record's beginning may have come before)
        self.view = memoryview(self.buffer)


class Channel:
    """One side of one TLS connection."""

    __slots__ = (
        "_bench", "_tls", "agreed", "error", "held", "is_agreed", "is_ended", "is_servers", "reply", "tls", "unheard",
    )  # fmt: skip

    def __init__(
        self,
        bench: Workbench,
        context: ssl.SSLContext,
        agreed: Callable[[BaseException | None], None],
        *,
        server_side: bool,
        name: str | None = None,  # the server's, that its certificate is to bear
    ) -> None:
        self._bench = bench
        self.tls = context.wrap_bio(bench.incoming, bench.outgoing, server_side=server_side, server_hostname=name)
        # PERF: what is behind it has the same methods; a function of Python's for each record is saved.
        self._tls: Any = getattr(self.tls, "_sslobj", self.tls)
        self.is_servers = server_side
        self.is_agreed = False  # the handshake is done
        self.is_ended = False  # the peer has said its last; until its protocol was told
        self.error: BaseException | None = None  # what this connection ends by
        self.reply = b""  # to be sent, before anything else
        # The stream's own notes, which only a connection with TLS has.
        self.agreed: Callable[[BaseException | None], None] | None = agreed  # to be told of the handshake's end
        self.held = b""  # plain, and come while the protocol wanted none
        self.unheard = 0  # bytes of replies behind others that the peer does not take

    def unseal(self, sealed: Any) -> bytes:
        """Go on with the handshake, or open what came: the answer is what the peer has said. With nothing: begin."""
        bench, tls = self._bench, self._tls
        incoming = bench.incoming
        size = 0
        assert len(sealed) <= MOST
        try:
            incoming.write(sealed)
            if not self.is_agreed:
                tls.do_handshake()
                self.is_agreed = True
            while incoming.pending:
                count = tls.read(RECORD, bench.view[size:] if size else bench.view)
                if not count:
                    self.is_ended = True
                    break
                size += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_ended = True
        except OSError as error:  # SSLError is one
            self.error = error.with_traceback(None)  # else it holds this frame, and that its channel
        finally:
            if incoming.pending:
                incoming.read()
            if bench.outgoing.pending:
                self.reply += bench.outgoing.read()
        return calls.cut(bench.buffer, size) if size else b""

    def seal(self, data: bytes) -> bytes:
        """What to send for this. Raises OSError where there can be no more."""
        outgoing, tls = self._bench.outgoing, self._tls
        size = len(data)
        try:
            count = tls.write(data)  # one record, at most
            if count < size:
                view = memoryview(data)
                while count < size:
                    count += tls.write(view[count:])
        finally:
            sealed: bytes = outgoing.read()
        return sealed

    def farewell(self) -> bytes:
        """What says that nothing follows (a close_notify). The peer's own is not waited for."""
        try:
            self.tls.unwrap()
        except OSError:  # it is: the peer has not said its own yet; or the connection is in no state to say goodbye
            pass
        return self._bench.outgoing.read()
