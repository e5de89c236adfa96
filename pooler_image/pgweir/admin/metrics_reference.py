"""The reference of metrics for users: `python -m pgweir.admin.metrics_reference > docs/metrics.md`.

Pure; a test compares the page with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pgweir.admin.families import COMPATIBLE, SCRAPES, Family
from pgweir.admin.metrics import DEFAULT_PREFIX
from pgweir.admin.own_families import OWN, PREFIX
from pgweir.pool.stats import BOUNDS

_HEADER: Final = f"""\
# Metrics

Written by `python -m pgweir.admin.metrics_reference > docs/metrics.md`; do not edit it by hand.

`pgweir-pooler --metrics-listen ADDRESS:PORT` (port 9127 in a pod) answers `/metrics`, in OpenMetrics for whoever asks for it.
In a pod `monitoring.enablePodMonitor` makes the PodMonitor, and `monitoring.tls.enabled` serves them over TLS.

```console
$ kubectl port-forward deploy/pooler-example-rw 9127 &
$ curl --silent --retry 5 --retry-connrefused http://localhost:9127/metrics
```

The chart has a dashboard for Grafana (`monitoring.dashboard.enabled`) and alerts (`monitoring.alerts.enabled`) made of these.
A process's own memory, CPU and descriptors are `process_*`, Python's `python_*`; there is no `go_*`, since nothing here is Go.

## Under a prefix of your choice

`{DEFAULT_PREFIX}` unless `--metrics-prefix` (`monitoring.metricsPrefix` of a Pooler) says another, such as `cnpg_pgbouncer`.
Names, types and labels are those of CloudNativePG's and EDB's exporter, so their dashboards work; totals are gauges there, and
times microseconds.
"""
_OWN: Final = f"""\

## Ours

Counters are counters, times are seconds. Histograms have a bucket for each of {len(BOUNDS)} bounds, each twice the one before:
from {BOUNDS[0] * 1e3:g} ms to {BOUNDS[-1]:g} s.
"""


def metrics_reference() -> str:
    return _HEADER + _table(DEFAULT_PREFIX, (*COMPATIBLE, *SCRAPES)) + _OWN + _table(PREFIX, OWN)


def shown_name(prefix: str, family: Family[Any]) -> str:
    """As a query says it."""
    return f"{prefix}_{family.name}" + {"counter": "_total", "info": "_info"}.get(family.kind, "")


def _table(prefix: str, families: Iterable[Family[Any]]) -> str:
    lines = ["", "| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "–"
        kind = "gauge (1)" if family.kind == "info" else family.kind
        lines.append(f"| `{shown_name(prefix, family)}` | {kind} | {labels} | {family.text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(metrics_reference(), end="")
