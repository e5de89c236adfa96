"""What every transaction asks of the `Pooler`; what a login asks of it besides stands in `parts`.

PERF: compiled where that is possible (`pgweir.compiled`): then each of these is found by its place and not by its name. Below
clients and servers, so that both can know it.
"""

from __future__ import annotations

from collections.abc import Callable


class Essentials:
    """Attributes, and nothing that is done with them."""

    __slots__ = ("clock", "disable_pqexec", "draining", "max_packet_size")

    clock: Callable[[], float]
    disable_pqexec: bool  # simple queries are refused
    draining: bool  # clients of transaction pools are sent away at the end of their transaction
    max_packet_size: int  # of one message
