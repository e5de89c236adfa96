"""What the API server refused, in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """A request that failed. `status` is 0 where no answer came."""

    def __init__(self, status: int, message: str, *, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.retry_after = retry_after

    @property
    def may_pass(self) -> bool:
        """Worth trying again as it is."""
        return self.status in {0, 408, 409, 429} or self.status >= 500


class NotFoundError(ApiError):
    pass


class ForbiddenError(ApiError):
    pass


class ConflictError(ApiError):
    pass


class InvalidError(ApiError):
    """The object itself is wrong (400, 422): only whoever wrote it can help."""


_KINDS: Mapping[int, type[ApiError]] = {
    400: InvalidError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidError,
}


def api_error(status: int, document: Any, *, retry_after: float | None = None) -> ApiError:
    """From a Status object, or from whatever came instead of one."""
    kind = _KINDS.get(status, ApiError)
    if isinstance(document, Mapping) and document.get("message"):
        message = str(document["message"])
        # WHY: server-side apply answers 500 to a field that the schema does not have; it is a plain mistake.
        if message.startswith("failed to create typed patch object"):
            kind, status = InvalidError, 422
        return kind(status, message, reason=str(document.get("reason") or ""), retry_after=retry_after)
    return kind(status, f"the API server answered {status}", retry_after=retry_after)
