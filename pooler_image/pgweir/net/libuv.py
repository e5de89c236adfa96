"""What is beneath the event loop: libuv, which lets somebody else wait in its place. `streams` does, and nobody else asks.

libuv is made to be embedded. It says on which descriptor its events come, and how long it has nothing to do: 0 as soon as a
callback is due, a descriptor is newly watched, or something is to be closed. uvloop gives its loop away, and its library has
libuv's functions: they are called by their addresses.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any, Final

import uvloop.loop

from pgweir.net import calls

# SPEC: libuv 1, `uv_handle_type`.
_IDLE: Final = 6
_PREPARE: Final = 9
_POINTER: Final = 8  # bytes

_FUNCTIONS: Final = (
    "uv_backend_fd", "uv_backend_timeout", "uv_close", "uv_handle_size", "uv_idle_init", "uv_idle_start", "uv_idle_stop",
    "uv_is_active", "uv_prepare_init", "uv_prepare_start", "uv_unref", "uv_update_time",
)  # fmt: skip
_library: Final = ctypes.PyDLL(uvloop.loop.__file__)

_taken: Final[set[Place]] = set()  # libuv holds no references
_memory: Final[list[Any]] = []  # of handles: libuv may look at them as long as the loop lives


def is_there(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this loop is uvloop's, and shows its libuv. (A uvloop that was built in another way may not.)"""
    module: Any = uvloop.loop
    return (
        isinstance(loop, module.Loop)
        and module.libuv_get_version() >> 16 == 1
        and all(hasattr(_library, name) for name in _FUNCTIONS)
    )


class Place:
    """Where a loop of uvloop's would wait. Whoever takes it is called there each time, and waits as long as `patience` allows:
    for what is its own, and for the descriptor `number`, which is the loop's. A loop has one."""

    __slots__ = ("_call", "_handles", "_idle", "_loop", "_nothing", "_start", "_stop", "_timeout", "_update", "number")

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """`call` raises nothing."""
        if not is_there(loop):
            raise RuntimeError(f"{loop!r} lets nobody wait in its place: PGWEIR_TRANSPORT=uvloop does without")
        self._loop = _address_of(loop)
        if any(place._loop == self._loop for place in _taken):
            raise RuntimeError(f"the place in {loop!r} is taken")
        self.number = calls.ask(_function("uv_backend_fd"), self._loop)
        self._timeout = _function("uv_backend_timeout")
        self._update = _function("uv_update_time")
        self._nothing = _function("uv_is_active")  # a function to call for nothing
        self._start = _function("uv_idle_start")
        self._stop = _function("uv_idle_stop")
        self._handles: list[int] = []
        self._idle = self._handle("idle", _IDLE)
        prepare = self._handle("prepare", _PREPARE)
        hook, self._call = calls.hook(prepare, call)
        calls.ask_both(_function("uv_prepare_start"), prepare, hook)
        _taken.add(self)

    def _handle(self, kind: str, number: int) -> int:
        size = calls.ask(_function("uv_handle_size"), number)
        memory = ctypes.create_string_buffer(_POINTER + size)  # the first word is `calls.hook`'s
        _memory.append(memory)
        handle = ctypes.addressof(memory) + _POINTER
        calls.ask_both(_function(f"uv_{kind}_init"), self._loop, handle)
        calls.tell(_function("uv_unref"), handle)  # whoever forgets to close this is told so, and waits for nothing
        self._handles.append(handle)
        return handle

    def close(self) -> None:
        for handle in self._handles:
            calls.tell_both(_function("uv_close"), handle, 0)
        _taken.discard(self)

    def enter(self) -> None:
        """From here on `patience` is the loop's own."""
        calls.ask(self._stop, self._idle)

    def patience(self) -> int:
        """Milliseconds for which the loop has nothing to do; 0: something; -1: there is no end of them."""
        calls.tell(self._update, self._loop)
        return calls.ask(self._timeout, self._loop)

    def leave(self) -> None:
        """The loop goes round, and does not wait: it has something idle to do."""
        calls.ask_both(self._start, self._idle, self._nothing)


def _function(name: str) -> int:
    return ctypes.cast(_library[name], ctypes.c_void_p).value or 0


def _address_of(loop: asyncio.AbstractEventLoop) -> int:
    module: Any = uvloop.loop
    prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    found: int = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))(module.libuv_get_loop_t_ptr(loop), None)
    return found
