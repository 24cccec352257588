"""Figures for Prometheus, from running processes: over HTTP, with the port from the setting or the log."""

import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobsched.embedded import ports
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.conftest import eventually

Figures = dict[tuple[str, str], float]


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with Stand(JOBSCHED_LOG_FORMAT="json", JOBSCHED_HOST="127.0.0.1") as stand:
        stand.start_api()
        for name in ("poller", "worker"):
            stand.start(name, name, JOBSCHED_METRICS_PORT="0")
        yield stand


def scrape(url: str, key: str | None = None) -> Figures:
    """Value by name and the values of the labels, joined by blanks."""
    request = urllib.request.Request(
        f"{url}/metrics", headers={"Authorization": f"Bearer {key}"} if key else {}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, " ".join(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def address(stand: Stand, name: str) -> str:
    """Where a process serves, as its log says."""
    found = re.search(r'"port": ?(\d+)[^\n]*"event": ?"metrics_served"|"metrics_served"[^\n]*"port": ?(\d+)',
                      stand.log_of(name))  # fmt: skip
    assert found, stand.log_of(name)
    return f"http://127.0.0.1:{found[1] or found[2]}"


def test_a_delivery_is_seen_in_the_figures_of_every_process(stand: Stand) -> None:
    with Target() as target:
        stand.client().jobs.create(schedule="@in 1s", api=f"{target.url}/ok")
        target.wait_for(1, 30)

        def seen() -> None:
            worker, poller = scrape(address(stand, "worker")), scrape(address(stand, "poller"))
            assert worker.get(("jobsched_worker_attempts_total", "none succeeded")) == 1
            assert worker["jobsched_worker_attempt_duration_seconds_count", ""] == 1
            assert worker["jobsched_worker_seats", ""] == 100
            assert worker["jobsched_worker_seats_used", ""] == 0
            assert poller["jobsched_poller_slots_fired_total", ""] == 1
            assert poller["jobsched_poller_last_round_timestamp_seconds", ""] > 1.7e9

        eventually(seen, 20)
    whole = scrape(stand.url, stand.key)
    assert whole["jobsched_processes_alive", "poller"] == whole["jobsched_processes_alive", "worker"] == 1
    assert whole["jobsched_seats", ""] == 100
    assert whole["jobsched_redis_up", ""] == 1
    assert whole["jobsched_http_requests_total", "POST /api/v1/jobs 2xx"] == 1
    assert whole["process_resident_memory_bytes", ""] > 1e6


def test_the_installations_figures_need_a_key(stand: Stand) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        scrape(stand.url)
    with refused.value:
        assert refused.value.code == 401


@pytest.mark.parametrize("command", ["poller", "worker"])
def test_a_port_that_is_taken_is_a_wrong_setting(stand: Stand, command: str) -> None:
    port = address(stand, "worker").rpartition(":")[2]
    with pytest.raises(subprocess.CalledProcessError) as ended:
        stand.run(command, JOBSCHED_METRICS_PORT=port)
    assert ended.value.returncode == 2
    assert f"JOBSCHED_METRICS_PORT: cannot listen on port {port}" in ended.value.stderr
    assert "Traceback" not in ended.value.stderr


def test_figures_come_while_a_process_waits_for_its_servers(stand: Stand) -> None:
    port = ports.free_port()
    nowhere = f"postgresql://nobody@127.0.0.1:{ports.free_port()}/none"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stand, "database_url", nowhere)
        stand.start("waiting", "worker", JOBSCHED_METRICS_PORT=str(port))

    def served() -> None:
        try:
            assert scrape(f"http://127.0.0.1:{port}")["jobsched_worker_executions_claimed_total", ""] == 0
        except urllib.error.URLError as error:
            raise AssertionError(error) from error

    eventually(served, 30)
    assert stand.stop("waiting") == 0
