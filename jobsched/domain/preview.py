"""A schedule that is asked about before there is a job: what the request holds, and its runs."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Annotated, Final

from pydantic import Field

from jobsched.domain import spec_rules as rules
from jobsched.domain.schedule import LONGEST_TEXT, Schedule, parse_schedule
from jobsched.domain.spec_fields import InstantText, MaxRuns
from jobsched.domain.upcoming import Bounds, Run, runs_of_new
from jobsched.domain.validation import WHOLE, Input, read
from jobsched.errors import Fault, InvalidInput, InvalidSchedule

#: Runs that one call lists at most.
MAX_RUNS: Final = 100


class PreviewIn(Input):
    """A schedule to look at. The fields mean what they mean in a job."""

    schedule: str = Field(
        min_length=1,
        max_length=1000,
        description="As in a job.",
        examples=["*/5 9-17 * * MON-FRI"],
        json_schema_extra={"format": "schedule", "maxLength": LONGEST_TEXT},
    )
    timezone: str = Field(
        "UTC",
        max_length=100,
        description="As in a job.",
        examples=["Europe/Berlin"],
        json_schema_extra={"format": "time-zone"},
    )
    n: Annotated[int, Field(ge=1, le=MAX_RUNS), WHOLE] = Field(10, description="How many runs.")
    start_at: InstantText | None = Field(None, description="No slot before this instant.")
    end_at: InstantText | None = Field(
        None, description="No slot after this instant, which is not before `startAt`."
    )
    max_runs: MaxRuns | None = Field(None, description="No more slots than this.")


@dataclass(frozen=True, slots=True)
class Preview:
    """What a PreviewIn asks for, checked."""

    schedule: Schedule
    count: int
    bounds: Bounds

    def runs(self, now: datetime) -> list[Run]:
        """The runs of a job that would be created ``now``."""
        return list(islice(runs_of_new(self.schedule, now, self.bounds), self.count))


def parse_preview(body: object) -> Preview:
    """The schedule that ``body`` asks about. Raises InvalidInput with every fault."""
    given = read(PreviewIn, body)
    faults: list[Fault] = []
    schedule = None
    try:
        schedule = parse_schedule(given.schedule, given.timezone)
    except InvalidSchedule as error:
        faults += error.faults
    start_at = rules.read_bound("startAt", given.start_at, given.timezone, faults)
    end_at = rules.read_bound("endAt", given.end_at, given.timezone, faults)
    if start_at and end_at and end_at < start_at:
        faults.append(Fault("/endAt", "is before startAt"))
    if faults or schedule is None:
        raise InvalidInput(faults, "The schedule is not valid.")
    return Preview(schedule, given.n, Bounds(start_at=start_at, end_at=end_at, max_runs=given.max_runs))
