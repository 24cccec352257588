"""From a claim to a call, and from a call's end to what is recorded. Pure but for the random spread."""

import json
import random
from datetime import datetime
from functools import lru_cache

from jobsched import clock
from jobsched.callback.model import Call, Result
from jobsched.callback.request import Sign, build
from jobsched.db.claims import LONGEST_TIMEOUT, Claimed
from jobsched.db.ended import Ended
from jobsched.domain.outcome import Ending, Policy, Verdict, judge
from jobsched.domain.retry import RetryPolicy


def call_for(claimed: Claimed, incarnation: str, signatures: Sign) -> Call:
    """The request of a claimed attempt, signed. Raises ValueError for a job that cannot be called as it stands."""
    if not 0 < claimed.timeout_seconds <= LONGEST_TIMEOUT:  # nor NaN, with which a deadline never comes
        raise ValueError(f"A timeout of {claimed.timeout_seconds:g} s cannot be kept.")
    return build(
        execution_id=claimed.id,
        job_id=claimed.job_id,
        attempt=claimed.attempt,
        incarnation=incarnation,
        scheduled_for=claimed.scheduled_for,
        trigger=claimed.trigger,
        method=claimed.method,
        url=claimed.api,
        job_headers=claimed.headers,
        payload_json=claimed.payload,
        timeout_seconds=claimed.timeout_seconds,
        follow_redirects=claimed.follow_redirects,
        at_most_once=claimed.at_most_once,
        now=clock.utc_now(),
        signatures=signatures,
    )


def verdict_of(claimed: Claimed, ending: Ending, now: datetime) -> Verdict:
    """What becomes of the execution, by its job's policy; failed where a policy that no API lets in has no answer.

    Never raises: an outcome that cannot be judged would hold up those of all other jobs.
    """
    policy = _policy(
        claimed.at_most_once,
        claimed.max_retry_count,
        claimed.min_backoff_seconds,
        claimed.max_backoff_seconds,
        claimed.backoff_factor,
        claimed.backoff_jitter,
        claimed.success_status,
        claimed.no_retry_status,
    )
    try:
        return judge(ending, policy, claimed.retry_count, now, random.random())
    except Exception as error:
        return Verdict("failed", "invalid_job", f"The job's policy cannot be applied: {error}")


def ending_of(result: Result) -> Ending:
    """The transport's result, as far as it decides anything."""
    return Ending(result.status, result.headers, result.error_code, result.error_message, result.sent)


def ended_by(claimed: Claimed, verdict: Verdict, result: Result | None, age: float) -> Ended:
    """The row to record. ``result`` is None where no call was made; ``age``: seconds since the attempt ended."""
    ended = Ended(
        id=claimed.id,
        attempt=claimed.attempt,
        state=verdict.state,
        age=age,
        duration_ms=None,
        max_retry_count=claimed.max_retry_count,
        delay=verdict.delay_seconds,
        spends=verdict.spends,
        error_code=verdict.error_code,
        error_message=verdict.error_message,
    )
    if verdict.state != "succeeded":
        ended.payload = "null" if claimed.payload is None else claimed.payload
    if result is not None:
        phases = result.phases
        ended.duration_ms = round(phases.total_ms, 3)
        ended.status = result.status
        ended.headers = _headers_json(result.headers)
        ended.body = result.body
        ended.truncated = result.truncated
        way = _NO_WAY
        if phases.dns_ms or phases.connect_ms or phases.tls_ms:
            way = (
                f'"dnsMs":{phases.dns_ms:.3f},"connectMs":{phases.connect_ms:.3f},"tlsMs":{phases.tls_ms:.3f}'
            )
        ended.phases = f'{{{way},"firstByteMs":{phases.first_byte_ms:.3f},"totalMs":{phases.total_ms:.3f}}}'
    return ended


# On a kept connection there is nothing to look up, connect or shake hands.
_NO_WAY = '"dnsMs":0.000,"connectMs":0.000,"tlsMs":0.000'


def without_capture(ended: Ended) -> Ended:
    """The same end with nothing of the target's answer in it, for a row that the database refuses."""
    return Ended(
        id=ended.id,
        attempt=ended.attempt,
        state="failed",
        age=ended.age,
        duration_ms=ended.duration_ms,
        max_retry_count=ended.max_retry_count,
        error_code="unrecordable",
        error_message="The outcome of this attempt could not be stored with what the target answered.",
    )


@lru_cache(maxsize=1024)
def _policy(
    at_most_once: bool,
    max_retry_count: int,
    min_backoff: float,
    max_backoff: float,
    factor: float,
    jitter: float,
    success_status: tuple[str, ...],
    no_retry_status: tuple[str, ...],
) -> Policy:
    retry = RetryPolicy(max_retry_count, min_backoff, max_backoff, factor, jitter)
    return Policy(at_most_once, retry, success_status, no_retry_status)


# Most answers of a target carry the same headers; what differs (Date) does so once a second.
@lru_cache(maxsize=512)
def _headers_json(headers: tuple[tuple[str, str], ...]) -> str:
    """An answer's headers as a JSON object; values of a name that comes twice are joined (RFC 9110, 5.2)."""
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return json.dumps(joined)
