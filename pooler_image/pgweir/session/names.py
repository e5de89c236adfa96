"""Host names of servers and the addresses behind them: what is known, for how long, and whose turn it is.

A cache and nothing more: the edge asks the system's resolver and tells the answer; time is handed in. A name is asked again
while servers are connected to it, so that a change is followed within dns_max_ttl, without waiting for the next connection.
The operator may know better for a while (`pin`): after a promotion the resolver's answer lags by seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Name:
    """One host name."""

    __slots__ = ("addresses", "expires_at", "failed", "failure", "host", "pin", "pinned_until", "turn")

    def __init__(self, host: str) -> None:
        self.host = host
        self.addresses: tuple[str, ...] = ()
        self.failure = ""  # of the last look-up, if it failed
        self.expires_at = 0.0
        self.turn = 0  # which address the next connection tries first
        self.pin = ""  # an address that the operator has named: it comes first while its time lasts
        self.pinned_until = 0.0
        self.failed = ""  # of the pin and the others, the one that was tried last, without success

    def __repr__(self) -> str:
        return f"<Name {self.host} {','.join(self.addresses) or self.failure}>"


class Names:
    """Every name that was looked up."""

    def __init__(self) -> None:
        self._names: dict[str, Name] = {}
        self.pending: set[str] = set()  # looked up at this moment: nobody asks for the same name a second time

    def __iter__(self) -> Iterator[Name]:
        return iter(self._names.values())

    def __len__(self) -> int:
        return len(self._names)

    def is_fresh(self, host: str, now: float) -> bool:
        """The last answer, be it a failure, still counts."""
        name = self._names.get(host)
        return name is not None and now < name.expires_at

    def found(self, host: str, addresses: Iterable[str], now: float, ttl: float) -> bool:
        """The resolver's answer; True when it says something else than it said before."""
        name = self._names.setdefault(host, Name(host))
        before, name.addresses = name.addresses, tuple(dict.fromkeys(addresses))
        name.failure = ""
        name.expires_at = now + ttl
        return bool(before) and set(before) != set(name.addresses)

    def not_found(self, host: str, failure: str, now: float, ttl: float, *, for_good: bool) -> None:
        """No answer. Unless the resolver is sure that there is no such name, the addresses of before stay in use."""
        name = self._names.setdefault(host, Name(host))
        if for_good:
            name.addresses = ()
        name.failure = failure
        name.expires_at = now + ttl

    def in_turn(self, host: str, now: float) -> list[str]:
        """The addresses, in the order in which to try them; none: `failure` says why."""
        name = self._names[host]
        if now < name.pinned_until:
            others = [address for address in name.addresses if address != name.pin]
            return [*others, name.pin] if name.failed == name.pin else [name.pin, *others]
        if not name.addresses:
            return []
        first = name.turn % len(name.addresses)
        name.turn = first + 1
        return [*name.addresses[first:], *name.addresses[:first]]

    # --- a name that the operator has routed ---

    def pin(self, host: str, address: str, until: float, now: float) -> bool:
        """This name leads there for a while; False: it does already, and now for longer."""
        name = self._names.setdefault(host, Name(host))
        new = not (now < name.pinned_until and name.pin == address)
        name.pin, name.pinned_until = address, until
        if new:
            name.failed = ""
        return new

    def pinned(self, host: str, now: float) -> str:
        """The address that this name is pinned to; empty: to none."""
        name = self._names.get(host)
        return name.pin if name is not None and now < name.pinned_until else ""

    def connection_failed(self, host: str, address: str) -> None:
        """Whoever is behind this address took nobody: of the pin and the others, the next attempt begins elsewhere."""
        name = self._names.get(host)
        if name is not None:
            name.failed = address

    def failure(self, host: str) -> str:
        return self._names[host].failure or "no address"

    def keep(self, hosts: set[str], now: float) -> list[str]:
        """Forget what nobody uses any more; answers those of `hosts` that have to be looked up again."""
        outdated = [h for h, n in self._names.items() if h not in hosts and now >= max(n.expires_at, n.pinned_until)]
        for host in outdated:
            del self._names[host]
        return [host for host in hosts if host in self._names and not self.is_fresh(host, now)]
