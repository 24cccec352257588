"""Reading many jobs: the same verdict on each as alone, however the bytes arrive."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobsched.domain.bulk import BulkReader
from jobsched.domain.json_text import compact
from jobsched.domain.quick import OWN, NewJob, QuickReader
from jobsched.domain.spec import JobSpec, parse_job_create
from jobsched.domain.validation import MAX_FAULTS
from jobsched.errors import Fault, InvalidInput
from jobsched.web.body import MAX_BODY_BYTES, parse_json
from jobsched.web.errors import RequestRefused
from jobsched.web.items import Item, array_items, line_items, strict_item, strict_line
from jobsched.web.server import body_seconds

JOB = {"schedule": "@every 1h", "api": "https://example.com/hook"}


def check_target(url: str) -> str | None:
    return "is a loopback address" if "//127." in url else None


def read(*documents: Any) -> BulkReader:
    reader = BulkReader(check_target)
    for document in documents:
        reader.add(document, json.dumps(document))
    return reader


def spec_of(job: NewJob) -> JobSpec:
    payload = None if job.payload is None else json.loads(job.payload)
    own = {"key": job.key, "name": job.name, "description": job.description, "api": job.api}
    own |= {"headers": job.headers, "tags": job.tags, "schedule": job.schedule, "timezone": job.timezone}
    own |= {"is_recurring": job.is_recurring}
    return replace(job.shared, **own, payload=payload)


def alone(document: Any) -> JobSpec | tuple[Fault, ...]:
    try:
        return parse_job_create(document, check_target=check_target)
    except InvalidInput as error:
        return error.faults


texts = st.sampled_from(
    ["", "a", "é", "\x00", "\ud800", "🙂", "x" * 201, "x" * 2001, "\\u0000", "a\tb\\n"]
) | st.text(max_size=9)
apis = st.sampled_from(
    [
        "https://example.com/hook",
        "https://example.com",
        "https://example.com?q=1",
        "https://example.com/a b",
        "https://example.com/a\\b",
        "https://example.com/é",
        "https://example.com/" + "x" * 2048,
        "https://example.com@evil.example/",
        "https://user@example.com/",
        "http://127.0.0.1/",
        "http://127.0.0.1:80/x",
        "http://2130706433/",
        "http://exa mple.com/",
        "http:///nohost",
        "ftp://example.com/",
        "HTTPS://EXAMPLE.com/x#frag",
        "https://[::1]/",
        "https://example.com:99999/",
        "",
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 400) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
jobs = st.fixed_dictionaries(
    {},
    optional={
        "schedule": st.sampled_from(["@hourly", "@every 90s", "@in 5m", "61 * * * *", "2030-01-01T00:00"]) | anything,
        "api": apis | anything,
        "key": texts | anything,
        "name": texts | anything,
        "description": texts | anything,
        "payload": anything,
        "method": st.sampled_from(["GET", "POST", "HEAD", "get"]),
        "priority": st.sampled_from([1, 1.0, True, 11, "1"]),
        "headers": st.sampled_from([{}, {"X-A": "1"}, {"Host": "x"}, {"Cookie": "***"}, {"X-A": "\r\n"}])
        | st.dictionaries(st.sampled_from(["X-A", "x-a", "Cookie", "Te", "é"]), texts | st.none(), max_size=3)
        | anything,
        "secretHeaders": st.just(["X-A"]),
        "tags": st.lists(st.sampled_from(["a", "", "b" * 51, "\x00"]) | anything, max_size=3) | st.none(),
        "jitterSeconds": st.sampled_from([0, 0.5, 5, 1e9]),
        "timezone": st.sampled_from(["Europe/Berlin", "UTC", "Mars/Olympus", None, 1]),
        "startAt": st.sampled_from(["2030-01-01T00:00", "2030-01-01", None]),
        "isRecurring": st.booleans(),
        "version": st.just(1),
        "colour": st.just("red"),
    },
).map(lambda given: {**JOB, **given})  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(jobs, min_size=1, max_size=6))
@example([{**JOB, "priority": 1}, {**JOB, "priority": True}, {**JOB, "priority": 1.0}])
@example([{**JOB, "api": "https://example.com/a"}, {**JOB, "api": "https://example.com/ b"}])
@example([{**JOB, "isRecurring": True}, {"api": JOB["api"], "isRecurring": True}, {"api": JOB["api"]}])
@example([{**JOB, "schedule": "@in 5m"}, {**JOB, "schedule": "@in 5m", "isRecurring": True}])
@example([{**JOB, "api": "https://ex#ample.com/"}, {**JOB, "api": "htt#p://example.com/"}])
@example([{**JOB, "maxRuns": 1e999}, {**JOB, "maxRuns": 1}])
@example([{**JOB, "method": "GET"}, {**JOB, "method": "GET", "payload": 1}])
@example([{**JOB, "payload": float("inf")}, {**JOB, "payload": {"a": float("inf")}}])
@example([{**JOB, "payload": "x" * 262_144}, {**JOB, "payload": "x" * 262_142}])
def test_every_item_is_judged_as_it_would_be_alone(documents: list[Any]) -> None:
    for document in documents:
        reader = read(*[document, document] if "key" not in document else [document])
        assert outcomes(reader) == [alone(document)] * reader.count
    reader = BulkReader(check_target)
    for number, document in enumerate(documents):
        text = json.dumps(document)
        # Keys that meet are another test's business.
        if isinstance(document.get("key"), str) and document["key"] in reader._keys:
            document = {**document, "key": f"other {number}"}
        reader.add(document, text)
        assert outcomes(reader)[-1] == alone(document), document


def written(value: Any, rnd: random.Random) -> str:
    """``value`` as somebody's JSON: spaces and escapes as they come, now and then a name that stands twice."""
    if isinstance(value, dict):
        members = [
            f"{written(name, rnd)}{rnd.choice(['', ' '])}:{written(one, rnd)}" for name, one in value.items()
        ]
        if members and rnd.random() < 0.05:
            members.insert(rnd.randrange(len(members) + 1), rnd.choice(members))
        return f"{{{rnd.choice([', ', ',', ' , ']).join(members)}}}"
    if isinstance(value, list):
        return f"[{rnd.choice([', ', ',']).join(written(one, rnd) for one in value)}]"
    text = json.dumps(value, ensure_ascii=rnd.random() < 0.2)
    return json.dumps(value) if any(map(is_surrogate, text)) else text


