import threading

import psycopg
import pytest

from jobsched.db import claims
from jobsched.db.connection import Link
from jobsched.db.ended import Ended
from jobsched.domain.outcome import Policy
from jobsched.domain.retry import RetryPolicy
from jobsched.errors import DatabaseRefused
from tests.integration.factories import make_execution, make_job, make_worker


def ended(id, attempt=1, state="succeeded", **more):
    return Ended(id=id, attempt=attempt, state=state, age=0.0, duration_ms=12.5, max_retry_count=3, **more)


def states(link):
    live = link.execute("SELECT id, state FROM execution")
    return dict(live + link.execute("SELECT id, state FROM execution_history"))


def test_a_claim_takes_queued_rows_once_and_brings_the_job_along(link):
    worker = make_worker(link)
    job = make_job(link, payload={"b": 1, "a": [2]}, headers={"X-A": "b"}, timeout_seconds=7)
    execution = make_execution(link, job)
    [claimed] = claims.claim(link, worker, [execution, 999])
    assert (claimed.id, claimed.job_id, claimed.attempt, claimed.timeout_seconds) == (execution, job, 1, 7)
    assert (claimed.headers, claimed.policy.success_status) == ({"X-A": "b"}, ("200-299",))
    assert claimed.payload == '{"b": 1, "a": [2]}'
    assert claims.claim(link, make_worker(link, "worker-2"), [execution]) == []


def test_a_claim_brings_the_terms_of_each_job(link):
    worker = make_worker(link)
    usual = make_execution(link, make_job(link))
    special = make_execution(
        link,
        make_job(
            link,
            timeout_seconds=0.25,
            follow_redirects=True,
            type="AT_MOST_ONCE",
            max_retry_count=0,
            min_backoff_seconds=0.1,
            max_backoff_seconds=1e300,
            backoff_factor=1.5,
            backoff_jitter=1 / 3,
            success_status=["200", "3 00", 'a"{,\\'],
            no_retry_status=["400-499"],
        ),
    )
    policies = {
        one.id: (one.timeout_seconds, one.follow_redirects, one.policy)
        for one in claims.claim(link, worker, [special, usual])
    }
    assert policies[usual] == (30.0, False, Policy())
    retry = RetryPolicy(0, 0.1, 1e300, 1.5, 1 / 3)
    assert policies[special] == (0.25, True, Policy(True, retry, ("200", "3 00", 'a"{,\\'), ("400-499",)))


def test_terms_that_only_a_hand_can_have_written_are_read_as_they_are(link):
    job = make_job(link)
    execution = make_execution(link, job)
    link.execute(
        "UPDATE job SET timeout_seconds = 'NaN', backoff_factor = 'Infinity', success_status = '{NULL,\"{}\"}',"
        " no_retry_status = '{{400,401},{402,403}}' WHERE id = %s",
        (job,),
    )
    [claimed] = claims.claim(link, make_worker(link), [execution])
    assert str(claimed.timeout_seconds) == "nan"
    assert claimed.policy.retry.backoff_factor == float("inf")
    assert claimed.policy.success_status == (None, "{}")
    assert claimed.policy.no_retry_status == (["400", "401"], ["402", "403"])


def test_two_workers_that_claim_the_same_rows_share_them(link, database_url):
    job = make_job(link)
    ids = [make_execution(link, job) for _ in range(50)]
    got, start = [], threading.Barrier(2)

    def work(name):
        own = Link(database_url, name)
        worker = make_worker(own, name)
        start.wait()
        got.extend(one.id for one in claims.claim(own, worker, ids))
        own.close()

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ids


def test_an_execution_of_a_deleted_job_is_cancelled_when_it_is_claimed(link):
    job = make_job(link)
    execution = make_execution(link, job)
    link.execute("UPDATE job SET deleted_at = now() WHERE id = %s", (job,))
    assert claims.claim(link, make_worker(link), [execution]) == []
    assert states(link) == {execution: "cancelled"}


