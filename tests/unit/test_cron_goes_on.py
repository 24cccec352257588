"""Whatever cron expression is accepted has a next match, from any day on."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched.domain.schedule import parse_schedule
from jobsched.errors import InvalidSchedule

# Mostly well formed: numbers in and out of range, names, and what joins them.
words = st.sampled_from(
    [
        "*",
        "0",
        "1",
        "2",
        "5",
        "7",
        "12",
        "23",
        "28",
        "29",
        "30",
        "31",
        "59",
        "60",
        "FEB",
        "jun",
        "MON",
        "sun",
        "L",
    ]
)
parts = (
    st.builds(
        "{}{}".format,
        st.builds("{}{}".format, words, st.just("") | words.map("-{}".format)),
        st.just("") | words.map("/{}".format),
    )
    | words
)
fields = parts | st.lists(parts, min_size=2, max_size=3).map(",".join)
expressions = st.lists(fields, min_size=5, max_size=6).map(" ".join)
zones = st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia", "Australia/Lord_Howe"])
instants = st.datetimes(datetime(1900, 1, 1), datetime(9900, 1, 1), timezones=st.just(UTC))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(expressions, zones, instants)
def test_what_is_accepted_has_a_next_match(expression: str, zone: str, after: datetime) -> None:
    try:
        schedule = parse_schedule(expression, zone)
    except InvalidSchedule:
        return
    following = schedule.next_after(after, after)
    assert following is not None
    assert following > after
