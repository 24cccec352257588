import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobsched.domain.requests import JOBS_PAYLOAD, Selector, parse_discard, parse_redrive, parse_run
from jobsched.domain.spec import (
    READ_ONLY,
    JobCreate,
    JobPatch,
    JobSpec,
    apply_merge,
    apply_replace,
    parse_job_create,
    spec_json,
)
from jobsched.domain.validation import nearest_name
from jobsched.errors import InvalidInput

MINIMAL = {"schedule": "*/5 * * * *", "api": "https://example.com/hook"}
PRESENT = dict.fromkeys(READ_ONLY) | {"id": 7, "version": 2, "createdAt": "2026-01-01T00:00:00.000Z"}


def allow_all(url):
    return None


def create(body):
    return parse_job_create(body, check_target=allow_all)


def merge(current, patch):
    return apply_merge(current, PRESENT, patch, check_target=allow_all)


def put(current, body):
    return apply_replace(current, PRESENT, body, check_target=allow_all)


def pointers(call, *arguments):
    with pytest.raises(InvalidInput) as caught:
        call(*arguments)
    return [fault.pointer for fault in caught.value.faults]


def messages(call, *arguments):
    with pytest.raises(InvalidInput) as caught:
        call(*arguments)
    return {fault.pointer: fault.message for fault in caught.value.faults}


def test_a_minimal_job_gets_every_default_of_the_contract():
    assert create(MINIMAL) == JobSpec(
        schedule="*/5 * * * *", api="https://example.com/hook", is_recurring=True
    )


def test_what_an_answer_shows_can_be_put_back_unchanged():
    spec = create(
        MINIMAL
        | {
            "key": "k", "name": "n", "headers": {"Authorization": "Bearer x", "X-Plain": "y"},
            "payload": {"b": [1, None, 2.5], "a": "ü"}, "successStatus": ["200-299", "404"], "tags": ["t"],
            "startAt": "2026-01-01T00:00:00.123456+02:00", "endAt": "2027-01-01T00:00:00Z", "maxRuns": 3,
            "jitterSeconds": 2.5, "timezone": "Europe/Berlin", "isRecurring": False,
        }
    )  # fmt: skip
    shown = spec_json(spec)
    assert shown["headers"] == {"Authorization": "***", "X-Plain": "y"}
    assert shown["startAt"] == "2025-12-31T22:00:00.123Z"
    assert put(spec, shown | PRESENT) == spec
    assert merge(spec, shown) == spec
    assert merge(spec, {}) == spec


def test_unknown_fields_are_refused_with_the_nearest_name():
    said = messages(create, MINIMAL | {"max_retry": 1, "shedule": "x", "isactive": True, "qqq": 1})
    assert said == {
        "/max_retry": "is not a field; did you mean maxRetryCount?",
        "/shedule": "is not a field; did you mean schedule?",
        "/isactive": "is not a field; did you mean isActive?",
        "/qqq": "is not a field",
    }


def test_a_body_of_nothing_but_faults_costs_no_more_than_those_that_are_listed():
    spent = []
    for _ in range(3):  # the least: beside others on a core the same work costs more
        began = time.process_time()
        found = pointers(create, MINIMAL | {f"f{number}": 1 for number in range(50_000)})
        spent.append(time.process_time() - began)
        assert found == [f"/f{number}" for number in range(100)]
    assert min(spent) < 1


def test_every_fault_is_named_at_once():
    body = {
        "schedule": "61 * * * *", "timezone": "UTC", "api": "ftp://example.com", "priority": 11, "pool": "No",
        "method": "post", "headers": {"Host": "x", "X-A": "1", "x-a": "2"}, "tags": ["ok", ""],
        "successStatus": ["2xx", "299-200"], "timeoutSeconds": 0, "typo": 1,
    }  # fmt: skip
    assert set(pointers(create, body)) == {
        "/schedule", "/api", "/priority", "/pool", "/method", "/headers/Host", "/headers/x-a", "/tags/1",
        "/successStatus/0", "/successStatus/1", "/timeoutSeconds", "/typo",
    }  # fmt: skip


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_a_body_that_is_no_object_is_refused(body):
    assert pointers(create, body) == [""]


