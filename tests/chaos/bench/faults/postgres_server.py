"""Faults of Postgres' processes: killed, restarted, frozen, slow, without room to write."""

import contextlib
import resource
import time

from tests.chaos.bench.faults.base import POSTGRES_MISSED, Effect, Fault, Scene

_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'jobsched-%%'"
_BUSY = (
    "SELECT pid FROM pg_stat_activity "
    "WHERE application_name LIKE 'jobsched-%%' AND state <> 'idle' AND backend_type = 'client backend'"
)
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'jobsched-%%'"


class PostgresFault(Fault):
    """One server, one fault at a time."""

    parts = ("postgres",)


class Killed(PostgresFault):
    """Ended at once, as in a power cut; recovered from its log after some seconds."""

    kind, lasts = "postgres_killed", 30.0

    def hit(self, scene: Scene) -> Effect:
        return _ended(scene, scene.cluster.stand.postgres.kill, scene.chance.uniform(1, 3))


class Restarted(PostgresFault):
    """Stopped in order and started at once, as for a change of its settings."""

    kind, lasts = "postgres_restarted", 40.0

    def hit(self, scene: Scene) -> Effect:
        return _ended(scene, scene.cluster.stand.postgres.stop, 0.0)


class Stalled(PostgresFault):
    """It holds its connections and answers nothing: a disk that hangs, a machine that is moved."""

    kind, lasts = "postgres_stalled", 12.0

    def hit(self, scene: Scene) -> Effect:
        sessions = _sessions(scene)
        # The postmaster first, so that it starts no child that is missed.
        frozen = scene.cluster.postgres_processes()
        seconds = scene.chance.uniform(3, 6)
        try:
            for pid in frozen:
                scene.cluster.freeze_process(pid)
            began = time.monotonic()
            scene.cluster.pause(seconds)
        finally:
            for pid in reversed(frozen):
                scene.cluster.thaw_process(pid)
        held = time.monotonic() - began
        return Effect(
            sessions > 0 and held > 2,
            f"{len(frozen)} processes still for {held:.1f} s, {sessions} sessions; {scene.count(*POSTGRES_MISSED)}",
        )


class Slow(PostgresFault):
    """For some seconds every statement takes long: its processes run for a part of the time only."""

    kind, lasts = "postgres_slow", 12.0

    def hit(self, scene: Scene) -> Effect:
        pulses, busy = 0, 0
        end = time.monotonic() + 5
        with scene.cluster.connect() as connection:
            while time.monotonic() < end:
                busy += len(connection.execute(_BUSY).fetchall())
                pids = [int(pid) for (pid,) in connection.execute(_BACKENDS).fetchall()]
                try:
                    for pid in pids:
                        scene.cluster.freeze_process(pid)
                    scene.cluster.pause(scene.chance.uniform(0.1, 0.6))
                finally:
                    for pid in pids:
                        scene.cluster.thaw_process(pid)
                pulses += bool(pids)
                scene.cluster.pause(scene.chance.uniform(0.02, 0.1))
        return Effect(pulses > 0, f"{pulses} pulses; {busy} statements were under way when one began")


class DiskFull(PostgresFault):
    """No file may grow: the log cannot be written, Postgres panics, and cannot start before there is room again."""

    kind, lasts = "postgres_disk_full", 40.0

    def hit(self, scene: Scene) -> Effect:
        room = scene.chance.choice((0, 8192, 65_536, 1_048_576))
        seen: set[int] = set()
        limited: dict[int, tuple[int, int]] = {}
        end = time.monotonic() + 3
        try:
            # Children are born with their parent's limits; those that lived before are told one by one.
            while time.monotonic() < end:
                for pid in scene.cluster.postgres_processes():
                    if pid not in seen:
                        seen.add(pid)
                        with contextlib.suppress(ProcessLookupError):
                            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                            limited[pid] = resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, hard))
                scene.cluster.pause(0.05)
        finally:
            fell = not scene.cluster.stand.postgres.alive
            for pid in {*limited, *scene.cluster.postgres_processes()}:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            # It may be on its way down: a start that fails for want of room ends it.
            if fell or not scene.until(lambda: scene.cluster.ask("SELECT 1", within=0.2), 8.0):
                fell = True
                scene.cluster.stand.postgres.kill()
                scene.cluster.start_postgres()
        said = scene.count(*POSTGRES_MISSED)
        came = "ended and was started again" if fell else "went on by itself"
        return Effect(
            bool(scene.events(*POSTGRES_MISSED)),
            f"{len(limited)} processes with room for {room} bytes a file; Postgres {came}; {said}",
        )


def _ended(scene: Scene, end: object, seconds: float) -> Effect:
    sessions = _sessions(scene)
    assert callable(end)
    try:
        end()
        scene.cluster.pause(seconds)
    finally:
        scene.cluster.start_postgres()
    noticed = scene.await_event(*POSTGRES_MISSED, seconds=3.0)
    return Effect(sessions > 0 and noticed, f"{sessions} sessions broken; {scene.count(*POSTGRES_MISSED)}")


def _sessions(scene: Scene) -> int:
    rows = scene.cluster.ask(_SESSIONS, within=3.0)
    return int(rows[0][0]) if rows else 0


FAULTS = (Killed(), Restarted(), Stalled(), Slow(), DiskFull())
