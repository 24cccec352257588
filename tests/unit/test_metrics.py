"""Metrics: what is shown and how, that the documents list it, and that alarms ask for what there is."""

import contextlib
import re
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from jobsched import metrics
from jobsched.errors import ConfigError
from jobsched.metrics.endpoint import MOST_READERS, Endpoint
from jobsched.metrics.spread import LabelledSpread, Spread
from jobsched.poller.process import _counted
from tests.conftest import eventually
from tests.test_contract import table

DOCS = Path(__file__).parents[2] / "docs"

#: Where docs/metrics.md lists what.
CHAPTERS = {
    "Of the whole installation": metrics.Installation().registry,
    "Of an API process": metrics.API,
    "Of a poller": metrics.POLLER,
    "Of a worker": metrics.WORKER,
}
BOTH = "Of pollers and workers"
#: What others show: Prometheus itself, and the exporter of machines.
FOREIGN = {"up", "node_filesystem_avail_bytes", "node_filesystem_size_bytes"}


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of an answer, as Prometheus' own parser reads it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def ours(registry: CollectorRegistry) -> dict[str, tuple[str, list[str], str]]:
    """Kind, labels and meaning of each figure of ours that a process shows, by name."""
    found = {}
    for metric in registry._collector_to_names:
        if isinstance(metric, MetricWrapperBase | Spread | LabelledSpread):
            [family] = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, list(getattr(metric, "_labelnames", ())), family.documentation)
    return found


def test_the_document_lists_what_each_process_shows() -> None:
    def told(chapter: str) -> dict[str, tuple[str, list[str], str]]:
        return {
            row["name"]: (row["type"], row["labels"].replace("–", "").split(), row["meaning"])
            for row in table(chapter, "metrics.md")
        }

    both = told(BOTH)
    for chapter, registry in CHAPTERS.items():
        shared = both if chapter in ("Of a poller", "Of a worker") else {}
        assert told(chapter) | shared == ours(registry), chapter


def test_names_are_prometheus_own() -> None:
    names: list[str] = []
    for registry in CHAPTERS.values():
        for name, (kind, labels, meaning) in ours(registry).items():
            names += [name]
            assert re.fullmatch(r"jobsched(_[a-z]+)+", name)
            assert name.endswith("_total") == (kind == "counter"), name
            assert kind != "histogram" or name.endswith("_seconds"), name
            assert not {"job", "instance", "id", "url", "host"} & {*labels}, name
            assert meaning.endswith((".", ")")), name
    shared = len(table(BOTH, "metrics.md"))
    assert len(names) - len(set(names)) == shared


def test_many_values_at_once_are_counted_as_one_after_the_other() -> None:
    values = [0.0, 0.01, 0.0100001, 3, 1e9, -2]
    registry = CollectorRegistry()
    at_once = Spread("a_seconds", "At once.", buckets=(0.01, 1, 5), registry=registry)
    single = Histogram("b_seconds", "One by one.", buckets=(0.01, 1, 5), registry=registry)
    at_once.observe_all(values[:3])
    at_once.observe_all(iter(values[3:]))
    at_once.observe_all([])
    for value in values:
        single.observe(max(0.0, value))
    found = samples(metrics.exposition(registry))
    first = {name[1:]: value for (name, _), value in found.items() if name.startswith("a")}
    assert first == {name[1:]: value for (name, _), value in found.items() if name.startswith("b")}
    assert found["a_seconds_bucket", frozenset({("le", "0.01")})] == 3
    assert found["a_seconds_count", frozenset()] == 6


def test_a_histogram_with_labels_shows_what_the_librarys_own_shows() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    names = ["method", "route"]
    spread = LabelledSpread("a_seconds", "Each.", names, buckets=(0.01, 1, 5), registry=ours)
    histogram = Histogram("a_seconds", "Each.", names, buckets=(0.01, 1, 5), registry=theirs)
    for method, value in [("GET", 0.0), ("PUT", 0.01), ("GET", 0.0100001), ("GET", 3), ("PUT", 1e9)]:
        spread.labels(method, "/a").observe(value)
        histogram.labels(method, "/a").observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


@pytest.mark.parametrize("registry", [metrics.API, metrics.POLLER, metrics.WORKER])
def test_figures_are_written_as_the_library_writes_them(registry: CollectorRegistry) -> None:
    metrics.requests.labels("GET", "/a", "2xx").inc()
    metrics.request_duration.labels("GET", "/a").observe(0.2)
    installation = metrics.Installation()
    installation.executions.labels('a"b\\c\nd é', "queued").set(1e300)
    installation.oldest_due.labels("default").set(float("inf"))
    installation.lag.set(12_345_678.9)

    def steady(text: bytes) -> list[str]:
        # Two looks at a process never show the same memory and time.
        lines = text.decode().split("\n")
        return [
            line.rpartition(" ")[0] if line.startswith(("process_", "python_gc")) else line for line in lines
        ]

    for one in (registry, installation.registry):
        assert steady(metrics.exposition(one)) == steady(generate_latest(one))


@pytest.mark.parametrize("registry", [metrics.API, metrics.POLLER, metrics.WORKER])
def test_each_process_shows_its_memory_and_nothing_twice(registry: CollectorRegistry) -> None:
    text = metrics.exposition(registry, metrics.Installation().registry)
    families = [family.name for family in text_string_to_metric_families(text.decode())]
    assert {"process_resident_memory_bytes", "process_open_fds", "python_info"} <= {*families}
    assert len(families) == len({*families})
    assert not any(name.endswith("_created") for name, _ in samples(text))


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("seen_total", "Times.", registry=registry).inc(3)
    return registry