def is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def spec_alone(reader: QuickReader, item: Item) -> JobSpec | tuple[Fault, ...]:
    try:
        return reader.read_spec(item.value, item.text)
    except InvalidInput as error:
        return error.faults


def strictly_alone(text: str) -> JobSpec | tuple[Fault, ...]:
    value, fault = strict_line(text)
    return (Fault("", fault),) if fault is not None else alone(value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(jobs, min_size=1, max_size=8), st.randoms(use_true_random=False), st.integers(1, 4000))
def test_the_quick_way_finds_what_the_strict_one_does(
    documents: list[Any], rnd: random.Random, size: int
) -> None:
    texts = [written({**document, "key": f"k{n}"}, rnd) for n, document in enumerate(documents)]
    expected = [strictly_alone(text) for text in texts]
    reader = BulkReader(check_target, strict_line)
    for item in line_items(pieces("\n".join(texts).encode(), size)):
        reader.add(*item)
    assert outcomes(reader) == expected

    single = QuickReader(check_target, strict_line)
    for text, one in zip(texts, expected, strict=True):
        [item] = line_items(iter([text.encode()]))
        if item.fault is None:
            assert spec_alone(single, item) == one

    reader, refused, body = BulkReader(check_target, strict_item), False, " ,\n".join(texts)
    try:
        for item in array_items(pieces(f"[{body}]".encode(), size)):
            reader.add(*item)
    except RequestRefused:
        refused = True
    found = found_by(reader)
    assert found == {index: expected[index] for index in found}
    # What is a fault of its line only is one of the whole array.
    assert refused == any("is not JSON" in str(one) for one in expected)
    assert refused or len(found) == len(expected)


