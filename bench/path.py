"""`python -m bench.path`: what one transaction costs our own code, in both forms, with no network and no kernel in it.

The wires take bytes and forget them, so this is the user time of the sessions alone: no event loop, no sockets. CPU time of the
process, the best of several rounds. `make bench` has the whole.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time

from tests.pgweir.session.traffic import TRANSACTIONS, Traffic

from pgweir import compiled

ROUNDS = 7


def main() -> int:
    if len(sys.argv) == 1:
        print("microseconds a transaction       busy    calm   (a server from hand to hand; from the shelf)")
        for plain in ("1", "0"):
            environment = {**os.environ, compiled.PLAIN_VARIABLE: plain}
            subprocess.run([sys.executable, "-m", "bench.path", "measure"], env=environment, check=True)
        return 0
    gc.disable()
    for kind in TRANSACTIONS:
        busy, calm = (cost(kind, clients) for clients in (4, 1))
        print(f"{compiled.FORM:10} {kind:14} {busy:10.2f} {calm:7.2f}")
    if compiled.WHY_PLAIN:
        print(f"({compiled.WHY_PLAIN})")
    return 0


def cost(kind: str, clients: int) -> float:
    transactions = 2_000 if kind == "rows" else 20_000
    traffic = Traffic(kind, clients=clients)
    traffic.run(transactions // 10)
    times = []
    for _ in range(ROUNDS):
        before = time.process_time()
        traffic.run(transactions)
        times.append(time.process_time() - before)
    return min(times) / transactions * 1e6


if __name__ == "__main__":
    sys.exit(main())
