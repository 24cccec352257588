"""The Python client and the command line against a real API: what the two sides must agree on."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from jobsched.client import Client, Conflict, Invalid, NotFound, Unauthorized
from jobsched.testing.stand import Stand

JOB = {"schedule": "@every 1h", "api": "https://example.com/hook"}
#: Whatever a key may hold must survive its way through an address.
ODD_KEYS = ["a/b", "/", "//a//", " ü 夜 🚀", "50%", "%2F", "a?b#c;d&e=f", "...", "key", "-", "x" * 200]


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with Stand(JOBSCHED_SECRET_KEY="a-key-of-these-tests-with-32-bytes-or-more") as stand:
        stand.start_api()
        yield stand


@pytest.fixture
def client(stand: Stand) -> Iterator[Client]:
    with Client(stand.url, stand.key) as made:
        yield made


def jobsched(stand: Stand, *args: str, input: str = "", key: str | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "jobsched", *args],
        input=input,
        capture_output=True,
        text=True,
        env={**os.environ, "JOBSCHED_URL": stand.url, "JOBSCHED_API_KEY": key or stand.key},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_job_is_found_by_whatever_its_key_holds(client: Client, key: str) -> None:
    job = client.jobs.upsert(key, JOB, name="first")
    assert job["key"] == key
    assert client.jobs.get_by_key(key) == job
    again = client.jobs.upsert(key, {**job})
    assert (again["id"], again["version"]) == (job["id"], job["version"])
    assert client.jobs.get_by_key(key, unless_version=job["version"]) is None
    with pytest.raises(Conflict):
        client.jobs.upsert(key, JOB, only_new=True)
    changed = client.jobs.upsert(key, JOB, version=job["version"])
    assert (changed["id"], changed["name"], changed["version"]) == (job["id"], None, job["version"] + 1)
    with pytest.raises(Conflict):
        client.jobs.delete(job["id"], version=job["version"])
    client.jobs.delete(job["id"], version=changed["version"])
    with pytest.raises(NotFound):
        client.jobs.get_by_key(key)


def test_one_idempotency_key_is_one_job_and_one_run(client: Client) -> None:
    job = client.jobs.create(JOB, idempotency_key="once and only once")
    assert client.jobs.create(JOB, idempotency_key="once and only once") == job
    run = client.jobs.run(job["id"], idempotency_key="once and only once")
    assert client.jobs.run(job["id"], idempotency_key="once and only once") == run
    assert [each["id"] for each in client.jobs.executions(job["id"])] == [run["id"]]
    with pytest.raises(Invalid):
        client.jobs.create(JOB, name="another", idempotency_key="once and only once")


def test_an_answer_that_is_lost_on_its_way_leaves_one_job(stand: Stand) -> None:
    with LosesTheFirstAnswer(stand.url) as proxy, Client(proxy.url, stand.key) as client:
        job = client.jobs.create(JOB, name="lost once")
        assert [each["id"] for each in client.jobs.list(q="lost once")] == [job["id"]]
        assert proxy.connections >= 2


def test_a_bulk_is_all_or_none_or_what_is_valid(client: Client) -> None:
    jobs = [{**JOB, "name": f"bulk {number}", "priority": number} for number in range(12)]
    with pytest.raises(Invalid) as caught:
        client.jobs.create_many(jobs)
    assert [place for place, _ in caught.value.faults] == ["/11/priority"]
    assert list(client.jobs.list(q="bulk ")) == []
    result = client.jobs.create_many(jobs, partial=True, idempotency_key="bulk")
    assert client.jobs.create_many(jobs, partial=True, idempotency_key="bulk") == result
    assert (result["created"], [each["index"] for each in result["errors"]]) == (11, [11])
    assert [client.jobs.get(id)["name"] for id in result["ids"]] == [f"bulk {number}" for number in range(11)]


def test_more_than_one_request_takes_is_created_partially(client: Client) -> None:
    jobs = ({**JOB, "pool": "crowd", "priority": 99 if number == 10_000 else 5} for number in range(10_002))
    result = client.jobs.create_many(jobs, partial=True)
    assert (result["created"], len(set(result["ids"]))) == (10_001, 10_001)
    assert [each["index"] for each in result["errors"]] == [10_000]


def test_what_is_to_come_is_told(client: Client) -> None:
    preview = client.schedules.preview("30 2 * * *", "Europe/Berlin", n=100)
    assert len(preview["items"]) == 100
    job = client.jobs.create(schedule="30 2 * * *", timezone="Europe/Berlin", api="https://example.com")
    assert client.jobs.next(job["id"], n=3)["items"] == preview["items"][:3]
    with pytest.raises(Invalid) as caught:
        client.schedules.preview("0 0 31 2 *")
    assert [place for place, _ in caught.value.faults] == ["/schedule"]


def test_signing_secrets_are_for_admins_and_never_replayed(stand: Stand, client: Client) -> None:
    rotated = client.signing_secrets.rotate("90m", idempotency_key="rotation")
    assert client.signing_secrets.list() == rotated
    assert [secret["expiresAt"] is None for secret in rotated["items"]] == [True, False][
        : len(rotated["items"])
    ]
    with pytest.raises(Conflict):
        client.signing_secrets.rotate("90m", idempotency_key="rotation")
    assert client.signing_secrets.list() == rotated
    key = stand.run("keys", "create", "--name", "writer", "--role", "write").strip()
    with Client(stand.url, key) as writer, pytest.raises(Unauthorized):
        writer.signing_secrets.list()
    assert jobsched(stand, "signing", "list", key=key)[:2] == (5, "")
    code, said, _ = jobsched(stand, "signing", "list", "--json")
    assert (code, json.loads(said)) == (0, rotated)


def test_a_file_is_created_at_once_and_put_again_by_its_keys(stand: Stand) -> None:
    jobs = [{**JOB, "key": f"file {number}", "name": f"job {number}"} for number in range(3)]
    text = "\n".join(map(json.dumps, jobs))
    code, said, _ = jobsched(stand, "jobs", "create", "-f", "-", input=text)
    assert (code, said[:16]) == (0, "Created 3 jobs: ")
    code, said, errors = jobsched(stand, "jobs", "create", "-f", "-", input=text)
    assert (code, said, errors.count("standard input, line")) == (1, "", 3)
    jobs[1]["priority"] = 9  # type: ignore[assignment]
    jobs.append({**JOB, "key": "file 3", "name": "job 3"})
    code, said, _ = jobsched(stand, "jobs", "create", "-f", "-", "--upsert", input=json.dumps(jobs))
    assert (code, [line.split(" job ")[0] for line in said.splitlines()]) == (
        0,
        ["Unchanged:", "Changed", "Unchanged:", "Created"],
    )


def test_the_codes_of_a_command_that_fails(stand: Stand) -> None:
    job = JOB["schedule"], "--api", JOB["api"]
    assert (
        jobsched(stand, "jobs", "create", "--schedule", "61 * * * *", "--api", "https://a.example.com")[0]
        == 1
    )
    assert jobsched(stand, "jobs", "create", "--schedule", *job, "--payload", "{")[0] == 2
    assert jobsched(stand, "jobs", "show", "--key", "nobody has this")[0] == 4
    assert jobsched(stand, "jobs", "next", "999999999")[0] == 4
    assert jobsched(stand, "dead", "progress", "999999999")[0] == 4
    assert jobsched(stand, "jobs", "list", key="x" * 40)[0] == 5


class LosesTheFirstAnswer:
    """Hands requests on to the server, and breaks the connection where the first answer should come."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "LosesTheFirstAnswer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            caller, _ = self._listener.accept()
            self.connections += 1
            with closing(caller), closing(socket.create_connection(self._server)) as server:
                self._hand_on(caller, server)

    def _hand_on(self, caller: socket.socket, server: socket.socket) -> None:
        while True:
            readable, _, _ = select.select([caller, server], [], [], 30)
            for one in readable:
                data = one.recv(65_536)
                if not data or (one is server and self.connections == 1):
                    return
                (server if one is caller else caller).sendall(data)
            if not readable:
                return
