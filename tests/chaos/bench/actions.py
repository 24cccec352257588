"""What a user does: every call that changes a job or an execution, chosen by chance.

A job belongs to the user who made it: nobody else touches it, so that what it is at any time follows from one
sequence of calls. A job of which a call went unanswered is never edited again: what became of it stays open.
Edits carry the version that they expect, so that a try which hangs in a server and is carried out late changes
nothing.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any

from tests.chaos.bench.load_calls import Caller
from tests.chaos.bench.load_jobs import KINDS, KnownJob, Recipes
from tests.chaos.bench.records import Call

_JOBS = "/api/v1/jobs"
_EXECUTIONS = "/api/v1/executions"
_DEAD_LETTERS = "/api/v1/dead-letters"

#: Jobs and runs that a user remembers, the newest.
_REMEMBERED_RUNS = 20


class User:
    """One user with jobs. ``act`` does the next thing."""

    def __init__(self, caller: Caller, recipes: Recipes, chance: random.Random) -> None:
        self._caller = caller
        self._recipes = recipes
        self._chance = chance
        self.jobs: dict[int, KnownJob] = {}
        self._one_offs: list[int] = []
        self._keys = 0
        self._acts = [act for act, weight in self._what_to_do().items() for _ in range(weight)]

    def _what_to_do(self) -> dict[Callable[[], object], int]:
        return {
            self._run: 26,
            self._create_one_off: 14,
            self._cancel: 14,
            self._edit: 14,
            self._look: 8,
            self._retry: 7,
            self._pause: 5,
            self._resume: 6,
            self._put_again: 5,
            self._redrive: 5,
            self._bulk: 4,
            self._edit_schedule: 4,
            self._put: 3,
            self._discard: 3,
            self._delete: 3,
            self._delete_waiting: 2,
        }

    def act(self) -> None:
        """Do something; nothing where chance picks what cannot be done now."""
        self._chance.choice(self._acts)()

    # -- making jobs --------------------------------------------------------------------------------------------

    def create(self, kind: str) -> None:
        """Register a recurring job of this kind."""
        fields = self._recipes.recurring(kind)
        self._know(kind, self._caller.call("create", "POST", _JOBS, body=fields, sent=fields))

    def _create_one_off(self) -> None:
        fields = self._recipes.one_off()
        call = self._caller.call("create", "POST", _JOBS, body=fields, sent=fields)
        if call.acknowledged and call.job is not None:
            self._one_offs.append(call.job)

    def _bulk(self) -> None:
        items = [self._recipes.one_off() for _ in range(self._chance.randrange(10, 51))]
        self._caller.call("bulk", "POST", f"{_JOBS}/bulk", body=items, sent={"items": items})

    def _put(self) -> None:
        self._keys += 1
        fields = self._recipes.recurring("steady2")
        key = f"{fields['name']}/{self._keys} é"
        path = f"{_JOBS}/key/{fields['name']}%2F{self._keys}%20%C3%A9"
        call = self._caller.call(
            "put",
            "PUT",
            path,
            body=fields,
            sent=fields | {"key": key},
            headers={"If-None-Match": "*"},
            done_before=lambda: self._caller.read(path),
        )
        self._know("put", call)

    def _put_again(self) -> None:
        job = self._pick("put")
        if job is None or job.key is None:
            return
        fields = {name: value for name, value in job.fields.items() if name != "key"}
        if self._chance.random() < 0.7:  # else nothing changes, not even the version
            fields["payload"] = self._recipes.payload()
        path = f"{_JOBS}/key/{job.key.replace('/', '%2F').replace(' ', '%20').replace('é', '%C3%A9')}"
        self._edited(job, "put", "PUT", path, fields, {"key": job.key})

    def _know(self, kind: str, call: Call) -> None:
        if call.acknowledged and call.job is not None:
            self.jobs[call.job] = KnownJob(call.job, kind, call.answer["version"], dict(call.sent))

    # -- editing jobs -------------------------------------------------------------------------------------------

    def _edit(self) -> None:
        job = self._pick(*KINDS, "put")
        if job is None:
            return
        changes: dict[str, Any] = self._chance.choice(
            (
                {"payload": self._recipes.payload()},
                {"headers": {"X-Chaos": str(self._chance.randrange(1000))}},
                {"maxRetryCount": self._chance.randrange(3, 8)},
            )
        )
        if "maxRetryCount" in changes and job.kind in ("fails", "dies"):
            return
        self._edited(job, "patch", "PATCH", f"{_JOBS}/{job.id}", changes)

    def _edit_schedule(self) -> None:
        job = self._pick("steady", "steady2", "cron2", "slow")
        if job is not None:
            other = {"@every 1s": "@every 2s", "@every 2s": "@every 1s"}
            schedule = other.get(job.fields["schedule"], "*/3 * * * * *")
            self._edited(job, "patch", "PATCH", f"{_JOBS}/{job.id}", {"schedule": schedule})

    def _edited(
        self,
        job: KnownJob,
        action: str,
        method: str,
        path: str,
        changes: Mapping[str, Any],
        besides: Mapping[str, Any] | None = None,
    ) -> None:
        """Send an edit of the version that we know. Refused after a lost answer, it may be our own that stands."""

        def mine() -> Any:
            found = self._caller.read(path)
            return found if found is not None and found["version"] == job.version + 1 else None

        sent = {**changes, **(besides or {})}
        call = self._caller.call(
            action,
            method,
            path,
            body=dict(changes),
            sent=sent,
            headers={"If-Match": f'"{job.version}"'},
            job=job.id,
            done_before=mine,
        )
        if call.acknowledged:
            job.version = call.answer["version"]
            job.fields = sent if action == "put" else job.fields | sent
        else:
            self.jobs.pop(job.id, None)

    def _pause(self) -> None:
        job = self._pick("steady", "steady2", "cron", "slow", "overlap-queue", "jitter")
        if job is not None:
            self._switch(job, "pause")

    def _resume(self) -> None:
        paused = [job for job in self.jobs.values() if job.paused]
        if paused:
            self._switch(self._chance.choice(paused), "resume")

    def _switch(self, job: KnownJob, action: str) -> None:
        call = self._caller.call(action, "POST", f"{_JOBS}/{job.id}/{action}", job=job.id)
        if call.acknowledged:
            job.paused = action == "pause"
            job.version = call.answer["version"]
        else:
            self.jobs.pop(job.id, None)

    def _delete(self) -> None:
        """Delete a recurring job, whatever of it runs or waits, and make another of its kind."""
        job = self._pick("steady", "slow", "once", "fails", "overlap-queue", "put")
        if job is None:
            return
        self._end(job.id)
        if job.kind in KINDS:
            self.create(job.kind)

    def _delete_waiting(self) -> None:
        """Delete a one-off that may still wait for its time."""
        if self._one_offs:
            self._end(self._one_offs.pop())

    def _end(self, job: int) -> None:
        self._caller.call("delete", "DELETE", f"{_JOBS}/{job}", job=job, done_before=dict)
        self.jobs.pop(job, None)

    # -- executions ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        job = self._pick(*KINDS, "put")
        if job is None:
            return
        sent: dict[str, Any] = {}
        if self._chance.random() < 0.3:
            sent["payload"] = self._recipes.payload()
        force = job.kind in KINDS and KINDS[job.kind].exclusive and self._chance.random() < 0.3
        call = self._caller.call(
            "run",
            "POST",
            f"{_JOBS}/{job.id}/run{'?force=true' if force else ''}",
            body=sent or None,
            sent=sent | ({"force": True} if force else {}),
            job=job.id,
        )
        if call.acknowledged:
            job.runs = [*job.runs, call.answer["id"]][-_REMEMBERED_RUNS:]

    def _cancel(self) -> None:
        """Cancel something of a job that has much that lives."""
        job = self._pick("slow", "fails", "overlap-queue", "once", "dies")
        if job is None:
            return
        states = "state=pending&state=retrying&state=running&state=queued&state=blocked"
        page = self._caller.read(f"{_JOBS}/{job.id}/executions?{states}&limit=5")
        if page and page["items"]:
            self._do("cancel", job, self._chance.choice(page["items"])["id"])

    def _retry(self) -> None:
        """Again: what waits for its retry, or what was over long ago."""
        job = self._pick("fails", "dies", "steady", "once", "slow")
        if job is None:
            return
        if job.runs and self._chance.random() < 0.5:
            self._do("retry", job, self._chance.choice(job.runs))
            return
        page = self._caller.read(f"{_JOBS}/{job.id}/executions?state=retrying&state=failed&limit=5")
        if page and page["items"]:
            self._do("retry", job, self._chance.choice(page["items"])["id"])

    def _do(self, action: str, job: KnownJob, execution: int) -> None:
        self._caller.call(
            action, "POST", f"{_EXECUTIONS}/{execution}/{action}", job=job.id, execution=execution
        )

    def _redrive(self) -> None:
        job, ids = self._dead(self._chance.randrange(1, 4))
        if ids:
            body: dict[str, Any] = {"ids": ids}
            if self._chance.random() < 0.3:
                body["ratePerSecond"] = 5
            self._caller.call("redrive", "POST", f"{_DEAD_LETTERS}/redrive", body=body, sent=body, job=job)

    def _discard(self) -> None:
        job, ids = self._dead(2)
        if ids:
            self._caller.call(
                "discard", "POST", f"{_DEAD_LETTERS}/discard", body={"ids": ids}, sent={"ids": ids}, job=job
            )

    def _dead(self, limit: int) -> tuple[int | None, list[int]]:
        job = self._pick("dies")
        if job is None:
            return None, []
        page = self._caller.read(f"{_DEAD_LETTERS}?jobId={job.id}&limit={limit}")
        return job.id, [letter["id"] for letter in page["items"]] if page else []

    def _look(self) -> None:
        """Read something, as people and dashboards do."""
        job = self._pick(*KINDS)
        paths = ["/queue/stats", f"{_EXECUTIONS}?state=failed&limit=20"]
        if job is not None:
            paths += [f"{_JOBS}/{job.id}", f"{_JOBS}/{job.id}/next?n=5"]
        self._caller.read(self._chance.choice(paths))

    def _pick(self, *kinds: str) -> KnownJob | None:
        """One of this user's jobs of these kinds that is not paused."""
        found = [job for job in self.jobs.values() if job.kind in kinds and not job.paused]
        return self._chance.choice(found) if found else None