def test_schedule_and_api_are_required():
    assert messages(create, {}) == {"/schedule": "is required", "/api": "is required"}


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("maxRetryCount", 0, 100),
        ("minBackoffSeconds", 0, 86400),
        ("maxBackoffSeconds", 0, 604800),
        ("backoffFactor", 1, 10),
        ("backoffJitter", 0, 1),
        ("timeoutSeconds", 0.1, 1800),
        ("priority", 0, 10),
        ("misfireGraceSeconds", 0, 604800),
        ("maxRuns", 1, 10**9),
    ],
)
def test_ranges_are_inclusive(field, low, high):
    for value in (low, high):
        assert spec_json(create(MINIMAL | {field: value}))[field] == value
    for value in (low - 0.01 if isinstance(low, float) else low - 1, high + 1):
        assert pointers(create, MINIMAL | {field: value}) == [f"/{field}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", "5"), ("priority", True), ("priority", 5.5), ("isActive", 1), ("isActive", "true"),
        ("timeoutSeconds", True), ("timeoutSeconds", "30"), ("name", 5), ("tags", "x"), ("tags", [1]),
        ("headers", {"X": 1}), ("headers", []), ("timezone", None), ("isActive", None), ("successStatus", []),
        ("startAt", 5), ("startAt", "tomorrow"), ("maxRuns", 1.5), ("type", "at_least_once"), ("key", ""),
    ],
)  # fmt: skip
def test_json_types_are_taken_strictly(field, value):
    assert pointers(create, MINIMAL | {field: value})[0].startswith(f"/{field}")


def test_a_whole_number_may_be_written_as_a_fraction():
    """As JSON Schema has it, and what writes all numbers as fractions."""
    job = create(MINIMAL | {"priority": 5.0, "maxRuns": 3.0, "maxRetryCount": 0.0})
    assert (job.priority, job.max_runs, job.max_retry_count) == (5, 3, 0)
    assert {type(value) for value in (job.priority, job.max_runs, job.max_retry_count)} == {int}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": "x" * 201}, "/name"),
        ({"description": "x" * 2001}, "/description"),
        ({"key": "x" * 201}, "/key"),
        ({"pool": "x" * 51}, "/pool"),
        ({"tags": ["x"] * 51}, "/tags"),
        ({"tags": ["x" * 51]}, "/tags/0"),
        ({"headers": {f"X-{n}": "" for n in range(51)}}, "/headers"),
        ({"headers": {"X-Long": "x" * 8192}}, "/headers"),
        ({"payload": "x" * (256 * 1024 - 1)}, "/payload"),
        ({"api": "http://example.com/" + "x" * 2030}, "/api"),
    ],
)
def test_limits_of_size(change, pointer):
    assert pointers(create, MINIMAL | change) == [pointer]


def test_what_just_fits_is_taken():
    create(
        MINIMAL
        | {
            "name": "x" * 200, "key": "x" * 200, "tags": ["x" * 50] * 50, "payload": "ü" * (128 * 1024 - 1),
            "headers": {f"X-{n:02}": "y" for n in range(50)}, "pool": "x" * 50,
        }
    )  # fmt: skip


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x\udfff"])
def test_what_postgres_cannot_store_is_refused_wherever_it_stands(text):
    assert pointers(create, MINIMAL | {"name": text}) == ["/name"]
    assert pointers(create, MINIMAL | {"payload": {"a": [0, text]}}) == ["/payload/a/1"]
    (pointer,) = pointers(create, MINIMAL | {"payload": {"deep": {text: 1}}})
    assert pointer.startswith("/payload/deep/")
    pointer.encode()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_know_are_refused(number):
    assert pointers(create, MINIMAL | {"payload": [number]}) == ["/payload/0"]


def test_nesting_is_bounded_at_a_hundred_levels():
    def nested(depth):
        value = 1
        for _ in range(depth):
            value = [value]
        return value

    create(MINIMAL | {"payload": nested(99)})
    assert pointers(create, MINIMAL | {"payload": nested(100)}) == [""]
    assert pointers(create, MINIMAL | {"payload": nested(900)}) == [""]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_payload_needs_a_method_with_a_body(method):
    assert pointers(create, MINIMAL | {"method": method, "payload": 0}) == ["/payload"]
    assert create(MINIMAL | {"method": method, "payload": None}).payload is None


