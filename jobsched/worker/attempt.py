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
from jobsched.domain.outcome import Ending, Verdict, judge


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
        at_most_once=claimed.policy.at_most_once,
        now=clock.utc_now(),
        signatures=signatures,
    )


def verdict_of(claimed: Claimed, ending: Ending, now: datetime) -> Verdict:
    """What becomes of the execution, by its job's policy; failed where a policy that no API lets in has no answer.

    Never raises: an outcome that cannot be judged would hold up those of all other jobs.
    """
    try:
        return judge(ending, claimed.policy, claimed.retry_count, now, random.random())
    except Exception as error:
        return Verdict("failed", "invalid_job", f"The job's policy cannot be applied: {error}")


def ending_of(result: Result) -> Ending:
    """The transport's result, as far as it decides anything."""
    return Ending(result.status, result.headers, result.error_code, result.error_message, result.sent)


def ended_by(claimed: Claimed, verdict: Verdict, result: Result | None, age: float) -> Ended:
    """The row to record. ``result`` is None where no call was made; ``age``: seconds since the attempt ended."""
    payload = None
    if verdict.state != "succeeded":
        payload = "null" if claimed.payload is None else claimed.payload
    status, headers, body, truncated, duration, phases = None, None, None, False, None, None
    if result is not None:
        status, headers, body = result.status, _headers_json(result.headers), result.body
        truncated = result.truncated
        dns, connect, tls, first_byte, total = result.phases
        way = _NO_WAY
        if dns or connect or tls:
            way = f'"dnsMs":{dns:.3f},"connectMs":{connect:.3f},"tlsMs":{tls:.3f}'
        duration = round(total, 3)
        phases = f'{{{way},"firstByteMs":{first_byte:.3f},"totalMs":{total:.3f}}}'
    return Ended(
        claimed.id,
        claimed.attempt,
        verdict.state,
        age,
        duration,
        claimed.policy.retry.max_retry_count,
        verdict.delay_seconds,
        verdict.spends,
        status,
        headers,
        body,
        truncated,
        verdict.error_code,
        verdict.error_message,
        phases,
        payload,
    )


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


# Most answers of a target carry the same headers; what differs (Date) does so once a second.
@lru_cache(maxsize=512)
def _headers_json(headers: tuple[tuple[str, str], ...]) -> str:
    """An answer's headers as a JSON object; values of a name that comes twice are joined (RFC 9110, 5.2)."""
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return json.dumps(joined)
