from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched.domain.cron import ALIASES, NEVER, Cron, parse_cron
from jobsched.errors import InvalidSchedule

EPOCH = datetime(1970, 1, 1)


def wall(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(seconds=1)


def walls(cron: Cron, start: datetime, count: int) -> list[datetime]:
    found, at = [], wall(start)
    for _ in range(count):
        at = cron.next_wall(at)
        found.append(EPOCH + timedelta(seconds=at))
        at += 1
    return found


def days(expression: str, start: datetime, count: int) -> list[str]:
    return [f"{found:%a %Y-%m-%d}" for found in walls(parse_cron(expression), start, count)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 0 * * 0", "0 0 * * 7"),
        ("0 0 * * 0", "0 0 * * sUn"),
        ("0 0 * JAN,dec *", "0 0 * 1,12 *"),
        ("0 0 * * MON-FRI", "0 0 * * 1-5"),
        ("0 0 * * 5-7", "0 0 * * FRI,SAT,SUN"),
        ("0 0 * * 0-7", "0 0 * * */1"),
        ("0 0 * * 5/2", "0 0 * * 5"),
        ("*/15 * * * *", "*/15 */1 * * *"),
        ("5/20 1 * * *", "5,25,45 1 * * *"),
        ("10-20/10 1 * * *", "10,20 1 * * *"),
        ("0 30 9 * * *", "30 9 * * *"),
        ("05\t09  * * *", "5 9 * * *"),
        ("@hourly", "0 * * * *"),
        ("@Weekly", "0 0 * * 0"),
        ("@midnight", "@daily"),
        ("@annually", "@yearly"),
    ],
)
def test_two_spellings_mean_the_same(one: str, other: str) -> None:
    assert parse_cron(one) == parse_cron(other)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("* * * *", "has 4"),
        ("* * * * * * *", "year field"),
        ("0 0 12 * * 2026", "year field"),
        ("0 0 12 * * 2026-2030", "year field"),
        ("0 12 * * ?", "write *"),
        ("0 0 L * *", "last"),
        ("0 0 L-3 * *", "last"),
        ("0 0 LW * *", "last"),
        ("0 0 * * 5L", "last"),
        ("0 0 * * friL", "last"),
        ("0 0 15W * *", "nearest weekday"),
        ("0 0 * * MON#2", "nth weekday"),
        ("H * * * *", "jitterSeconds"),
        ("H(0-29)/10 * * * *", "jitterSeconds"),
        ("r * * * *", "random"),
        ("TZ=UTC 0 0 * * *", "field timezone"),
        ("CRON_TZ=Europe/Berlin 0 0 * * *", "field timezone"),
        ("0 0 31 2 *", "never matches"),
        ("0 0 30,31 FEB *", "never matches"),
        ("0 0 31 2,4,6,9,11 *", "never matches"),
        ("60 * * * *", "outside 0 to 59"),
        ("0 24 * * *", "outside 0 to 23"),
        ("0 0 0 * *", "outside 1 to 31"),
        ("0 0 * 13 *", "outside 1 to 12"),
        ("0 0 * * 8", "outside 0 to 7"),
        ("*/0 * * * *", "outside 1 to 60"),
        ("*/61 * * * *", "outside 1 to 60"),
        ("0 */25 * * *", "outside 1 to 24"),
        ("10-20/12 * * * *", "outside 1 to 11"),
        ("50/15 * * * *", "outside 1 to 10"),
        ("30-10 * * * *", "Write 30-59,0-10."),
        ("0 0 * * FRI-MON", "Write 5-6,0-1."),
        ("0 0 * * SAT-SUN", "Write 6,0."),
        ("1,,2 * * * *", "empty"),
        ("1, * * * *", "empty"),
        ("-5 * * * *", "not a value"),
        ("5- * * * *", "not a value"),
        ("1/2/3 * * * *", "not a value"),
        ("** * * * *", "not a value"),
        ("MON * * * *", "not a number"),
        ("0 0 * JUNE *", "did you mean JUN?"),
        ("0 0 * * XYZ", "names are SUN"),
    ],
)
def test_what_is_refused_comes_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        parse_cron(text)
    assert hint in caught.value.reason


def test_either_day_field_matches_when_both_are_restricted() -> None:
    assert days("0 0 1 * MON", datetime(2026, 6, 1), 6) == [
        "Mon 2026-06-01",
        "Mon 2026-06-08",
        "Mon 2026-06-15",
        "Mon 2026-06-22",
        "Mon 2026-06-29",
        "Wed 2026-07-01",
    ]


def test_a_day_field_that_starts_with_a_star_restricts_nothing_by_itself() -> None:
    odd_mondays = ["Mon 2026-06-01", "Mon 2026-06-15", "Mon 2026-06-29", "Mon 2026-07-13"]
    assert days("0 0 */2 * MON", datetime(2026, 6, 1), 4) == odd_mondays


