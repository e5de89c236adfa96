"""What is known of one database entry at run time, beside its settings: switches, and the counters of pools that are gone."""

from __future__ import annotations

from pgweir.config.effective import Config
from pgweir.pool.stats import Averages, Stats
from pgweir.settings import DatabaseSettings


class Database:
    """One entry of [databases] in use; also one that the `*` template made."""

    __slots__ = (
        "averages",
        "clients",
        "disabled",
        "idle_since",
        "is_auto",
        "name",
        "next_host",
        "past",
        "paused",
        "settings",
    )

    def __init__(self, settings: DatabaseSettings, *, is_auto: bool, now: float) -> None:
        self.name = settings.name
        self.settings = settings
        self.is_auto = is_auto
        self.paused = False
        self.disabled = False
        self.clients = 0
        self.past = Stats()  # of pools that were dropped
        self.averages = Averages(now)
        self.next_host = 0  # load_balance_hosts
        self.idle_since = now

    def __repr__(self) -> str:
        return f"<Database {self.name} host={self.settings.host} paused={self.paused}>"

    def pool_user(self, client_user: str) -> str:
        """Whose pool a client of this user gets."""
        return self.settings.user or client_user

    def host(self, config: Config) -> str:
        """The host to try next: name, address, folder or @name of a socket."""
        hosts = self.settings.hosts
        if not hosts:
            return config.settings.unix_socket_dir
        host = hosts[self.next_host % len(hosts)]
        if config.load_balance_hosts(self.name) != "disable":
            self.next_host += 1
        return host

    def host_failed(self, config: Config) -> None:
        if config.load_balance_hosts(self.name) == "disable":
            self.next_host += 1
