from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsched.domain.outcome import Ending, Policy, Verdict, judge, matches_status
from jobsched.domain.retry import RetryPolicy, backoff_seconds, retry_after_seconds

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
STEADY = RetryPolicy(backoff_jitter=0)
POLICY = Policy(retry=STEADY)
ONCE = Policy(at_most_once=True, retry=STEADY)


def verdict(ending, policy=POLICY, retry_count=0):
    return judge(ending, policy, retry_count, NOW, 0.5)


def test_delays_double_from_one_second_up_to_the_ceiling():
    assert [backoff_seconds(STEADY, n, 0.5) for n in (1, 2, 3, 4, 13, 5000)] == [1, 2, 4, 8, 3600, 3600]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_a_delay_stays_within_its_jitter_of_the_ceiling(retry, spread, jitter):
    policy = RetryPolicy(backoff_jitter=jitter)
    assert 0 <= backoff_seconds(policy, retry, spread) <= 3600 * (1 + jitter)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Sat, 21 Nov 2026 12:01:30 GMT", 90),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("٣", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value, seconds):
    assert retry_after_seconds([("Content-Length", "0"), ("retry-after", value)], NOW) == seconds


def test_retry_after_only_lengthens_the_delay_and_not_beyond_the_ceiling():
    short, long, endless = (
        verdict(Ending(429, [("Retry-After", text)])).delay_seconds for text in ("0", "10", "999999999999999")
    )
    assert (short, long, endless) == (1, 10, 3600)


def test_retry_after_counts_only_with_429_and_503():
    assert verdict(Ending(500, [("Retry-After", "10")])).delay_seconds == 1


@pytest.mark.parametrize("status", [200, 204, 299])
def test_an_answer_of_success_succeeds(status):
    assert verdict(Ending(status)) == Verdict("succeeded")


@pytest.mark.parametrize("status", [199, 302, 404, 500])
def test_any_other_answer_is_retried(status):
    assert verdict(Ending(status)) == Verdict(
        "retrying", "http_status", f"The target answered {status}.", 1, spends=True
    )


def test_the_last_retry_spent_makes_a_failure_final():
    assert verdict(Ending(500), retry_count=3) == Verdict("failed", "http_status", "The target answered 500.")


@pytest.mark.parametrize("ending", [Ending(410), Ending(489), Ending(500, [("JOBSCHED-no-retry", " True ")])])
def test_a_target_can_refuse_retries(ending):
    assert verdict(ending).state == "failed"


def test_a_job_names_its_own_statuses():
    policy = Policy(success_status=("200-299", "404"), no_retry_status=("400-403",))
    assert [verdict(Ending(status), policy).state for status in (404, 402, 405)] == [
        "succeeded",
        "failed",
        "retrying",
    ]


def test_at_most_once_repeats_only_what_was_never_sent_or_was_answered():
    assert verdict(Ending(error_code="timeout"), ONCE).state == "failed"
    assert verdict(Ending(error_code="connect_failed", sent=False), ONCE).state == "retrying"
    assert verdict(Ending(500), ONCE).state == "retrying"


def test_a_refused_target_is_never_tried_again():
    assert verdict(Ending(error_code="target_refused", sent=False)).state == "failed"


def test_a_stopping_worker_spends_no_retry():
    interrupted = Ending(error_code="interrupted", error_message="The worker stopped.")
    assert verdict(interrupted, retry_count=3) == Verdict("retrying", "interrupted", "The worker stopped.")
    assert verdict(interrupted, ONCE) == Verdict("failed", "worker_stopped", "The worker stopped.")
    assert verdict(Ending(error_code="interrupted", sent=False), ONCE) == Verdict("queued")


def test_status_ranges_include_both_ends():
    assert [matches_status(n, ("200-204", "404")) for n in (199, 200, 204, 205, 404)] == [
        False,
        True,
        True,
        False,
        True,
    ]
