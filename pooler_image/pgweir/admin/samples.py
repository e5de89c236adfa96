"""Families of metrics in Prometheus' form: what `metrics` shows at /metrics, and `shown` on the console. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from pgweir.admin.families import COMPATIBLE, Family, Moment, Source, Spread
from pgweir.admin.own_families import OWN
from pgweir.admin.own_families import PREFIX as OWN_PREFIX
from pgweir.pool.stats import BOUNDS


def metrics(moment: Moment, prefix: str) -> list[Metric]:
    """All that a scrape shows of the pooler, under the user's prefix and under ours."""
    found = [metric(prefix, family, moment) for family in COMPATIBLE]
    return found + [metric(OWN_PREFIX, family, moment) for family in OWN]


def metric(prefix: str, family: Family[Source], source: Source) -> Metric:
    """The family's samples at this moment."""
    name = f"{prefix}_{family.name}"
    made: GaugeMetricFamily | CounterMetricFamily
    match family.kind:
        case "histogram":
            histogram = HistogramMetricFamily(name, family.text, labels=family.labels)
            for labels, value in family.of(source):
                assert isinstance(value, Spread)
                histogram.add_metric(labels, buckets(value.counts), value.seconds)
            return histogram
        case "info":
            info = InfoMetricFamily(name, family.text)
            for _, value in family.of(source):
                assert isinstance(value, Mapping)
                info.add_metric((), dict(value))
            return info
        case "gauge":
            made = GaugeMetricFamily(name, family.text, labels=family.labels)
        case "counter":
            made = CounterMetricFamily(name, family.text, labels=family.labels)
    for labels, value in family.of(source):
        assert isinstance(value, int | float)
        made.add_metric(labels, value)
    return made


_BOUNDS: Final = (*(str(bound) for bound in BOUNDS), "+Inf")


def buckets(counts: Iterable[int]) -> list[tuple[str, float]]:
    """Prometheus' form: each bucket has what is in those below it, too."""
    return list(zip(_BOUNDS, itertools.accumulate(counts), strict=True))