@pytest.fixture(scope="module")
def endpoint(registry: CollectorRegistry) -> Iterator[Endpoint]:
    endpoint = Endpoint(registry, "127.0.0.1", 0)
    yield endpoint
    endpoint.close()


def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, Any, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_a_process_serves_its_figures_at_one_path(endpoint: Endpoint) -> None:
    status, headers, body = get(endpoint.port, "/metrics?debug=1")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert samples(body) == {("seen_total", frozenset()): 3}
    assert headers["Server"] == "jobsched"
    assert get(endpoint.port, method="HEAD")[::2] == (200, b"")
    assert get(endpoint.port, "/")[0] == 404
    assert get(endpoint.port, method="POST")[0] == 501


def test_a_reader_that_goes_away_or_dawdles_stops_nobody(endpoint: Endpoint) -> None:
    with socket.create_connection(("127.0.0.1", endpoint.port)):
        socket.create_connection(("127.0.0.1", endpoint.port)).close()
        assert get(endpoint.port)[0] == 200


def test_readers_are_few_and_none_stays_for_ever(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobsched.metrics.endpoint.LONGEST_VISIT", 2.0)
    endpoint = Endpoint(registry, "127.0.0.1", 0)
    before = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", endpoint.port)
        readers = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(9)]
        assert readers[8].recv(1) == b"", "the ninth is turned away"
        # Of others, a thread of an earlier test may end meanwhile.
        serving = set(threading.enumerate()) - before
        assert len(serving) == MOST_READERS
        began = time.monotonic()
        let_go = False
        while not let_go:
            with contextlib.suppress(OSError):  # a byte every now and then does not help
                readers[0].send(b"G")
            let_go = select.select([readers[0]], [], [], 0.3)[0] != []
            assert time.monotonic() - began < 9
        for reader in readers[1:8]:
            assert reader.recv(1) == b""

    def left() -> None:
        assert not [thread for thread in serving if thread.is_alive()]

    eventually(left)
    assert get(endpoint.port)[0] == 200
    endpoint.close()


def test_a_port_that_is_taken_is_a_wrong_setting(endpoint: Endpoint, registry: CollectorRegistry) -> None:
    with pytest.raises(ConfigError, match=f"JOBSCHED_METRICS_PORT: cannot listen on port {endpoint.port}: "):
        Endpoint(registry, "127.0.0.1", endpoint.port)


def test_a_host_that_is_none_is_a_wrong_setting(registry: CollectorRegistry) -> None:
    with pytest.raises(ConfigError, match="JOBSCHED_METRICS_PORT: cannot listen"):
        Endpoint(registry, "no such host", 0)


def test_figures_are_served_over_ipv6_too(registry: CollectorRegistry) -> None:
    endpoint = Endpoint(registry, "::1", 0)
    with urllib.request.urlopen(f"http://[::1]:{endpoint.port}/metrics", timeout=10) as answer:
        assert answer.status == 200
    endpoint.close()


def test_commands_that_show_no_figures_do_not_load_the_library() -> None:
    parts = "jobsched.cli, jobsched.client, jobsched.wiring, jobsched.embedded.up, jobsched.doctor, jobsched.db.keys"
    code = f"import sys, {parts}; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def alarms() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"]
    return [*group["rules"]]


#: A counter in an expression, and the one label that it is asked for by.
_INCREASE = re.compile(r'increase\((\w+)(?:\{(\w+)="(\w+)"\})?\[')


@pytest.mark.parametrize("alarm", alarms(), ids=lambda alarm: alarm["alert"])
def test_an_alarm_asks_for_what_there_is(alarm: dict[str, Any]) -> None:
    """Names of figures and of their labels; Prometheus' own checker (promtool) is no Python."""
    known: dict[str, set[str]] = {name: {"job", "instance", "mountpoint"} for name in FOREIGN}
    for registry in CHAPTERS.values():
        known |= {name: {*labels, "instance"} for name, (_, labels, _) in ours(registry).items()}
    expression = alarm["expr"]
    assert {*alarm} - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert alarm["labels"]["severity"] in {"page", "ticket"}
    assert expression.count("(") == expression.count(")")
    used = set(re.findall(r"\b(?:jobsched|node)_\w+|\bup\b", re.sub(r'"[^"]*"', "", expression)))
    assert used
    assert used <= known.keys()
    labels = {label for name in used for label in known[name]}
    asked = re.findall(r"(\w+)=~?\"", expression)
    asked += (
        re.split(r",\s*", ", ".join(re.findall(r"\bby \(([^)]*)\)", expression)))
        if " by " in expression
        else []
    )
    told = re.findall(r"\$labels\.(\w+)", alarm["annotations"]["summary"])
    assert {*asked, *told} <= labels
    assert {*told} <= {*asked}


def test_an_alarm_on_an_increase_tells_of_the_first_one() -> None:
    """A series that begins at 1 has never increased, so it must be there before there is anything to count."""
    _counted("dispatch", lambda: 0.0)  # as a poller does with each of its services
    asked = [found for alarm in alarms() for found in _INCREASE.findall(alarm["expr"])]
    assert len(asked) > 5
    shown = [
        sample for registry in CHAPTERS.values() for family in registry.collect() for sample in family.samples
    ]
    late = [
        (name, label, value)
        for name, label, value in asked
        if not any(one.name == name and one.labels.get(label, "") == value for one in shown)
    ]
    assert late == []


def test_every_alarm_stands_in_the_runbook_as_it_is() -> None:
    runbook = re.findall(r"^\*\*(\w+)\.\*\* `([^`]+)`\n\n\S", (DOCS / "operations.md").read_text(), re.M)
    assert runbook == [(alarm["alert"], " ".join(alarm["expr"].split())) for alarm in alarms()]
