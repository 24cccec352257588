"""Schedules in plain English."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobsched.domain.cron import ALIASES, parse_fields
from jobsched.domain.schedule import parse_schedule
from jobsched.domain.words import describe
from jobsched.errors import InvalidSchedule

TABLE = """
* * * * *                   | Every minute
*/5 * * * *                 | Every 5 minutes
0,30 * * * *                | Every 30 minutes
2-59/5 * * * *              | Every 5 minutes from minute 2 of the hour
*/7 * * * *                 | Every 7 minutes from minute 0 to 56 of every hour
*/5 9-17 * * MON-FRI        | Every 5 minutes from 09:00 to 17:59, Monday to Friday
2/5 9-17 * * *              | Every 5 minutes from 09:02 to 17:59
*/15 9 * * *                | Every 15 minutes from 09:00 to 09:45
*/10 */2 * * *              | Every 10 minutes of every 2nd hour
3/10 */2 * * *              | Every 10 minutes from minute 3 of every 2nd hour
5,17,41 * * * *             | At minutes 5, 17 and 41 of every hour
5,17,41 9-17 * * *          | At minutes 5, 17 and 41 of the hours 09 to 17
5,17,41 9 * * *             | At 09:05, 09:17 and 09:41 every day
1,2,3,4,9,20 9 * * *        | At minutes 1 to 4, 9 and 20 of the hour 09
10-20 * * * *               | Every minute from minute 10 to 20 of every hour
10-20 9 * * *               | Every minute from 09:10 to 09:20
* 9 * * *                   | Every minute from 09:00 to 09:59
* 9,12-14 * * *             | Every minute from 09:00 to 09:59 and from 12:00 to 14:59
* 1,2,5,9,13 * * *          | Every minute of the hours 01, 02, 05, 09 and 13
* */5 * * *                 | Every minute of every 5th hour from 00 to 20
0 * * * *                   | Every hour
15 * * * *                  | Every hour at minute 15
0 */2 * * *                 | Every 2 hours
15 */2 * * *                | Every 2 hours from 00:15 to 22:15
0 1/2 * * *                 | Every 2 hours from 01:00 to 23:00
0 */5 * * *                 | Every 5 hours from 00:00 to 20:00
0 9-17 * * *                | Every hour from 09:00 to 17:00
0 9-17/2 * * *              | Every 2 hours from 09:00 to 17:00
30 1,5,9,13,20 * * *        | At 01:30, 05:30, 09:30, 13:30 and 20:30 every day
0 9 * * *                   | At 09:00 every day
0 9 * * MON-FRI             | At 09:00 on Monday to Friday
0 9,17 * * MON,WED,FRI      | At 09:00 and 17:00 on Monday, Wednesday and Friday
0 0 * * 5-7                 | At 00:00 on Friday to Sunday
0 0 * * 0-4                 | At 00:00 on Sunday to Thursday
0 0 * * 6,0,1               | At 00:00 on Saturday to Monday
0 0 1 * *                   | At 00:00 on day 1 of the month
0 0 1,15 * *                | At 00:00 on days 1 and 15 of the month
0 0 1-7 * *                 | At 00:00 on days 1 to 7 of the month
0 0 29 2 *                  | At 00:00 on day 29 of February
0 0 1 * MON                 | At 00:00 on day 1 of the month and on every Monday
0 0 1 6 MON,TUE             | At 00:00 on day 1 of June and on every Monday and Tuesday in June
0 0 */2 * MON               | At 00:00 on Monday, but only on every 2nd day from 1 to 31 of the month
0 0 1 * */2                 | At 00:00 on Tuesday, Thursday, Saturday and Sunday, but only on day 1 of the month
0 0 1-31 * 1                | At 00:00 every day
0 0 1 * 0-6                 | At 00:00 every day
0 9 * 7 *                   | At 09:00 every day in July
0 9 * 1-3 *                 | At 09:00 every day in January to March
0 9 * */3 MON               | At 09:00 on Monday in January, April, July and October
*/5 * 1 * *                 | Every 5 minutes, on day 1 of the month
*/5 * * * 1                 | Every 5 minutes, on Monday
*/5 * * 12 *                | Every 5 minutes, every day in December
* * * * * *                 | Every second
*/10 * * * * *              | Every 10 seconds
*/7 * * * * *               | Every 7 seconds from second 0 to 56 of every minute
5/10 * * * * *              | Every 10 seconds from second 5 to 55 of every minute
30 * * * * *                | At second 30 of every minute
1,2,9 3 * * * *             | At seconds 1, 2 and 9 of minute 3 of every hour
30 0 9 * * *                | At 09:00:30 every day
30 15 * * * *               | Every hour at :15:30
* * 9-17 * * 1-5            | Every second from 09:00 to 17:59, Monday to Friday
10-20 0 1,2 * * *           | Every second from second 10 to 20 of minute 0 of the hours 01 and 02
* 10-20 5 * * *             | Every second of minutes 10 to 20 of the hour 05
@hourly                     | Every hour
@daily                      | At 00:00 every day
@weekly                     | At 00:00 on Sunday
@monthly                    | At 00:00 on day 1 of the month
@Yearly                     | At 00:00 on day 1 of January
@every 90s                  | Every 90 seconds
@every 1m                   | Every minute
@every 1h                   | Every hour
@every 1h30m                | Every 90 minutes
@every 24h                  | Every 24 hours
@every 1h0m5s               | Every 1 hour 5 seconds
@every 2m5s                 | Every 2 minutes 5 seconds
@every 1.5s                 | Every 1.5 seconds
@every 876000h              | Every 876000 hours
@in 10m                     | Once, after 10 minutes
@in 1h                      | Once, after 1 hour
@in 250ms                   | Once, after 0.25 seconds
2026-12-01T09:00            | Once, on 2026-12-01 at 09:00 (Europe/Berlin)
@at 2026-12-01T08:00:30.5Z  | Once, on 2026-12-01 at 09:00:30.5 (Europe/Berlin)
2026-03-29T02:30            | Once, on 2026-03-29 at 02:30 (Europe/Berlin)
9999-12-31T23:59:59Z        | Once, on 9999-12-31 at 23:59:59 (UTC)
"""
ROWS = [re.split(r"\s+\| ", line) for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize(("text", "words"), ROWS, ids=[row[0] for row in ROWS])
def test_a_schedule_is_said_in_words(text: str, words: str) -> None:
    assert describe(parse_schedule(text, "Europe/Berlin")) == words


def test_a_job_that_does_not_recur_says_so() -> None:
    assert describe(parse_schedule("@hourly"), recurring=False) == "Every hour; only the next time"


def values(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    ranges = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(number, number, st.integers(1, high)).map(
        lambda three: (
            f"{min(three[:2])}-{max(three[:2])}/{1 + three[2] % (max(three[:2]) - min(three[:2]) + 1)}"
        )
    )
    star = st.just("*") | st.integers(1, high - low + 1).map(lambda step: f"*/{step}")
    item = number.map(str) | ranges | stepped | star
    return st.lists(item, min_size=1, max_size=4).map(",".join)


expressions = st.tuples(
    values(0, 59), values(0, 59), values(0, 23), values(1, 31), values(1, 12), values(0, 6)
).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(expressions)
def test_every_expression_has_a_description_that_is_a_sentence(text: str) -> None:
    try:
        words = describe(parse_schedule(text))
    except InvalidSchedule:
        return
    assert re.fullmatch(r"(At|Every) [A-Za-z0-9:, ]+[a-z0-9]", words), words
    assert "  " not in words


@settings(max_examples=400, deadline=None)
@given(expressions, expressions)
@example("0 * * * * 1-7", "0 * * * * *")
@example("0 0 0 1-31 * 1", "0 0 0 * * 1")
def test_what_differs_is_said_differently_and_what_is_equal_alike(one: str, other: str) -> None:
    try:
        described = [describe(parse_schedule(text)) for text in (one, other)]
    except InvalidSchedule:
        return
    assert (described[0] == described[1]) == (meaning(one) == meaning(other)), described


def meaning(text: str) -> tuple[int | bool, ...]:
    """The masks, with the day fields as they work together."""
    fields = parse_fields(text)
    every_day, every_weekday = fields.day == 2**32 - 2, fields.weekday == 127
    times = (fields.second, fields.minute, fields.hour, fields.month)
    if (every_day and every_weekday) or (fields.either and (every_day or every_weekday)):
        return times
    either = fields.either and not (every_day or every_weekday)
    return (*times, fields.day, fields.weekday, either)


def test_no_two_single_fields_are_said_alike() -> None:
    """Exhaustive where hypothesis would hardly meet two that are close."""
    items = [f"{low}-{high}/{step}" for low in range(12) for high in range(low, 24) for step in range(1, 13)
             if step <= high - low + 1]  # fmt: skip
    seen: dict[str, tuple[int | bool, ...]] = {}
    for template in ("0 {} * * *", "* {} * * *", "5 {} * * *", "*/5 {} * * *", "{} * * * *", "{} 7 * * *",
                     "1/20 {} * * *", "{} 5 * * * *", "{} * * * * *"):  # fmt: skip
        for item in items:
            text = template.format(item)
            assert seen.setdefault(describe(parse_schedule(text)), meaning(text)) == meaning(text), text
    assert set(ALIASES) == {alias for alias in ALIASES if describe(parse_schedule(alias))}
