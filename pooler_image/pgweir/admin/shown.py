"""Every table that SHOW knows by name: those of `tables`, and METRICS, which is made of them.

SHOW METRICS is what a scrape of /metrics finds of the pooler, for whoever has a console and no curl; the process's own
series (`process_*`, `python_*`) and those about scrapes are not in it. Pure but for the clock. Called by `commands` and `rest`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from pgweir.admin import tables
from pgweir.admin.families import Moment
from pgweir.admin.samples import metrics
from pgweir.admin.service import Service
from pgweir.admin.tables.form import Table, texts

METRICS: Final = "METRICS"
NAMES: Final = (*tables.TABLES, METRICS)
METRICS_COLUMNS: Final = texts("name labels value")


def table(service: Service, name: str) -> Table | None:
    """The table of that name as it is now; None where there is none."""
    if name == METRICS:
        return metrics_table(Moment(service, time.time()), service.options.metrics_prefix)
    builder = tables.TABLES.get(name)
    return builder(tables.View.of(service, time.time())) if builder is not None else None


def metrics_table(moment: Moment, prefix: str) -> Table:
    """One row for each sample, in the order and the words of /metrics."""
    samples = [sample for metric in metrics(moment, prefix) for sample in metric.samples]
    return Table(METRICS_COLUMNS, [(each.name, _labels(each.labels), _number(each.value)) for each in samples])


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
