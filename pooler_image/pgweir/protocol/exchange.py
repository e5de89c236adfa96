"""What one server connection still owes, and what passes to its client.

Each frontend message that will be answered is noted with `expect`; `scan` walks the server's bytes, header by header, ticks
off the replies, and hands back what the client gets: almost always the very bytes that came in. Replies that belong to the
pooler (a statement prepared behind the client's back) are cut out, replies that no server will send (to a Parse that was not
forwarded) are put in, in order.

`settled` is the release rule: nothing owed, nothing half-said, and the last word was ReadyForQuery.
"""

from __future__ import annotations

from typing import Final

from pgweir.protocol import framing
from pgweir.protocol.errors import ProtocolError
from pgweir.protocol.framing import (
    BIND,
    BIND_COMPLETE,
    CLOSE,
    CLOSE_COMPLETE,
    COMMAND_COMPLETE,
    COPY_BOTH_RESPONSE,
    COPY_DATA,
    COPY_DONE,
    COPY_IN_RESPONSE,
    DATA_ROW,
    DESCRIBE,
    EMPTY_QUERY_RESPONSE,
    ERROR_RESPONSE,
    EXECUTE,
    FUNCTION_CALL,
    NO_DATA,
    PARAMETER_STATUS,
    PARSE,
    PARSE_COMPLETE,
    PORTAL_SUSPENDED,
    QUERY,
    READY_FOR_QUERY,
    ROW_DESCRIPTION,
    SYNC,
)
from pgweir.protocol.prepared import Action, Owed, ServerStatements, Statement, names_statement
from pgweir.protocol.replay import may_replay, statement_trouble

FEW: Final = 1024  # replies owed; to move up so many costs nothing
MAX_HELD: Final = 1 << 20  # bytes of one message that is waited for whole (rows and copy data never are)

# What a reply answers. SPEC: PostgreSQL, "Message Flow", Extended Query.
_ANSWERS: Final[dict[int, int]] = {
    PARSE_COMPLETE: PARSE,
    BIND_COMPLETE: BIND,
    CLOSE_COMPLETE: CLOSE,
    NO_DATA: DESCRIBE,
    ROW_DESCRIPTION: DESCRIBE,
    COMMAND_COMPLETE: EXECUTE,
    EMPTY_QUERY_RESPONSE: EXECUTE,
    PORTAL_SUSPENDED: EXECUTE,
}
_ANSWERED: Final = bytes(_ANSWERS.get(kind, 0) for kind in range(256))  # PERF: the same by its type byte, as C reads it
# PERF: what `scan` does with a message, by its type byte: one look-up where there would be four comparisons.
_DATA, _ANSWER, _READY, _ACT, _PASS = 1, 2, 3, 4, 5
_ROUTES: Final = bytes(
    _DATA
    if kind in (DATA_ROW, COPY_DATA)
    else _ANSWER
    if kind in _ANSWERS
    else _READY
    if kind == READY_FOR_QUERY
    else _ACT
    if kind in (ERROR_RESPONSE, PARAMETER_STATUS, COPY_IN_RESPONSE, COPY_BOTH_RESPONSE)
    else _PASS
    if kind in b"AHKNRVctv"
    else 0
    for kind in range(256)
)
_SYNC_POINTS: Final = frozenset((SYNC, QUERY, FUNCTION_CALL))


