"""What is known of one database entry at run time, beside its settings: switches, and the counters of pools that are gone."""

from __future__ import annotations

from pgweir.config.effective import Config
from pgweir.pool.stats import Averages, Stats
from pgweir.settings import DatabaseSettings


class Database:
    """One entry of [databases] in use; also one that the `*` template made."""

    __slots__ = (
        "_down",
        "averages",
        "disabled",
        "idle_since",
        "is_auto",
        "name",
        "next_host",
        "past",
        "paused",
        "settings",
        "was_entered",
    )

    def __init__(self, settings: DatabaseSettings, *, is_auto: bool, now: float) -> None:
        self.name = settings.name
        self.settings = settings
        self.is_auto = is_auto
        self.paused = False
        self.disabled = False
        self.past = Stats()  # of pools that were dropped
        self.averages = Averages(now)
        self.next_host = 0  # load_balance_hosts
        self._down: dict[str, float] = {}  # hosts that failed, and until when they are passed over
        self.idle_since = now
        self.was_entered = False  # a client has proved itself and asked for it

    def __repr__(self) -> str:
        return f"<Database {self.name} host={self.settings.host} paused={self.paused}>"

    def pool_user(self, client_user: str) -> str:
        """Whose pool a client of this user gets."""
        return self.settings.user or client_user

    def host(self, config: Config, now: float) -> str:
        """The host to try next: name, address, folder or @name of a socket. One that failed a moment ago is passed over."""
        hosts = self.settings.hosts
        if not hosts:
            return config.settings.unix_socket_dir
        order = [(self.next_host + step) % len(hosts) for step in range(len(hosts))]
        index = next((at for at in order if self._down.get(hosts[at], now) <= now), order[0])
        self.next_host = index if config.load_balance_hosts(self.name) == "disable" else index + 1
        return hosts[index]

    def host_failed(self, host: str, now: float, retry: float, config: Config) -> bool:
        """It could not be reached, or lets nobody in; True: another one is worth a try at once."""
        hosts = self.settings.hosts
        if len(hosts) < 2 or host not in hosts:
            return False
        self._down[host] = now + retry
        if config.load_balance_hosts(self.name) == "disable" and hosts[self.next_host % len(hosts)] == host:
            self.next_host += 1
        return any(self._down.get(other, now) <= now for other in hosts)

    def host_answered(self, host: str) -> None:
        self._down.pop(host, None)

    def forget_hosts(self) -> None:
        """Others stand in the configuration."""
        self._down.clear()
        self.next_host = 0