def test_a_refused_literal_address_is_named_unless_it_was_stored_before():
    def refuse(url):
        return "The address 10.0.0.1 is private."

    with pytest.raises(InvalidInput) as caught:
        parse_job_create(MINIMAL | {"api": "http://10.0.0.1/"}, check_target=refuse)
    assert [fault.pointer for fault in caught.value.faults] == ["/api"]
    spec = create(MINIMAL | {"api": "http://10.0.0.1/"})
    assert apply_merge(spec, PRESENT, {"name": "n"}, check_target=refuse).name == "n"
    with pytest.raises(InvalidInput):
        apply_merge(spec, PRESENT, {"api": "http://10.0.0.2/"}, check_target=refuse)


def test_zone_faults_point_at_the_zone():
    assert pointers(create, MINIMAL | {"timezone": "Europe/Berln", "startAt": "2026-01-01T00:00:00"}) == [
        "/timezone"
    ]
    assert set(pointers(create, {"schedule": 5, "api": "http://a.example/", "timezone": "Nowhere"})) == {
        "/schedule",
        "/timezone",
    }


def test_instants_without_offset_are_read_in_the_zone_of_the_job():
    spec = create(MINIMAL | {"timezone": "Europe/Berlin", "startAt": "2026-07-01T12:00:00"})
    assert spec.start_at == datetime(2026, 7, 1, 10, tzinfo=UTC)


def test_the_end_is_not_before_the_start():
    assert pointers(
        create, MINIMAL | {"startAt": "2026-01-02T00:00:00Z", "endAt": "2026-01-01T00:00:00Z"}
    ) == ["/endAt"]


def test_recurrence_follows_the_schedule_and_a_one_off_cannot_recur():
    one_off = {"schedule": "2030-01-01T00:00:00Z", "api": "http://a.example/"}
    assert create(one_off).is_recurring is False
    assert create(MINIMAL).is_recurring is True
    assert create(MINIMAL | {"isRecurring": False}).is_recurring is False
    assert pointers(create, one_off | {"isRecurring": True}) == ["/isRecurring"]


def test_a_merge_of_another_kind_of_schedule_takes_its_recurrence():
    cron, once = create(MINIMAL), create(MINIMAL | {"isRecurring": False})
    assert merge(cron, {"schedule": "@in 10m"}).is_recurring is False
    assert merge(merge(cron, {"schedule": "@in 10m"}), {"schedule": "@daily"}).is_recurring is True
    assert merge(once, {"schedule": "@daily"}).is_recurring is False
    assert merge(once, {"isRecurring": None}).is_recurring is True
    assert pointers(merge, cron, {"schedule": "@in 10m", "isRecurring": True}) == ["/isRecurring"]


def test_jitter_stays_below_the_shortest_gap():
    assert create({"schedule": "@every 10s", "api": "http://a.example/", "jitterSeconds": 9.9})
    assert pointers(create, {"schedule": "@every 10s", "api": "http://a.example/", "jitterSeconds": 10}) == [
        "/jitterSeconds"
    ]
    assert create({"schedule": "@in 10s", "api": "http://a.example/", "jitterSeconds": 86400})


def test_merge_removes_with_null_and_replaces_payload_and_headers_whole():
    spec = create(
        MINIMAL
        | {"name": "n", "priority": 9, "payload": {"a": 1, "b": 2}, "headers": {"X-A": "1", "X-B": "2"}}
    )
    merged = merge(spec, {"name": None, "priority": None, "payload": {"a": None}, "headers": {"X-C": "3"}})
    assert merged == replace(spec, name=None, priority=5, payload={"a": None}, headers={"X-C": "3"})
    assert pointers(merge, spec, {"api": None}) == ["/api"]


def test_replace_forgets_what_is_missing():
    spec = create(MINIMAL | {"name": "n", "priority": 9, "payload": 1})
    assert put(spec, MINIMAL) == create(MINIMAL)


def test_read_only_fields_may_be_repeated_but_not_changed():
    spec = create(MINIMAL)
    assert merge(spec, PRESENT) == spec
    assert pointers(merge, spec, {"version": 3}) == ["/version"]
    assert pointers(merge, spec, {"id": "7"}) == ["/id"]
    assert pointers(put, spec, MINIMAL | {"lastState": "failed", "typo": 1}) == ["/lastState", "/typo"]
    assert pointers(create, MINIMAL | {"id": 7}) == ["/id"]