@pytest.mark.parametrize(
    "fields",
    [
        '"name":"a","name":"b"',
        '"payload":{"a":1,"a":2}',
        '"payload":{"a":"x","a":"y"}',
        '"payload":[{"b":{"a":1,"a":1}}]',
        '"headers":{"X-A":"1","X-A":"2"}',
        '"priority":5,"priority":6',
        '"tags":["a"],"tags":[]',
        '"payload":null,"payload":null',
        '"key":null,"key":"k"',
        '"timezone":"UTC","timezone":"UTC"',
        '"startAt":"2030-01-01T00:00:00Z","startAt":"2031-01-01T00:00:00Z"',
        '"successStatus":["200"],"successStatus":["200"]',
        '"name":"\\u0041","\\u006eame":"b"',
        '"payload":{"\\"":1,"\\"":2}',
    ],
)
def test_a_name_that_stands_twice_is_seen_wherever_it_is(fields: str) -> None:
    text = f'{{"schedule":"@every 1h","api":"https://example.com/hook",{fields}}}'
    reader = BulkReader(check_target, strict_line)
    for item in line_items(iter([f"{text}\n{json.dumps(JOB)}\n{text}".encode()])):
        reader.add(*item)
    assert [item.index for item in reader.faulty] == [0, 2]
    assert {fault.message.partition('"')[0] for item in reader.faulty for fault in item.faults} == {
        "is not JSON: the name "
    }
    _, item, _ = array_items(iter([f"[{json.dumps(JOB)},{text},{json.dumps(JOB)}]".encode()]))
    with pytest.raises(RequestRefused, match="stands twice"):
        BulkReader(check_target, strict_item).add(*item)


def outcomes(reader: BulkReader) -> list[JobSpec | tuple[Fault, ...]]:
    found = found_by(reader)
    return [found[index] for index in range(reader.count)]


def found_by(reader: BulkReader) -> dict[int, JobSpec | tuple[Fault, ...]]:
    found: dict[int, JobSpec | tuple[Fault, ...]] = {item.index: item.faults for item in reader.faulty}
    return found | {index: spec_of(job) for index, job in zip(reader.indexes, reader.jobs, strict=True)}


def test_jobs_that_differ_in_their_own_fields_share_the_rest() -> None:
    documents = [
        {
            **JOB,
            "key": f"k{n}",
            "name": f"n{n}",
            "description": "d",
            "payload": n,
            "api": f"https://example.com/{n}",
            "headers": {"X-Id": str(n)},
            "tags": [f"t{n}"],
            "schedule": f"@every {n + 1}m",
            "timezone": "Europe/Berlin" if n % 2 else "Asia/Tokyo",
        }
        for n in range(50)
    ]
    reader = read(*documents)
    assert len({id(job.shared) for job in reader.jobs}) == 1
    assert set(OWN) == {
        "key", "name", "description", "payload", "api", "headers", "tags", "schedule", "timezone", "is_recurring",
    }  # fmt: skip
    assert [spec_of(job) for job in reader.jobs] == [alone(document) for document in documents]


def test_more_kinds_of_jobs_than_are_remembered_are_read_all_the_same() -> None:
    documents = [{**JOB, "maxRuns": n + 1} for n in range(2100)]
    assert [job.shared.max_runs for job in read(*documents).jobs] == list(range(1, 2101))


def test_payloads_are_held_as_bytes_only_whichever_way_a_job_was_read() -> None:
    # As objects those of 64 MiB would take half a gigabyte and more.
    documents = [{**JOB, "payload": {"n": n}, "maxRuns": n + 1} for n in range(2100)]
    jobs = [*read(*documents).jobs, *read({**JOB, "payload": "\\u0000"}).jobs]
    assert {job.shared.payload for job in jobs} == {None}
    assert [job.payload for job in jobs[-2:]] == [b'{"n":2099}', b'"\\\\u0000"']


def test_a_fault_names_item_and_field() -> None:
    reader = read(JOB, {**JOB, "priority": 11, "tags": [""]}, "no job", {**JOB, "headers": {"a/b": "1"}})
    assert {fault.pointer for fault in reader.pointed_faults()} == {
        "/1/priority",
        "/1/tags/0",
        "/2",
        "/3/headers/a~1b",
    }
    assert [item.index for item in reader.faulty] == [1, 2, 3]


def test_a_key_twice_in_a_bulk_is_a_fault_of_the_second() -> None:
    reader = read(
        {**JOB, "key": "a"},
        JOB,
        {**JOB, "key": "a"},
        {**JOB, "key": "b", "priority": 99},
        {**JOB, "key": "b"},
    )
    assert reader.indexes == [0, 1, 4]
    assert reader.pointed_faults()[0] == Fault("/2/key", "is the key of item 0 as well")