def test_a_full_range_is_a_restriction_and_a_star_is_not() -> None:
    assert len(set(days("0 0 1-31 * MON", datetime(2026, 6, 1), 7))) == 7
    assert days("0 0 1-31 * MON", datetime(2026, 6, 1), 2)[1] == "Tue 2026-06-02"
    assert days("0 0 * * MON", datetime(2026, 6, 1), 2)[1] == "Mon 2026-06-08"


def test_the_29th_of_february_is_found_over_a_century_without_leap_day() -> None:
    assert days("0 0 29 2 *", datetime(2096, 3, 1), 1) == ["Fri 2104-02-29"]
    assert days("0 0 29 2 */7", datetime(2026, 1, 1), 1) == ["Sun 2032-02-29"]


def test_nothing_matches_after_the_year_9999_or_before_the_year_1() -> None:
    assert parse_cron("0 0 1 1 *").next_wall(wall(datetime(9999, 1, 1, 0, 0, 1))) == NEVER
    assert parse_cron("* * * * *").next_wall(NEVER) == NEVER
    assert parse_cron("0 0 1 1 *").next_wall(-NEVER) == wall(datetime(1, 1, 1))
    assert parse_cron("0 0 1 1 *").count_walls(-NEVER, NEVER) == 9999


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("* * * * * *", 1),
        ("*/7 * * * * *", 4),
        ("* * * * *", 60),
        ("*/25 * * * *", 600),
        ("0 9-17/4 * * *", 4 * 3600),
        ("30 0,23 * * *", 3600),
        ("59 59 23 * * *", 86_400),
        ("0 0 31,1 * *", 86_400),
        ("0 0 * * MON,THU", 3 * 86_400),
        ("0 0 1 * *", 28 * 86_400),
        ("0 0 1 1 *", 28 * 86_400),
    ],
)
def test_the_shortest_gap_is_that_of_the_closest_two_matches(expression: str, seconds: int) -> None:
    assert parse_cron(expression).shortest_gap() == seconds


def number_field(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    # Never "3-3": in the weekday field croniter reads that as "*".
    span = st.lists(value, min_size=2, max_size=2, unique=True).map(sorted)
    return st.lists(
        st.one_of(
            value.map(str),
            span.map(lambda pair: f"{pair[0]}-{pair[1]}"),
            span.flatmap(
                lambda pair: st.integers(1, pair[1] - pair[0] + 1).map(
                    lambda step: f"{pair[0]}-{pair[1]}/{step}"
                )
            ),
        ),
        min_size=1,
        max_size=3,
    ).map(",".join)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    starred = st.integers(1, high - low + 1).map(lambda step: f"*/{step}")
    return st.one_of(st.just("*"), starred, number_field(low, high))


EXPRESSIONS = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(" ".join)
MOMENTS = st.datetimes(datetime(1995, 1, 1), datetime(2105, 1, 1)).map(lambda m: m.replace(microsecond=0))


def fits_croniter(expression: str) -> bool:
    """croniter reads a full range as a star and a stepped star as a restriction; there the rules differ."""
    day, weekday = expression.split()[2], expression.split()[4]
    expanded = croniter.expand(expression)[0]
    if day[0] != "*" and weekday[0] != "*":
        return expanded[2] != ["*"] and expanded[4] != ["*"]
    return day == "*" or weekday == "*"


@settings(deadline=None, max_examples=60)
@given(EXPRESSIONS, MOMENTS)
def test_matches_are_those_of_croniter(expression: str, start: datetime) -> None:
    if not fits_croniter(expression):
        return
    oracle = croniter(expression, start, ret_type=datetime)
    expected = [oracle.get_next() for _ in range(5)]
    assert walls(parse_cron(expression), start + timedelta(seconds=1), 5) == expected


@settings(deadline=None, max_examples=20)
@given(st.tuples(field(0, 59), EXPRESSIONS).map(" ".join), MOMENTS)
def test_six_fields_start_with_the_second(expression: str, start: datetime) -> None:
    if not fits_croniter(expression.split(" ", 1)[1]):
        return
    oracle = croniter(expression, start, ret_type=datetime, second_at_beginning=True)
    expected = [oracle.get_next() for _ in range(5)]
    assert walls(parse_cron(expression), start + timedelta(seconds=1), 5) == expected


@settings(deadline=None, max_examples=50)
@given(st.one_of(EXPRESSIONS, st.tuples(field(0, 59), EXPRESSIONS).map(" ".join)), MOMENTS)
def test_counting_agrees_with_walking(expression: str, start: datetime) -> None:
    cron = parse_cron(expression)
    found = [wall(moment) for moment in walls(cron, start, 40)]
    assert all(later > earlier for earlier, later in pairwise(found))
    assert [cron.count_walls(wall(start), end) for end in found] == list(range(40))
    assert all(later - earlier >= cron.shortest_gap() for earlier, later in pairwise(found))


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_mean_what_croniter_takes_them_for(alias: str) -> None:
    start = datetime(2026, 3, 4, 5, 6, 7)
    oracle = croniter(alias, start, ret_type=datetime)
    assert walls(parse_cron(alias), start, 3) == [oracle.get_next() for _ in range(3)]
