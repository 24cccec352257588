"""Prometheus' text format 0.0.4, as the client library writes it, at a third of the price.

An API process has some 700 series, most of them buckets of its routes. The library writes each one's name and labels
anew for every answer, which took 5 ms; here they are written once.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

from prometheus_client import CollectorRegistry
from prometheus_client.utils import floatToGoString

_number: Callable[[float], str] = floatToGoString

#: Series whose names are kept. They are bounded by their labels, but pools come and go.
_SERIES = 16_384


def written(registry: CollectorRegistry) -> str:
    """The figures of ``registry``."""
    return "".join(_lines(registry))


def _lines(registry: CollectorRegistry) -> Iterator[str]:
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        documentation = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        yield f"# HELP {name} {documentation}\n# TYPE {name} {family.type}\n"
        for sample in family.samples:
            series = _series(sample.name, tuple(sample.labels.items()))
            yield f"{series} {_number(sample.value)}\n"


@lru_cache(_SERIES)
def _series(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return name
    shown = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(labels))
    return f"{name}{{{shown}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
