"""Histograms of ours: for figures that come in batches, and for those that are shown with many labels."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import inf
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString


class Spread:
    """A histogram without labels that takes many values at once, under one lock.

    64 of them cost 0.2 µs each; the library's own takes two locks a value and 1.7 µs.
    """

    def __init__(
        self, name: str, documentation: str, *, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = (*buckets, inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._lock = Lock()
        registry.register(self)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.observe_all((value,))

    def observe_all(self, values: Iterable[float]) -> None:
        """Count each of ``values``. A negative one, of clocks that differ, counts as zero."""
        bounds, counts = self._bounds, self._counts
        with self._lock:
            for value in values:
                if value > 0.0:
                    self._sum += value
                counts[bisect_left(bounds, value)] += 1

    def collect(self) -> list[HistogramMetricFamily]:
        """What the registry shows."""
        with self._lock:
            counts, total = [*self._counts], self._sum
        shown = zip(map(floatToGoString, self._bounds), accumulate(counts), strict=True)
        return [HistogramMetricFamily(self._name, self._documentation, buckets=[*shown], sum_value=total)]

    describe = collect


class LabelledSpread:
    """A histogram with labels, which takes one value at a time.

    Shown 40 times over, for each route and method, the library's own cost 2 ms an answer: it makes the labels of each
    bucket anew.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = tuple(labels)
        self._bounds = (*buckets, inf)
        self._lock = Lock()
        self._series: dict[tuple[str, ...], _Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> "_Series":
        """The series with these values of the labels."""
        with self._lock:
            series = self._series.get(values)
            if series is None:
                labels = dict(zip(self._labelnames, values, strict=True))
                series = self._series[values] = _Series(self._name, labels, self._bounds)
            return series

    def collect(self) -> list[Metric]:
        """What the registry shows."""
        metric = Metric(self._name, self._documentation, "histogram")
        with self._lock:
            series = [*self._series.values()]
        metric.samples = [sample for one in series for sample in one.samples()]
        return [metric]

    describe = collect


class _Series:
    def __init__(self, name: str, labels: dict[str, str], bounds: Sequence[float]) -> None:
        self._name = name
        self._labels = labels
        self._bounds = bounds
        self._of_buckets = [labels | {"le": le} for le in map(floatToGoString, bounds)]
        self._counts = [0] * len(bounds)
        self._sum = 0.0
        self._lock = Lock()

    def observe(self, value: float) -> None:
        """Count one value."""
        place = bisect_left(self._bounds, value)
        with self._lock:
            self._sum += value
            self._counts[place] += 1

    def samples(self) -> list[Sample]:
        with self._lock:
            counts, total = [*accumulate(self._counts)], self._sum
        bucket = f"{self._name}_bucket"
        return [
            *(Sample(bucket, labels, count) for labels, count in zip(self._of_buckets, counts, strict=True)),
            Sample(f"{self._name}_count", self._labels, counts[-1]),
            Sample(f"{self._name}_sum", self._labels, total),
        ]