def test_keys_that_exist_are_faults_in_the_order_of_the_items() -> None:
    reader = read({**JOB, "key": "a"}, {**JOB, "priority": 99}, {**JOB, "key": "b"}, {**JOB, "key": "c"})
    reader.refuse_keys(frozenset({"a", "c"}))
    assert reader.indexes == [2]
    assert [job.key for job in reader.jobs] == ["b"]
    assert [fault.pointer for fault in reader.pointed_faults()] == ["/0/key", "/1/priority", "/3/key"]


def test_faults_are_bounded_but_every_faulty_item_has_one() -> None:
    bad = {**JOB, **{f"unknown{n}": 1 for n in range(30)}}
    reader = read(*[bad] * 20)
    assert len(reader.faulty) == 20
    assert [len(item.faults) for item in reader.faulty] == [30, 30, 30, 10] + [1] * 16
    assert reader.faults == MAX_FAULTS + 16


def test_zones_that_nobody_knows_take_no_time_once_the_list_of_faults_is_full() -> None:
    # With a hint for each, 10,000 of them would keep the process busy for half a minute.
    first, last = read(
        *(
            {**JOB, "timezone": f"Eurpe/Berlin{n}", "startAt": "2030-01-01T00:00:00"}
            for n in range(MAX_FAULTS + 1)
        )
    ).faulty[::MAX_FAULTS]
    assert first.faults[0].message.endswith("did you mean Europe/Berlin?")
    assert last.faults == (Fault("/timezone", "is not a known time zone"),)


# ---------------------------------------------------------------------------------------------------------------
# From bytes to items


def test_a_bulk_has_more_time_to_arrive() -> None:
    assert (body_seconds("/api/v1/jobs/bulk"), body_seconds("/api/v1/jobs")) == (120, 30)


def pieces(raw: bytes, size: int) -> Iterator[bytes]:
    return (raw[start : start + size] for start in range(0, len(raw), size))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(json_values, max_size=6), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_an_array_is_read_however_it_is_cut(
    values: list[Any], size: int, indent: int | None, escaped: bool
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=escaped)
    items = list(array_items(pieces(f" \n{text}\r\n ".encode(), size)))
    assert [compact(item.value) for item in items] == [compact(value) for value in values]
    assert [json.loads(item.text) for item in items] == values


@settings(max_examples=200, deadline=None)
@given(st.lists(json_values, max_size=6), st.integers(1, 40), st.sampled_from(["\n", "\r\n", "\n\n \t\r\n"]))
def test_lines_are_read_however_they_are_cut(values: list[Any], size: int, end: str) -> None:
    raw = end.join(json.dumps(value) for value in values).encode()
    items = list(line_items(pieces(raw, size)))
    assert [(item.value, item.fault) for item in items] == [(value, None) for value in values]


BROKEN = [
    "", " ", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1]]", "[1] x", "[1.5e]", "[tru]", '["a]', "[{]", "]", "nul",
    '[{"a":1,"a":2}]', "[NaN]", "[Infinity]", "\ufeff[1]", '["\x01"]', "[1}", "x",
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_no_json_is_refused_wherever_it_breaks(text: str, size: int) -> None:
    with pytest.raises(RequestRefused) as refused:
        list(array_items(pieces(text.encode(), size)))
    assert refused.value.status == 400
    with pytest.raises((RequestRefused, json.JSONDecodeError)):
        parse_json(text.encode()) if text.strip() else json.loads(text)


@pytest.mark.parametrize(
    "text", ["[1,x1]", "[1,]", "[1 2]", "[{]", '["\\q"]', '[{"a" 1}]', '[{"a":1,}]', "[tru ]"]
)
def test_what_is_no_json_is_told_as_such_in_a_large_body_too(text: str) -> None:
    def endless() -> Iterator[bytes]:
        yield text.encode()
        yield b" " * 65_536
        raise AssertionError("read on though it could not become JSON any more")

    with pytest.raises(RequestRefused) as refused:
        list(array_items(endless()))
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


