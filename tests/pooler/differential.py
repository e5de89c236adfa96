"""`make differential`: the tests of tests/data_plane against Debian's PgBouncer, held to the table of differences.

Where there is no PgBouncer and none may be installed, it says so; with CI set, that fails.
"""

from __future__ import annotations

import os
import sys

from tests.pooler.debian import install_pgbouncer, pgbouncer_version
from tests.pooler.differences import TABLE, VERSION

# A scene that fails leaves its sockets to the collector, which would blame a later one.
_LEFT_OPEN = "ignore::pytest.PytestUnraisableExceptionWarning"


def main(arguments: list[str]) -> None:
    if pgbouncer_version() is None:
        print("installing Debian's pgbouncer (no service is started)", flush=True)
        if not install_pgbouncer():
            print(
                "make differential: PgBouncer is not here and cannot be installed: nothing was compared",
                file=sys.stderr,
            )
            sys.exit(1 if os.environ.get("CI") else 0)
    version = pgbouncer_version() or ""
    print(f"PgBouncer {version}; {TABLE.name} is about {VERSION}", flush=True)
    os.environ["PGWEIR_TEST_POOLER"] = "pgbouncer"
    os.execv(
        sys.executable, [sys.executable, "-m", "pytest", "tests/data_plane", "-W", _LEFT_OPEN, "-r", "fE", *arguments]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