def test_a_success_moves_to_history_with_what_was_captured(link):
    worker = make_worker(link)
    job = make_job(link)
    execution = make_execution(link, job)
    claims.claim(link, worker, [execution])
    [recorded] = claims.finish(
        link, worker, "w", [ended(execution, status=200, headers='[["A", "b"]]', body=b"\0\xff", phases="{}")]
    )
    assert (recorded.id, recorded.state) == (execution, "succeeded")
    assert link.execute("SELECT count(*) FROM execution") == [(0,)]
    assert link.execute(
        "SELECT state, worker, response_status, response_body, attempts, duration_ms FROM execution_history"
    ) == [("succeeded", "w", 200, b"\0\xff", [], 12.5)]
    assert link.execute("SELECT job_id, last_state FROM job_last") == [(job, "succeeded")]


def test_successes_are_recorded_alike_in_company_of_failures_and_alone(link):
    worker, job = make_worker(link), make_job(link)
    ids = [make_execution(link, job) for _ in range(7)]
    claims.claim(link, worker, ids)
    link.execute("UPDATE execution SET redrive_of = 5, retry_count = 2, attempts = '[{\"attempt\": 0}]'")

    def successes(ids):
        captured = {"headers": '{"A": "b"}', "body": b"ok", "phases": '{"totalMs": 12.500}', "status": 200}
        return [
            ended(ids[0], **captured),
            ended(ids[1], **captured | {"headers": '{"A": "c"}', "body": b"", "truncated": True}),
            ended(ids[2], state="cancelled", error_code="cancelled", error_message="", payload="1"),
        ]

    claims.finish(link, worker, "w", list(reversed(successes(ids[:3]))))
    [failed, *_] = others = [ended(ids[6], state="retrying", delay=1.0), *successes(ids[3:6])]
    recorded = claims.finish(link, worker, "w", others)
    assert {one.id: one.state for one in recorded}[failed.id] == "retrying"
    rows = link.execute(
        "SELECT project_id, job_id, trigger, state, attempt, retry_count, max_retry_count, duration_ms, worker,"
        " response_status, response_headers::text, response_body, response_truncated, error_code, error_message,"
        " phases::text, attempts, job_version, redrive_of FROM execution_history ORDER BY id"
    )
    assert len(rows) == 6
    assert rows[:3] == rows[3:]
    assert rows[1][8:16] == ("w", 200, '{"A": "c"}', b"", True, None, None, '{"totalMs": 12.500}')
    assert rows[2][3] == "cancelled"
    assert rows[2][13:15] == ("cancelled", "")


def test_a_retry_keeps_the_failed_attempt_and_the_payload_that_was_sent(link):
    worker = make_worker(link)
    execution = make_execution(link, make_job(link, payload={"n": 1}))
    claims.claim(link, worker, [execution])
    [recorded] = claims.finish(
        link,
        worker,
        "w",
        [
            ended(
                execution, state="retrying", delay=2.0, spends=True, error_code="timeout", payload='{"n": 1}'
            )
        ],
    )
    assert recorded.state == "retrying"
    assert recorded.due_in == pytest.approx(2.0, abs=0.5)
    [(state, retries, payload, attempts, owner)] = link.execute(
        "SELECT state, retry_count, payload, attempts, worker_id FROM execution"
    )
    assert (state, retries, payload, owner) == ("retrying", 1, {"n": 1}, None)
    assert [(one["attempt"], one["errorCode"], one["worker"]) for one in attempts] == [(1, "timeout", "w")]


def test_a_final_failure_becomes_a_dead_letter(link):
    worker = make_worker(link)
    execution = make_execution(link, make_job(link))
    claims.claim(link, worker, [execution])
    claims.finish(
        link,
        worker,
        "w",
        [ended(execution, state="failed", error_code="http_status", status=500, payload="7")],
    )
    [row] = link.execute("SELECT id, error_code, response_status, payload, last_attempt FROM dead_letter")
    assert row[:4] == (execution, "http_status", 500, 7)
    assert row[4]["responseStatus"] == 500