def test_no_cut_makes_json_look_broken() -> None:
    space = " " * 40
    value = {"a": [1.5e-7, True, None, '\U0001f600\n"\\'], "\u00e9": {"": [[], {}]}, "long": "x" * 50}
    text = json.dumps([value, -1e300, "\ud83d\ude00"], separators=(f"{space},{space}", f"{space}:{space}"))
    text = text.replace("[", f"[{space}").replace("}", f"{space}}}").replace("{", f"{{{space}")
    for size in (*range(1, 60), 200):
        assert [item.value for item in array_items(pieces(text.encode(), size))] == json.loads(text)


def test_numbers_at_the_edge_of_a_piece_stay_whole() -> None:
    for size in range(1, 12):
        items = list(array_items(pieces(b"[12, 1.5, -1e-3, 123456]", size)))
        assert [item.value for item in items] == [12, 1.5, -1e-3, 123456]


@pytest.mark.parametrize("text", ["{}", '"text"', "12", "null", '{"items": []}'])
def test_what_is_no_array_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        list(array_items(pieces(text.encode(), 2)))
    assert refused.value.faults == (Fault("", "must be a JSON array of jobs"),)


def test_a_large_object_is_said_to_be_no_array() -> None:
    raw = json.dumps({"jobs": ["x" * 1000] * 2000}).encode()
    with pytest.raises(InvalidInput) as refused:
        list(array_items(pieces(raw, 65_536)))
    assert refused.value.faults == (Fault("", "must be a JSON array of jobs"),)


def test_an_item_that_cannot_be_read_is_named() -> None:
    deep = "[" * 100_000
    for text, pointer in (
        (f"[1, {deep}", "/1"),
        (f"[1, 2, {'9' * 5000}, 3]", "/2"),
    ):
        with pytest.raises(InvalidInput) as refused:
            list(array_items(pieces(text.encode(), 70_000)))
        assert [fault.pointer for fault in refused.value.faults] == [pointer]


def test_an_item_without_an_end_is_not_gathered_for_ever() -> None:
    def endless() -> Iterator[bytes]:
        yield b'[1, {"payload": "'
        for _ in range(40):
            yield b"x" * 65_536
        raise AssertionError("read on after far more than an item may have")

    with pytest.raises(InvalidInput) as refused:
        list(array_items(endless()))
    assert refused.value.faults[0].pointer == "/1"


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    with pytest.raises(RequestRefused):
        list(array_items(pieces(b'["\xff"]', 2)))
    with pytest.raises(RequestRefused):
        list(array_items(pieces(b'["\xc3', 2)))


def test_a_broken_line_is_a_fault_of_its_item_only() -> None:
    lines = [
        b"1",
        b"{",
        b'"\xff"',
        b'{"a":1,"a":2} 3',
        b"NaN",
        b"[" * 100_000,
        b"9" * 5000,
        b"x" * (MAX_BODY_BYTES + 1),
        b"2",
    ]
    items = list(line_items(pieces(b"\n".join(lines), 65_536)))
    assert items[0] == Item(1, "1")
    assert items[-1] == Item(2, "2")
    assert [item.fault for item in items[1:-1]] == [
        "is not JSON: Expecting property name enclosed in double quotes at column 2",
        "is not JSON: byte 1 of the line is not UTF-8",
        'is not JSON: the name "a" stands twice in one object',
        "is not JSON: NaN is not a number in JSON",
        "is nested deeper than 100 levels",
        "has a number with too many digits",
        f"is larger than {MAX_BODY_BYTES} bytes",
    ]


# ---------------------------------------------------------------------------------------------------------------
# What a process remembers of jobs


def test_a_reader_that_lives_long_remembers_only_so_much() -> None:
    reader = QuickReader(check_target)
    for n in range(5000):
        document = {
            **JOB,
            "maxRuns": n + 1,
            "api": f"https://h{n}.example.com/",
            "headers": {"X-Id": str(n)},
        }
        spec = reader.read_spec(document, json.dumps(document))
        assert (spec.max_runs, spec.api, spec.headers) == (
            n + 1,
            document["api"],
            document["headers"],
        )
    assert max(map(len, (reader._shared, reader._origins, reader._headers))) <= 2048


def test_what_is_long_is_not_remembered() -> None:
    reader = QuickReader(check_target)
    for document in ({**JOB, "headers": {"X-A": "x" * 1000}}, {**JOB, "noRetryStatus": ["400-404"] * 50}):
        assert reader.read_spec(document, json.dumps(document)) == alone(document)
    assert not reader._headers
    assert set(reader._shared) == {""}