class Exchange:
    """The conversation state of one server connection."""

    __slots__ = (
        "changed_parameters",
        "clearing",
        "copy_in",
        "deallocated_all",
        "doubtful",
        "errors",
        "fatal",
        "kept_names",
        "last_words",
        "naming",
        "need",
        "noted",
        "owed",
        "replay",
        "saw_error",
        "special",
        "spoken",
        "statements",
        "status",
        "tail",
        "ticked",
        "transactions",
        "unsolicited_error",
        "unsynced",
        "wary",
    )

    def __init__(self) -> None:
        self.owed: list[int | Owed] = []
        # How many of them are ticked off; the list is emptied with the last. PERF: `scan` takes them off all at once at its end,
        # of a long list when they are the half of it. A deque costs two calls for each message, in C, too (in a pipeline of 20
        # queries a third of all our own code).
        self.ticked = 0
        self.special = 0  # how many of them are Owed
        self.doubtful = False  # a Sync was sent behind an Owed: whether that took effect is not known yet
        self.statements = ServerStatements()
        self.status = 0  # of the last ReadyForQuery; 0 before the first
        self.unsynced = False  # extended messages were sent that no Sync has followed yet
        self.copy_in = False
        self.need = 0  # bytes to come of a message whose header was seen
        self.tail = b""  # a header, or a small message, that is not complete yet
        self.transactions = 0  # ended since the session last looked
        self.saw_error = False  # the server discards what comes, up to a Sync that was not sent yet
        self.errors = 0  # ErrorResponses seen
        self.fatal = False  # one of them said that the server is going
        self.last_words = b""  # what it said then: the body of that ErrorResponse
        self.unsolicited_error = False  # one of them answered nothing
        self.noted = False  # one of the next four has come: whoever hands the bytes on should look
        self.deallocated_all = False
        self.kept_names: dict[bytes, Statement] = {}  # what the client prepared behind that, in the same flight
        self.changed_parameters: list[tuple[str, str]] | None = None
        self.replay = False  # what was read last is an error that the client shall not see: say `spoken` once more
        self.naming: list[tuple[int, int]] = []  # where, in what `scan` answers, an error names a statement of ours
        self.spoken = b""  # the client's last read, unless it was a simple query alone, or large
        self.clearing = False  # DEALLOCATE ALL, or the like, was sent with the extended protocol
        self.wary = False  # that, or a simple query behind something else: `in_doubt` may hold

    @property
    def settled(self) -> bool:
        """Nothing is owed and the server waits for a query (its `status` tells in which transaction state)."""
        return not (self.owed or self.unsynced or self.need or self.copy_in or self.tail) and self.status != 0

    @property
    def in_doubt(self) -> bool:
        """Which statements the server has depends on replies that are still to come; the next Parse, Bind, … must wait.

        An error skips everything up to the next Sync. What stands in front of an unanswered Sync may therefore have been
        skipped, and a message behind that Sync cannot rely on it, nor on the contrary. And a simple query may be
        DEALLOCATE ALL.
        """
        owed = self.owed
        if self.doubtful and self.special > 0:
            return True
        if not owed:
            if not self.unsynced:
                self.wary = self.clearing = False
            return False
        if self.copy_in:
            return False  # a server that copies answers nothing before the client has gone on
        if not self.wary:
            # PERF: a Query behind something else makes wary, so that only the first can be one. To look through all of a batch
            # for each of its messages took 58 s for 50,000 of them, in which nobody else was served.
            return bool(owed[self.ticked] == QUERY)
        owed = owed[self.ticked :]
        return QUERY in owed or (self.clearing and SYNC in owed)

    # --- frontend messages -----------------------------------------------------------------------------------------

    def expect(self, kind: int) -> None:
        """A frontend message of this type goes to the server unchanged."""
        if kind == QUERY:
            if self.saw_error:
                return
            self.unsynced = False
            self.owed.append(QUERY)
            if len(self.owed) > 1:
                self.wary = self.doubtful = True
        elif kind == SYNC:
            self.unsynced = False
            self.saw_error = False
            self.owed.append(SYNC)
            if self.special:
                self.doubtful = True
        elif kind == COPY_DONE:
            # Once: behind its CopyDone postgres.js says CopyFail too, which a server that copies no more ignores.
            if self.copy_in and not self._owes_copy_done():
                self.owed.append(COPY_DONE)
        else:
            if self.saw_error:
                return
            self.unsynced = kind != FUNCTION_CALL
            self.owed.append(kind)

    def expect_special(self, owed: Owed) -> bytes:
        """The same for a message about a prepared statement; answers a fake reply that is due at once."""
        if self.saw_error:
            if owed.kind == PARSE:
                owed.forget_name()  # the server never got to prepare it: what it has, it still has
            else:
                owed.undo(self.statements)
            return b""
        self.unsynced = True
        if owed.action is Action.FAKE and not self.owed:
            return owed.fake_reply()
        if not self.special:
            self.doubtful = False
        self.owed.append(owed)
        self.special += 1
        return b""

    # --- backend messages ------------------------------------------------------------------------------------------

    def scan(self, data: bytes) -> bytes:
        """Walk what the server sent; answer what the client gets of it.

        PERF: one pass over headers, bodies skipped by length; the answer is `data` itself when nothing is to be cut.
        Raises ProtocolError when the bytes are no backend messages.
        """
        if self.tail:
            data = self.tail + data
            self.tail = b""
        size = len(data)
        pos = self.need
        if pos:
            if pos >= size:
                self.need = pos - size
                return data
            self.need = 0
        owed = self.owed
        count = len(owed)
        answered = _ANSWERED
        routes = _ROUTES
        pieces: list[bytes] | None = None  # only when something is cut out or put in
        start = 0  # of the span not yet in `pieces`
        while pos < size:
            if size - pos < 5:
                self.tail = data[pos:]
                data = data[:pos]
                break
            kind, length = framing.unpack_header(data, pos)
            end = pos + length + 1
            route = routes[kind]
            if route == _DATA and length >= 4:
                pos = end
                continue
            if length < 4 or not route:
                raise self._broken(f"bad packet header: '{data[pos : pos + 5].hex()}'")
            if end > size and length <= MAX_HELD:
                # A reply counts when it is there. Else one of our own would be put in the middle of it.
                self.tail = data[pos:]
                data = data[:pos]
                break
            if route == _READY:
                if length != 5:
                    raise self._broken("broken ReadyForQuery packet")
                self._ready(data[pos + 5])
            elif route == _ANSWER:
                if kind == COMMAND_COMPLETE and 4 < length < 32 and data[pos + 5] == 68:
                    self._note_tag(data[pos + 5 : end - 1])  # perhaps one that ends all prepared statements
                if kind == COMMAND_COMPLETE and self.copy_in and self._copy_ended():
                    pass
                elif self.ticked < count:
                    head = owed[self.ticked]
                    if type(head) is Owed:
                        if head.kind == answered[kind]:
                            self.ticked += 1
                            self.special -= 1
                            if head.action is Action.SKIP:
                                pieces = pieces if pieces is not None else []
                                pieces.append(data[start:pos])
                                start = end
                    else:
                        plain = head  # PERF: a C int
                        if plain == answered[kind]:
                            self.ticked += 1
            elif route == _PASS:
                pass
            elif kind == ERROR_RESPONSE:
                self.errors += 1
                body = data[pos + 5 : end]
                if _is_fatal(body):
                    self.fatal = True
                    self.last_words = body
                elif self.statements:
                    if names_statement(body):
                        at = pos - start + sum(map(len, pieces or ()))
                        self.naming.append((at, at + end - pos))
                        self.noted = True
                    self._judge(body, alone=pos == 0)
                self._failed()
            elif kind == PARAMETER_STATUS:
                self._note_parameter(data[pos + 5 : end])
            elif kind == COPY_IN_RESPONSE or kind == COPY_BOTH_RESPONSE:
                self.copy_in = True
            if self.special:
                fakes = self._take_fakes()
                if fakes:
                    pieces = pieces if pieces is not None else []
                    pieces += (data[start:end], fakes)
                    start = end
            pos = end
        if pos > size:
            self.need = pos - size
        if self.ticked == count:
            owed.clear()
            self.ticked = 0
        elif self.ticked:
            self._take_off()
        if pieces is None:
            return data
        pieces.append(data[start:])
        return b"".join(pieces)

    def _take_off(self) -> None:
        """What is ticked off is owed no more."""
        if self.ticked * 2 > len(self.owed) or len(self.owed) < FEW:
            del self.owed[: self.ticked]
            self.ticked = 0

    def _broken(self, complaint: str) -> ProtocolError:
        self._take_off()
        return ProtocolError(complaint)

    def _ready(self, status: int) -> None:
        owed, count = self.owed, len(self.owed)
        if self.ticked == count and self.saw_error:
            self.unsynced = False  # a Sync that was sent while the server copied did count after all
        skipped: list[Owed] | None = None
        while self.ticked < count:
            head = owed[self.ticked]
            self.ticked += 1
            if type(head) is Owed:
                self.special -= 1
                skipped = [*(skipped or ()), head]
            else:
                plain = head
                if plain == SYNC or plain == QUERY or plain == FUNCTION_CALL:
                    break
        if skipped:
            self._undo_all(skipped)
        self.status = status
        self.copy_in = False
        self.saw_error = False
        if status == framing.STATUS_IDLE:
            self.transactions += 1

    def _failed(self) -> None:
        """ErrorResponse. SPEC: "the backend … reads and discards messages until a Sync is reached"."""
        if self.copy_in:
            self.copy_in = False
            if self._head() == QUERY:
                self._skip_copy()
            else:
                # Syncs that were sent while the server copied were ignored by it: all is skipped up to one behind the end.
                self._skip_through(COPY_DONE)
                if self._head() is None:
                    self.unsynced = self.saw_error = True
                    return
        if self._head() is None and not self.unsynced:
            self.unsolicited_error = True  # the server is about to go
            return
        if self._head() in _SYNC_POINTS:
            return  # a simple query, a function call, or Sync itself: its ReadyForQuery follows
        skipped = []
        while (head := self._head()) is not None and head != SYNC:
            self.ticked += 1
            if type(head) is Owed:
                self.special -= 1
                skipped.append(head)
        self._undo_all(skipped)
        if self._head() is None:  # else the Sync was sent already, and what follows it is not discarded
            # A Query that was sent in the meantime is discarded too: the server waits for a Sync, whatever was owed.
            self.saw_error = self.unsynced = True

    def _head(self) -> int | Owed | None:
        """What the server owes next."""
        return self.owed[self.ticked] if self.ticked < len(self.owed) else None

    def _judge(self, error: bytes, *, alone: bool) -> None:
        """Whether the error is about a statement of ours. `alone`: nothing came before it in this read."""
        trouble = statement_trouble(error)
        if trouble is None:
            return
        self.statements.mistrust()
        if alone and self.spoken and self.status == framing.STATUS_IDLE and not self.special:
            self.replay = self.noted = may_replay(self.spoken, self.owed[self.ticked :], trouble)

    def _copy_ended(self) -> bool:
        """CommandComplete ends COPY FROM STDIN. True when it has been ticked off with it.

        Syncs that were sent while the server was in copy mode get no answer; they stand before the CopyDone.
        """
        self.copy_in = False
        if not self._owes_copy_done():
            return False
        if self._head() == QUERY:
            self._skip_copy()
        else:
            self._skip_through(COPY_DONE)
            self.unsynced = self.unsynced or self._head() is None
        return True

    def _owes_copy_done(self) -> bool:
        return COPY_DONE in self.owed[self.ticked :]

    def _skip_copy(self) -> None:
        """A simple query copied: its CopyDone is dealt with, its own ReadyForQuery is still owed."""
        if self._owes_copy_done():
            self._skip_through(COPY_DONE)
            self.ticked -= 1
            self.owed[self.ticked] = QUERY

    def _skip_through(self, kind: int) -> None:
        """Drop what is owed up to and with the first of this kind; everything, when there is none."""
        skipped = []
        while (head := self._head()) is not None:
            self.ticked += 1
            if head == kind:
                break
            if type(head) is Owed:
                self.special -= 1
                skipped.append(head)
        self._undo_all(skipped)

    def _take_fakes(self) -> bytes:
        """The replies that are now due and that no server will send."""
        fakes = b""
        owed = self.owed
        while self.ticked < len(owed):
            head = owed[self.ticked]
            if type(head) is not Owed or head.action is not Action.FAKE:
                break
            self.ticked += 1
            self.special -= 1
            fakes += head.fake_reply()
        return fakes

    def _undo_all(self, skipped: list[Owed]) -> None:
        """The last first, so that what one name meant before is what it means after."""
        for owed in reversed(skipped):
            owed.undo(self.statements)

    def _note_tag(self, tag: bytes) -> None:
        if tag == b"DEALLOCATE ALL" or tag == b"DISCARD ALL":
            self.statements.clear()
            self.deallocated_all = self.noted = True
            self.kept_names = {}
            for owed in self.owed[self.ticked :]:  # what was sent behind it comes after it
                if type(owed) is Owed and owed.kind == PARSE and owed.statement:
                    if owed.action is not Action.FAKE:
                        self.statements.add(owed.statement, len(self.statements) + 1)
                    if owed.names is not None:
                        self.kept_names[owed.name] = owed.statement

    def _note_parameter(self, body: bytes) -> None:
        parts = body.split(b"\0")
        if len(parts) != 3 or parts[2]:
            raise self._broken("broken ParameterStatus packet")
        name, value = (part.decode("utf-8", "surrogateescape") for part in parts[:2])
        if self.changed_parameters is None:
            self.changed_parameters = []
        self.changed_parameters.append((name, value))
        self.noted = True


def _is_fatal(body: bytes) -> bool:
    """Whether this ErrorResponse ends the connection. V is never translated; servers before 9.6 have only S."""
    return b"\0VFATAL\0" in body or b"\0VPANIC\0" in body or body.startswith((b"SFATAL\0", b"SPANIC\0"))