@pytest.mark.parametrize("wrong", ["attempt", "worker", "done"])
def test_a_finish_by_anyone_but_the_owner_of_the_attempt_changes_nothing(link, wrong):
    worker = make_worker(link)
    execution = make_execution(link, make_job(link))
    claims.claim(link, worker, [execution])
    if wrong == "done":
        claims.finish(link, worker, "w", [ended(execution)])
    before = states(link)
    owner = make_worker(link, "other") if wrong == "worker" else worker
    late = ended(execution, attempt=2 if wrong == "attempt" else 1, state="failed")
    assert claims.finish(link, owner, "w", [late]) == []
    assert states(link) == before
    assert link.execute("SELECT count(*) FROM dead_letter") == [(0,)]


def test_a_retry_of_a_flagged_execution_ends_cancelled_and_a_success_stays_a_success(link):
    worker = make_worker(link)
    job = make_job(link)
    first, second = make_execution(link, job), make_execution(link, job)
    claims.claim(link, worker, [first, second])
    link.execute("UPDATE execution SET cancel_requested_at = now()")
    assert sorted(claims.flagged(link, worker)) == [first, second]
    claims.finish(link, worker, "w", [ended(first, state="retrying"), ended(second)])
    assert states(link) == {first: "cancelled", second: "succeeded"}


def test_a_cancel_that_lands_while_the_retry_is_written_is_not_lost(link, database_url):
    worker = make_worker(link)
    execution = make_execution(link, make_job(link))
    claims.claim(link, worker, [execution])
    with psycopg.connect(database_url) as user:
        user.execute("UPDATE execution SET cancel_requested_at = now()")
        finishing = threading.Thread(
            target=claims.finish, args=(link, worker, "w", [ended(execution, state="retrying")])
        )
        finishing.start()
        _wait_for_a_lock(user)
        user.commit()
        finishing.join()
    assert states(link) == {execution: "cancelled"}


def _wait_for_a_lock(connection):
    for _ in range(500):
        [(waiting,)] = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchall()
        if waiting:
            return
        connection.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("nobody waits for a lock")


def test_the_failure_of_a_deleted_job_is_final(link):
    worker = make_worker(link)
    job = make_job(link)
    execution = make_execution(link, job)
    claims.claim(link, worker, [execution])
    link.execute("UPDATE job SET deleted_at = now()")
    claims.finish(link, worker, "w", [ended(execution, state="retrying", error_code="timeout")])
    assert states(link) == {execution: "failed"}


def test_what_was_never_sent_is_queued_again(link):
    worker = make_worker(link)
    execution = make_execution(link, make_job(link))
    claims.claim(link, worker, [execution])
    assert claims.running(link, worker) == [execution]
    assert claims.hand_back(link, worker, [execution]) == [("default", execution)]
    assert states(link) == {execution: "queued"}
    assert claims.hand_back(link, worker, [execution]) == []


def test_one_row_that_postgres_refuses_does_not_hold_up_its_batch(link):
    worker = make_worker(link)
    job = make_job(link)
    ids = [make_execution(link, job) for _ in range(8)]
    claims.claim(link, worker, ids)
    batch = [ended(i, error_message="\0" if i == ids[3] else "\ud800" if i == ids[6] else None) for i in ids]
    refused = []

    def refuse(one, error):
        assert isinstance(error, DatabaseRefused)
        refused.append(one.id)

    claims.in_halves(lambda part: claims.finish(link, worker, "w", part), batch, refuse)
    assert refused == [ids[3], ids[6]]
    assert sorted(states(link).values()) == ["running"] * 2 + ["succeeded"] * 6


def test_a_redriven_execution_that_fails_again_counts_in_its_redrive(link):
    worker = make_worker(link)
    job = make_job(link)
    [(redrive,)] = link.execute("INSERT INTO redrive (project_id, matched) VALUES (1, 2) RETURNING id")
    ids = [make_execution(link, job, redrive_id=redrive) for _ in range(2)]
    claims.claim(link, worker, ids)
    claims.finish(link, worker, "w", [ended(ids[0], state="failed", error_code="timeout"), ended(ids[1])])
    assert link.execute("SELECT failed FROM redrive") == [(1,)]
