"""The shapes of bulks and of runs to come, for the OpenAPI document only. jobsched/web/schemas.py has the rest."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, RootModel

from jobsched.domain.bulk import MAX_JOBS
from jobsched.domain.requests import Id
from jobsched.domain.spec_fields import JobCreate


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobList(RootModel[Annotated[list[JobCreate], Field(min_length=1, max_length=MAX_JOBS)]]):
    """Jobs to create."""


class ItemFault(_Model):
    """One thing wrong with an item."""

    pointer: str = Field(description="RFC 6901, within the item; empty: the item as a whole.")
    message: str = Field(description="What is wrong.")


class ItemErrors(_Model):
    """What is wrong with one item of a bulk."""

    index: int = Field(ge=0, description="Its place among the items, from 0.")
    errors: list[ItemFault] = Field(description="Its faults.")


class BulkCreated(_Model):
    """What a bulk made."""

    created: int = Field(ge=0, description="How many jobs were created.")
    ids: list[Id] = Field(description="Their ids, in the order given.")
    errors: list[ItemErrors] = Field(
        description="With `partial=true`: the items that were not created, and why."
    )


class UpcomingRun(_Model):
    """One run to come."""

    scheduledFor: datetime = Field(description="The nominal time, without jitter.")
    dueAt: datetime = Field(description="When it comes due, jitter included.")
    local: datetime = Field(description="`scheduledFor` on the clock of the zone, with its offset.")
    remark: str | None = Field(
        description="What a change of the clock does to this run; or that its time has passed."
    )


class Upcoming(_Model):
    """The next runs, and the schedule in words."""

    items: list[UpcomingRun] = Field(description="The runs, soonest first.")
    description: str = Field(description="The schedule in plain English.")
