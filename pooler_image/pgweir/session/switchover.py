"""PostgreSQL moves, or restarts, and clients wait instead of failing: a hold begins and ends, a host name is routed.

The orders come from the operator (`admin.control`), the state is `holds`. While a hold stands, pools are paused as by PAUSE:
nobody is assigned a server, servers go as they become free. Acts at once; nothing here waits. What a hold does to a pool is the
pool's own pause, so it costs nothing on the way of a query.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pgweir.protocol.reasons import CloseReason
from pgweir.session import moves
from pgweir.session.holds import EndedBy, Hold, ReleaseWhen
from pgweir.session.probe import Probe
from pgweir.session.wire import printable

if TYPE_CHECKING:
    from pgweir.session.pooler import Pooler

log = logging.getLogger(__name__)


def hold(pooler: Pooler, id_: str, ceiling: float, release_when: ReleaseWhen, leaving: str = "") -> None:
    """Assign no server any more, for `ceiling` seconds at most. An order that stands, or is over, changes nothing.

    `leaving`: the address of the primary that goes. Whoever ordered the hold may go, too, before the word that ends it: another
    primary in its place ends it as well.
    """
    now = pooler.clock()
    order = pooler.holds.begin(id_, ceiling, release_when, now, leaving)
    if order is None:
        return
    log.info("hold %s begins, for %s: no server is assigned for up to %g s", id_, order.purpose, ceiling)
    for pool in list(pooler.pools.values()):
        pool.pause(now)
        pooler.close_unused(pool, CloseReason.PAUSED)
    pooler.edge.later(ceiling, lambda: _ceiling(pooler, order))
    _watch_drain(pooler, order)


def route(pooler: Pooler, id_: str, host: str, address: str, seconds: float) -> None:
    """For so long this name leads to this address. Ends the hold of this id, and whoever waits is served there."""
    now = pooler.clock()
    if pooler.names.pin(host, address, now + seconds, now):
        log.info("%s leads to %s for the next %g s", printable(host), address, seconds)
        pooler.holds.take_route(host, address, seconds, now)
        moves.routed(pooler, host, address)
    else:
        pooler.holds.keep_route(host, address, seconds, now)
    release(pooler, id_, EndedBy.ROUTE)


def release(pooler: Pooler, id_: str, ended_by: EndedBy = EndedBy.TOLD) -> None:
    """The hold of this id is over, if it stands; it does not begin any more, if it does not."""
    now = pooler.clock()
    past = pooler.holds.end(id_, ended_by, now, pooler.waiting_count)
    if past is None:
        return
    log.log(
        logging.WARNING if ended_by is EndedBy.CEILING else logging.INFO,
        "hold %s ended after %.3f s (%s): %d clients were held",
        id_,
        past.seconds,
        ended_by,
        past.clients_held,
        extra={"fields": {"hold": id_, "ended_by": str(ended_by), "clients_held": past.clients_held}},
    )
    for pool in list(pooler.pools.values()):
        if not pooler.is_stopped(pool.database):
            pooler.opening.go_on(pool)


def _ceiling(pooler: Pooler, order: Hold) -> None:
    if pooler.holds.current is order:
        release(pooler, order.id, EndedBy.CEILING)


def _watch_drain(pooler: Pooler, order: Hold) -> None:
    """Note when the last server has gone."""

    def look() -> None:
        if pooler.holds.current is order and any(True for _ in pooler.servers()):
            return
        pooler.on_server_gone.remove(look)
        order.drained = pooler.holds.current is order
        if order.drained and (order.release_when is ReleaseWhen.RESTARTED or order.leaving):
            pooler.probe = Probe(pooler, order, lambda ended_by: release(pooler, order.id, ended_by))
            pooler.probe.look()

    pooler.on_server_gone.append(look)
    look()
