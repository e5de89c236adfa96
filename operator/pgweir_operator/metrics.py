"""The operator's own metrics: what the rooms count, by the names that Prometheus reads.

Every label has a closed list of values: verbs, status codes, words of ours; never a Pooler's name. Counts and shows, decides
nothing. Made by main (a room that is given none counts for itself), shown by serving.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Numbers = Mapping[tuple[str, ...], int]
"""By the values of the labels."""

_PASS_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_CALL_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(slots=True)
class Metrics:
    """One for the process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    passes: Counter = field(init=False)
    pass_seconds: Histogram = field(init=False)
    calls: Counter = field(init=False)
    call_seconds: Histogram = field(init=False)
    switchovers: Counter = field(init=False)

    def __post_init__(self) -> None:
        ProcessCollector(registry=self.registry)
        self.passes = Counter(
            "pgweir_operator_reconciles",
            "Passes over a Pooler by how they ended: settled (all is proved), waiting (something is on its way), blocked "
            "(a condition says by what), gone (the Pooler is), failed (an unforeseen error, see the log).",
            ["result"],
            registry=self.registry,
        )
        for result in ("settled", "waiting", "blocked", "gone", "failed"):
            self.passes.labels(result)
        self.pass_seconds = Histogram(
            "pgweir_operator_reconcile_duration_seconds",
            "How long a pass over a Pooler took.",
            buckets=_PASS_BUCKETS,
            registry=self.registry,
        )
        self.calls = Counter(
            "pgweir_operator_pod_calls",
            "Calls of pods' control endpoints, by what was asked and how it ended: answered, refused or silent.",
            ["call", "result"],
            registry=self.registry,
        )
        self.call_seconds = Histogram(
            "pgweir_operator_pod_call_duration_seconds",
            "How long a pod took to answer a call of its control endpoint. configuration: a push, until the pod runs it.",
            ["call"],
            buckets=_CALL_BUCKETS,
            registry=self.registry,
        )
        self.switchovers = Counter(
            "pgweir_operator_switchovers",
            "Switchovers in which clients were held, by how they ended.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("Done", "TimedOut", "RolledBack"):
            self.switchovers.labels(outcome)

    @contextmanager
    def timed(self, histogram: Histogram) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            histogram.observe(time.monotonic() - began)

    def gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A number that is asked for when somebody looks."""
        Gauge(name, help, registry=self.registry).set_function(value)

    def tallied(self, name: str, help: str, labels: Iterable[str], numbers: Callable[[], Numbers]) -> None:
        """A counter that a room keeps by itself."""
        self.registry.register(_Shown(lambda: CounterMetricFamily(name, help, labels=list(labels)), numbers))

    def sorted(self, name: str, help: str, labels: Iterable[str], numbers: Callable[[], Numbers]) -> None:
        """How many there are of each sort, when somebody looks."""
        self.registry.register(_Shown(lambda: GaugeMetricFamily(name, help, labels=list(labels)), numbers))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Shown(Collector):
    def __init__(
        self,
        family: Callable[[], CounterMetricFamily | GaugeMetricFamily],
        numbers: Callable[[], Numbers],
    ) -> None:
        self._family = family
        self._numbers = numbers

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for labels, number in sorted(self._numbers().items()):
            family.add_metric(labels, number)
        yield family
