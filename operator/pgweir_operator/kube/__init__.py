"""The only door to the API server: read, apply, delete, patch a status, write an Event, watch one Secret, hold a Lease.

Knows Kubernetes and nothing about Poolers: objects go in and come out as plain dictionaries. Each failure is an
ApiError with the server's own words; what may pass by itself (409, 429, 5xx, a broken connection) is tried again here.
Called by observe, reconcile, handlers and main.
"""

from pgweir_operator.kube.api import Kube, Resource
from pgweir_operator.kube.connection import Access, connect
from pgweir_operator.kube.errors import ApiError, ConflictError, ForbiddenError, InvalidError, NotFoundError

__all__ = [
    "Access",
    "ApiError",
    "ConflictError",
    "ForbiddenError",
    "InvalidError",
    "Kube",
    "NotFoundError",
    "Resource",
    "connect",
]
