"""Every table that SHOW knows by name: those of `tables`, and METRICS, which is made of them.

SHOW METRICS is what a scrape of /metrics finds of the pooler, for whoever has a console and no curl; the process's own
series (`process_*`, `python_*`) and those about scrapes are not in it. Pure but for the clock. Called by `commands` and `rest`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Final

from pgweir.admin import tables
from pgweir.admin.families import COMPATIBLE, Family, Moment, Spread
from pgweir.admin.own_families import OWN
from pgweir.admin.own_families import PREFIX as OWN_PREFIX
from pgweir.admin.service import Service
from pgweir.admin.tables.form import Row, Table, texts
from pgweir.pool.stats import BOUNDS

METRICS: Final = "METRICS"
NAMES: Final = (*tables.TABLES, METRICS)
METRICS_COLUMNS: Final = texts("name labels value")


def table(service: Service, name: str) -> Table | None:
    """The table of that name as it is now; None where there is none."""
    if name == METRICS:
        return metrics(Moment(service, time.time()), service.options.metrics_prefix)
    builder = tables.TABLES.get(name)
    return builder(tables.View.of(service, time.time())) if builder is not None else None


def metrics(moment: Moment, prefix: str) -> Table:
    """One row for each sample, in the order and the words of /metrics."""
    families = [*((prefix, family) for family in COMPATIBLE), *((OWN_PREFIX, family) for family in OWN)]
    return Table(METRICS_COLUMNS, [row for prefix, family in families for row in _rows(prefix, family, moment)])


def _rows(prefix: str, family: Family[Moment], moment: Moment) -> Iterator[Row]:
    name = f"{prefix}_{family.name}"
    for values, value in family.of(moment):
        if isinstance(value, Mapping):  # kind info: its labels are its value
            yield f"{name}_info", _labels(value), "1"
            continue
        labels = dict(zip(family.labels, values, strict=True))
        if isinstance(value, Spread):
            bounds = (*map(str, BOUNDS), "+Inf")
            sums = list(itertools.accumulate(value.counts))
            for bound, count in zip(bounds, sums, strict=True):
                yield f"{name}_bucket", _labels({**labels, "le": bound}), str(count)
            yield f"{name}_count", _labels(labels), str(sums[-1])
            yield f"{name}_sum", _labels(labels), _number(value.seconds)
        else:
            yield f"{name}_total" if family.kind == "counter" else name, _labels(labels), _number(value)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