def test_the_mask_of_a_secret_header_keeps_its_stored_value():
    spec = create(
        MINIMAL | {"headers": {"Authorization": "s3cret", "X-Token": "t"}, "secretHeaders": ["x-token"]}
    )
    assert spec_json(spec)["headers"] == {"Authorization": "***", "X-Token": "***"}
    changed = merge(spec, {"headers": {"authorization": "***", "X-Token": "new"}})
    assert changed.headers == {"authorization": "s3cret", "X-Token": "new"}
    assert pointers(create, MINIMAL | {"headers": {"Cookie": "***"}}) == ["/headers/Cookie"]
    assert create(MINIMAL | {"headers": {"X-Stars": "***"}}).headers == {"X-Stars": "***"}


def test_a_stored_secret_cannot_be_made_readable():
    spec = create(MINIMAL | {"headers": {"X-Token": "t"}, "secretHeaders": ["X-Token"]})
    assert pointers(merge, spec, {"secretHeaders": []}) == ["/secretHeaders"]
    assert merge(spec, {"secretHeaders": [], "headers": {"X-Token": "u"}}).headers == {"X-Token": "u"}


def test_the_models_of_the_description_tell_every_field():
    for model in (JobCreate, JobPatch):
        properties = model.model_json_schema(by_alias=True)["properties"]
        assert len(properties) == len(JobSpec.__dataclass_fields__)
        assert all(field.get("description") for field in properties.values())
    assert JobPatch.model_json_schema().get("required") is None


def test_the_examples_of_the_description_make_a_job():
    fields = JobCreate.model_json_schema(by_alias=True)["properties"]
    create({name: field["examples"][0] for name, field in fields.items() if "examples" in field})


def test_run_tells_no_payload_from_null():
    assert parse_run(None) is JOBS_PAYLOAD
    assert parse_run({}) is JOBS_PAYLOAD
    assert parse_run({"payload": None}) is None
    assert parse_run({"payload": [1]}) == [1]
    assert pointers(parse_run, {"paylod": 1}) == ["/paylod"]


def test_an_empty_selector_is_never_everything():
    assert pointers(parse_redrive, {}) == [""]
    assert pointers(parse_redrive, {"ids": []}) == ["/ids"]
    assert pointers(parse_discard, {"filter": {}}) == ["/filter"]
    assert pointers(parse_discard, {"filter": {"all": False}}) == ["/filter"]
    assert pointers(parse_discard, {"filter": {"all": True, "jobId": 3}}) == ["/filter"]
    assert pointers(parse_discard, {"ids": [1], "filter": {"all": True}}) == [""]
    assert parse_discard({"filter": {"all": True}}) == Selector(all=True)
    assert parse_discard({"ids": [3, 1, 3]}) == Selector(ids=(1, 3))
    assert messages(parse_discard, {"filter": {"jobid": 3}}) == {
        "/filter/jobid": "is not a field; did you mean jobId?"
    }


def test_a_redrive_takes_a_payload_for_one_id_only():
    assert parse_redrive({"ids": [3], "payload": None}).payload is None
    assert parse_redrive({"ids": [3]}).payload is JOBS_PAYLOAD
    assert pointers(parse_redrive, {"ids": [3, 4], "payload": 1}) == ["/payload"]
    assert pointers(parse_redrive, {"filter": {"all": True}, "payload": 1}) == ["/payload"]
    for rate in (0, 1e-13, 5e-324):  # instants beyond the year 9999 can neither be stored nor read
        assert pointers(parse_redrive, {"ids": [3], "ratePerSecond": rate}) == ["/ratePerSecond"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("timeout", "timeoutSeconds"), ("url", "api"), ("retries", "maxRetryCount"), ("cron", "schedule"),
        ("max_retry", "maxRetryCount"), ("Enabled", "isActive"), ("xyz", None), ("na", "name"),
    ],
)  # fmt: skip
def test_a_misspelt_field_is_guessed(written, meant):
    fields = [field.alias or name for name, field in JobCreate.model_fields.items()]
    assert nearest_name(written, fields) == meant
