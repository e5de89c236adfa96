"""Two PostgreSQLs with streaming replication on one port and two addresses, as the pods of a cluster have them."""

from __future__ import annotations

import atexit
import functools
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.postgres.server import (
    TEST_HBA,
    Installation,
    PostgresServer,
    find_installation,
    give_to_account,
    make_directory,
)

from pgweir_operator.cli.embedded import copy_cluster

# The name `localhost` leads to the first one, as a cluster's Service leads to its primary; nobody listens there any more
# once that is down.
FIRST, SECOND = "127.0.0.1", "127.0.0.3"

_SETTINGS = {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}
_HBA = ("local all all trust", "host replication all 127.0.0.0/8 trust", *TEST_HBA[1:])


class PostgresPair:
    """`primary` and `standby`, as they were in the beginning."""

    def __init__(self, installation: Installation | None = None) -> None:
        # Both are copies of one stopped cluster: no base backup is needed.
        template = _template(installation or find_installation())
        self.primary, self.standby = (
            PostgresServer(
                installation, settings={**_SETTINGS, "listen_addresses": address}, hba=_HBA, template=template
            )
            for address in (FIRST, SECOND)
        )
        self.primary.start()
        self.port = self.standby.port = self.primary.port
        self._follow(self.standby, FIRST)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        for server in (self.standby, self.primary):
            server.remove()

    def promote(self) -> None:
        """The standby becomes the primary, and takes writes when this returns."""
        assert self.standby.execute("SELECT pg_promote(true, 30)") == [(True,)]

    def caught_up(self) -> bool:
        (sent,) = self.primary.execute("SELECT pg_current_wal_flush_lsn()::text")
        (ready,) = self.standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{sent[0]}'")
        return bool(ready[0])

    def _follow(self, server: PostgresServer, address: str) -> None:
        signal_file = server.data_directory / "standby.signal"
        signal_file.touch()
        give_to_account(signal_file)
        server.settings["primary_conninfo"] = f"host={address} port={self.port} user=postgres"
        server.start()


@functools.cache
def _template(installation: Installation) -> Path:
    """A stopped cluster that has written its log for replication, made once for this process."""
    folder = make_directory("pgwr-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with PostgresServer(installation, settings=_SETTINGS) as server:
        server.start()
        server.stop()
        copy_cluster(server.data_directory, folder / "data")
    return folder / "data"
