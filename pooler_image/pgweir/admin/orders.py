"""The orders of a switchover as the operator writes them, and what the status says of them. Pure: JSON in, JSON out.

`control` calls it. Errors are ValueErrors that name the field and what to write instead.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Final

from pgweir.session.holds import Holds, ReleaseWhen

MAX_SECONDS: Final = 3600.0
_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
MAX_HOST: Final = 253


@dataclass(frozen=True, slots=True)
class HoldOrder:
    id: str
    ceiling: float
    release_when: ReleaseWhen
    leaving: str = ""


@dataclass(frozen=True, slots=True)
class RouteOrder:
    id: str
    host: str
    address: str
    seconds: float


def hold_of(body: object) -> HoldOrder:
    fields = _object(body)
    word = fields.get("releaseWhen", ReleaseWhen.TOLD)
    if not isinstance(word, str) or word not in list(ReleaseWhen):
        raise ValueError(f"releaseWhen is {_short(word)}; write {' or '.join(ReleaseWhen)}")
    leaving = _address(fields, "leaving") if fields.get("leaving") else ""
    return HoldOrder(id_of(fields), _seconds(fields, "ceilingSeconds"), ReleaseWhen(word), leaving)


def route_of(body: object) -> RouteOrder:
    fields = _object(body)
    host = fields.get("host")
    if not isinstance(host, str) or not 0 < len(host) <= MAX_HOST:
        raise ValueError(f"host is {_short(host)}; write the name that the configuration has for PostgreSQL's host")
    return RouteOrder(id_of(fields), host, _address(fields, "address"), _seconds(fields, "seconds"))


def id_of(body: object) -> str:
    id_ = _object(body).get("id")
    if not isinstance(id_, str) or not _ID.fullmatch(id_):
        raise ValueError(f"id is {_short(id_)}; write 1 to 64 of the characters A-Z a-z 0-9 . _ : -")
    return id_


def report(holds: Holds, now: float) -> dict[str, Any]:
    """The part of the status that is about holds and routes."""
    hold, route, last = holds.current, holds.route, holds.last
    return {
        "hold": {
            "id": hold.id,
            "seconds": round(hold.age(now), 3),
            "ceilingSeconds": hold.ceiling,
            "releaseWhen": str(hold.release_when),
            "drained": hold.drained,
        }
        if hold is not None
        else None,
        "route": {"host": route.host, "address": route.address, "seconds": round(route.until - now, 3)}
        if route is not None and now < route.until
        else None,
        "lastHold": {
            "id": last.id,
            "seconds": round(last.seconds, 3),
            "endedBy": str(last.ended_by),
            "clientsHeld": last.clients_held,
        }
        if last is not None
        else None,
    }


def _object(body: object) -> dict[str, object]:
    if not isinstance(body, dict):
        raise ValueError("write a JSON object")
    return body


def _address(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    try:
        if not isinstance(value, str):
            raise ValueError
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"{name} is {_short(value)}; write an IP address") from None


def _seconds(fields: dict[str, object], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_SECONDS:
        raise ValueError(
            f"{name} is {_short(value)}; write a number of seconds, more than 0 and at most {MAX_SECONDS:g}"
        )
    return float(value)


def _short(value: object) -> str:
    return "missing" if value is None else repr(value)[:80]
