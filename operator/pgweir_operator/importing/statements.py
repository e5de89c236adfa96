"""A reset_query_list taken apart, and put together as server_reset_query. Pure."""

from __future__ import annotations

from typing import Final

# An open transaction is always rolled back first, and only if there is one: these need not be said.
_ENDS_TRANSACTION: Final = frozenset({"ABORT", "ROLLBACK", "ABORT WORK", "ROLLBACK WORK", "ABORT TRANSACTION"})


def without_abort(text: str) -> str:
    """The statements of a list in their order, but for those that only end a transaction."""
    statements = [" ".join(part.split()) for part in text.split(";")]
    return "; ".join(part for part in statements if part and part.upper() not in _ENDS_TRANSACTION)
