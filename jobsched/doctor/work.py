"""Checks of the work: who does it, what waits, what was set aside, where its history lies."""

from jobsched.db import health, mending, retention, sequences, workers
from jobsched.db.connection import Link
from jobsched.db.health import Aside
from jobsched.db.workers import Pulse
from jobsched.doctor.finding import OK, Check, Finding, Limits, count, fail, info, lasting, warn
from jobsched.doctor.watch import OutOfStep, Watch, is_id
from jobsched.domain.queues import queues_of
from jobsched.queue.broker import Broker
from jobsched.queue.health import Health

#: Things that one line names at most, and rows that one statement mends at most.
_MOST_NAMED = 5
_BATCH = 1000

_BOTH = ("schema", "redis")


class Work:
    """What happens, and what does not."""

    def __init__(
        self, link: Link, broker: Broker, queue: Health, watch: Watch, limits: Limits, history_days: int
    ) -> None:
        self._link = link
        self._broker = broker
        self._queue = queue
        self._watch = watch
        self._limits = limits
        self._history_days = history_days
        self._step = OutOfStep()

    def checks(self) -> list[Check]:
        """The quick ones first; those that watch come last."""
        schema = ("schema",)
        return [
            Check("default", "no history lies in the default partition", self._default, schema, self._move),
            Check("partitions", "the history has its partitions", self._partitions, schema, self._make),
            Check(
                "sequences", "sequences are ahead of their tables", self._sequences, schema, self._put_ahead
            ),
            Check("jobs_aside", "no schedule was set aside", self._jobs_aside, schema, self._wake_jobs),
            Check("aside", "no execution was set aside", self._aside, schema, self._wake_executions),
            Check("on_time", "schedules are on time", self._on_time, schema),
            Check("pools", "every pool with work has a worker", self._pools, schema),
            Check("waits", "nothing waits for long", self._waits, schema),
            Check("dead_letters", "dead letters", self._dead_letters, schema),
            Check("dead_processes", "rows of dead processes", self._dead_processes, schema, self._bury),
            Check("poller", "a poller runs", self._poller, schema),
            Check("worker", "a worker runs", self._worker, schema),
            Check("step", "queue and database are in step", self._in_step, _BOTH, self._put_in_step),
        ]

    def _default(self) -> Finding:
        days = health.default_days(self._link)
        if not days:
            return OK
        rows = sum(number for _day, number in days)
        return warn(
            f"{count(rows, 'row')} of {_named([f'{day:%Y-%m-%d}' for day, _number in days])}: no partition was made "
            "for that day, and retention does not reach them. --fix moves them."
        )

    def _move(self) -> str:
        moved = {
            f"{day:%Y-%m-%d}": mending.move_out_of_default(self._link, day.date())
            for day, _number in health.default_days(self._link)
        }
        days = [day for day, rows in moved.items() if rows]
        return f"moved {count(sum(moved.values()), 'row')} to partitions of {_named(days)}" if days else ""

    def _partitions(self) -> Finding:
        days = retention.missing(self._link, self._history_days)
        if not days:
            return OK
        first = f"{days[0]:%Y-%m-%d}"
        return warn(
            f"{count(len(days), 'partition')} from {first} on {'is' if len(days) == 1 else 'are'} missing; pollers "
            "make them once an hour. --fix makes them now."
        )

    def _make(self) -> str:
        made, _dropped = retention.maintain(self._link, self._history_days)
        return f"made {count(made, 'partition')}" if made else ""

    def _sequences(self) -> Finding:
        behind = sequences.behind(self._link)
        if not behind:
            return OK
        told = _named([f"{one.sequence} (ids up to {one.highest} are taken)" for one in behind])
        return fail(
            f"Ids would be given out a second time: {told}. That is so after logical replication, or when data "
            "alone was loaded. Stop all processes and run this with --fix."
        )

    def _put_ahead(self) -> str:
        put = sequences.put_ahead(self._link)
        return f"put {_named([one.sequence for one in put])} ahead" if put else ""

    def _jobs_aside(self) -> Finding:
        aside = health.jobs_aside(self._link)
        if not aside:
            return OK
        return warn(
            f"{_faults('job', aside)}. Look at the job and edit its schedule. Pollers try again after an hour; "
            "with --fix, now."
        )

    def _wake_jobs(self) -> str:
        woken = mending.wake_jobs(self._link)
        return f"asked the pollers to try {count(woken, 'job')} again now" if woken else ""

    def _aside(self) -> Finding:
        aside = health.executions_aside(self._link)
        if not aside:
            return OK
        return warn(
            f"{count(len(aside), 'execution')} could not be queued: {_named([str(one.id) for one in aside])}. The "
            "poller's log tells why (execution_set_aside). It tries again after an hour; with --fix, now."
        )

    def _wake_executions(self) -> str:
        woken = mending.wake_executions(self._link, [one.id for one in health.executions_aside(self._link)])
        return f"asked the pollers to look at {count(woken, 'execution')} again now" if woken else ""

    def _on_time(self) -> Finding:
        job, late = health.overdue(self._link)
        if late <= self._limits.overdue:
            return OK
        return fail(
            f"Job {job} has been due for {lasting(late)} and was not fired. Without a poller, start one. If one "
            "beats all the same, look at its log, and for a session that holds a lock."
        )

    def _pools(self) -> Finding:
        served = health.served_pools(self._link)
        unserved = [
            one
            for one in health.waiting(self._link)
            if one.pool not in served
            and one.oldest > self._limits.unserved
            and not any(self._queue.served_by_rq(queue) for queue in queues_of(one.pool))
        ]
        if not unserved:
            return OK
        told = _named(
            [f"{one.pool} ({count(one.count, 'execution')} for {lasting(one.oldest)})" for one in unserved]
        )
        return fail(f"Work waits in {told}. Start `jobsched worker --pool {unserved[0].pool}`.")

    def _waits(self) -> Finding:
        late = [one for one in health.waiting(self._link) if one.oldest > self._limits.waits]
        if not late:
            return OK
        worst = max(late, key=lambda one: one.oldest)
        return warn(
            f"{count(worst.count, 'execution')} due in pool {worst.pool} and not started, the oldest for "
            f"{lasting(worst.oldest)}. If workers are full (`jobsched stats`), give them more JOBSCHED_CONCURRENCY, "
            "or start more of them."
        )

    def _dead_letters(self) -> Finding:
        number, oldest = health.dead_letters(self._link)
        if oldest is None:
            return Finding("ok", "none")
        return info(f"{number:,}, the oldest of {oldest:%Y-%m-%d %H:%M} UTC: see `jobsched dead list`.")

    def _dead_processes(self) -> Finding:
        number = health.dead_processes(self._link)
        return info(f"{number}, kept for an hour to be looked at.") if number else Finding("ok", "none")

    def _bury(self) -> str:
        buried = workers.bury(self._link, 0.0)
        return f"removed {count(buried, 'row')}" if buried else ""

    def _poller(self) -> Finding:
        return self._lives("poller", "Nothing fires. Start `jobsched poller`.")

    def _worker(self) -> Finding:
        if not any(pulse.kind == "worker" for pulse in self._seen()) and any(
            self._queue.served_by_rq(queue) for queue in health.queues(self._link)
        ):
            return info("Only workers of RQ's own.")
        return self._lives("worker", "Nothing is delivered. Start `jobsched worker`.")

    def _seen(self) -> list[Pulse]:
        self._watch.wait()
        return self._watch.beating + self._watch.still

    def _lives(self, kind: str, advice: str) -> Finding:
        seen = [pulse for pulse in self._seen() if pulse.kind == kind]
        still = [pulse.name for pulse in self._watch.still if pulse.kind == kind]
        if not seen:
            return fail(advice)
        if not still:
            return Finding("ok", f"{count(len(seen), kind)} {'beats' if len(seen) == 1 else 'beat'}")
        text = f"{_named(still)} did not beat for {lasting(self._limits.watch)}: it hangs, or its machine is gone."
        if len(still) == len(seen):
            return fail(f"{text} {advice}")
        return warn(f"{text} The others go on.")

    def _in_step(self) -> Finding:
        self._step = step = self._watch.out_of_step()
        said = []
        if step.other_epoch:
            said.append("Redis was emptied or replaced, and no poller has filled it again")
        if step.lost:
            ids = _named([str(i) for i in step.lost])
            said.append(f"{count(len(step.lost), 'execution')} {'is' if len(step.lost) == 1 else 'are'} queued "
                        f"and not in Redis: {ids}")  # fmt: skip
        if step.unknown:
            number = sum(map(len, step.unknown.values()))
            said.append(f"{count(number, 'entry', 'entries')} in {_named(sorted(step.unknown))} "
                        f"no execution knows")  # fmt: skip
        if not said:
            return OK
        return warn(f"{'; '.join(said)}. A running poller puts this right within 20 s; --fix does it now.")

    def _put_in_step(self) -> str:
        did = []
        if pushed := self._push(self._step):
            did.append(f"pushed {count(pushed, 'execution')} again")
        dropped = 0
        for queue, values in self._step.unknown.items():
            dropped += self._queue.drop(queue, sorted(values))
            # An id that has been queued since we looked lost its message with the old one: it gets another.
            ids = [int(one) for one in values if is_id(one)]
            again = health.still_queued(self._link, ids)
            self._broker.push([(its_queue, i) for i, its_queue in again.items()])
        if dropped:
            did.append(f"removed {dropped:,} of the entries")
        return " and ".join(did)

    def _push(self, step: OutOfStep) -> int:
        lost = list(step.lost.items())
        pushed = 0
        for start in range(0, len(lost), _BATCH):
            items = mending.requeue(self._link, dict(lost[start : start + _BATCH]))
            self._broker.push(items)
            pushed += len(items)
        return pushed


def _named(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _faults(noun: str, aside: list[Aside]) -> str:
    more = len(aside) - _MOST_NAMED
    text = "; ".join(f"{noun} {one.id}: {' '.join(one.fault.split())}" for one in aside[:_MOST_NAMED])
    return text.rstrip(".") + (f"; and {more:,} more" if more > 0 else "")
