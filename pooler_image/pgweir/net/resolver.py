"""Names to addresses, through the system's resolver: never on the loop, never twice at the same time for one name.

`session.names` keeps the answers and says whose turn it is. A name in use is asked again when its time is over, so that
servers follow it (`session.moves`). The edge calls `connect`, `lifecycle`'s tick calls `refresh`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any, Final

from pgweir.hba import is_address
from pgweir.session import moves
from pgweir.session.pooler import Pooler
from pgweir.session.wire import printable

log = logging.getLogger(__name__)

HASTY_CONNECT: Final = 1.0  # seconds for each address while the target comes back at any moment
# The resolver is sure that there is no such name; anything else is a failure to ask.
_FOR_GOOD: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


class Resolver:
    """Finds the addresses of servers, and connects to them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: dict[str, asyncio.Task[None]] = {}
        self.pooler: Pooler | None = None

    async def close(self) -> None:
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def connect(self, host: str, port: int) -> socket.socket:
        """A TCP socket to the first of the name's addresses that takes it. Raises OSError."""
        assert self.pooler is not None
        addresses = await self.addresses(host)
        # A machine that has vanished says nothing: each address gets its share of the time.
        share = self.pooler.settings.server_connect_timeout / len(addresses) or None
        in_haste = self.pooler.holds.in_haste(self.pooler.clock())
        if in_haste:
            share = min(share or HASTY_CONNECT, HASTY_CONNECT)
        for address in addresses[:-1]:
            try:
                async with asyncio.timeout(share):
                    return await self._connect(address, port)
            except OSError as error:  # TimeoutError is one
                log.info("%s (%s) port %d cannot be reached, trying the next address: %s", host, address, port, error)
        async with asyncio.timeout(share if in_haste else None):
            return await self._connect(addresses[-1], port)

    async def _connect(self, address: str, port: int) -> socket.socket:
        # A number: nobody is asked.
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        family, kind, proto, _, where = found[0]
        return await connect(self._loop, socket.socket(family, kind, proto), where)

    async def addresses(self, host: str) -> list[str]:
        """In the order in which to try them. Raises gaierror."""
        assert self.pooler is not None
        names, now = self.pooler.names, self.pooler.clock()
        pinned = names.pinned(host, now)
        if is_address(host):
            if not pinned:
                return [host]
            names.found(host, [host], now, self.pooler.settings.dns_max_ttl)
        elif not names.is_fresh(host, now):
            look_up = self._look_up(host)
            if not pinned:  # else there is an address to begin with
                await asyncio.shield(look_up)  # others may wait for it, too
        found = names.in_turn(host, now)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, names.failure(host))
        return found

    def refresh(self) -> None:
        """Ask again for the names that servers or waiting clients depend on."""
        assert self.pooler is not None
        pooler = self.pooler
        if not len(pooler.names):
            return
        hosts: set[str] = set()
        for pool in pooler.pools.values():
            database = pooler.databases.get(pool.database)
            if database is not None and (pool.server_count or pool.clients):
                hosts.update(database.settings.hosts)
        stale = pooler.names.keep(hosts, pooler.clock())
        if pooler.settings.dns_max_ttl:
            for host in stale:
                self._look_up(host)

    def _look_up(self, host: str) -> asyncio.Task[None]:
        task = self._running.get(host)
        if task is None:
            assert self.pooler is not None
            self.pooler.names.pending.add(host)
            task = self._running[host] = self._loop.create_task(self._ask(host, self.pooler))
        return task

    async def _ask(self, host: str, pooler: Pooler) -> None:
        names, settings = pooler.names, pooler.settings
        try:
            answer = await self._loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            names.not_found(
                host,
                error.strerror or str(error),
                pooler.clock(),
                settings.dns_nxdomain_ttl,
                for_good=error.errno in _FOR_GOOD,
            )
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is too long, or no text at all
            names.not_found(host, str(error), pooler.clock(), settings.dns_nxdomain_ttl, for_good=False)
        else:
            addresses = [str(address[0]) for *_, address in answer]
            if names.found(host, addresses, pooler.clock(), settings.dns_max_ttl):
                log.info("%s has other addresses now: %s", printable(host), ", ".join(addresses))
                moves.addresses_changed(pooler, host, addresses)
        finally:
            names.pending.discard(host)
            self._running.pop(host, None)


async def connect(loop: asyncio.AbstractEventLoop, sock: socket.socket, where: Any) -> socket.socket:
    """The same socket, connected; or it is closed. Raises OSError."""
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, where)
    except OSError as error:
        sock.close()
        # (The loop's own words for it name the address in brackets, and are not the system's.)
        raise error if error.errno is None else OSError(error.errno, os.strerror(error.errno)) from None
    except BaseException:
        sock.close()
        raise
    return sock
