"""Faults of Postgres' processes: killed, restarted, frozen, slow, without room to write."""

import shutil
import time

from jobsched.embedded.account import choose
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

    kind, lasts = "postgres_killed", 8.0

    def hit(self, scene: Scene) -> Effect:
        return _ended(scene, scene.cluster.stand.postgres.kill, scene.chance.uniform(1, 3))


class Restarted(PostgresFault):
    """Stopped in order and started at once, as for a change of its settings."""

    kind, lasts = "postgres_restarted", 6.0

    def hit(self, scene: Scene) -> Effect:
        return _ended(scene, scene.cluster.stand.postgres.stop, 0.0)


class Stalled(PostgresFault):
    """It holds its connections and answers nothing: a disk that hangs, a machine that is moved."""

    kind, lasts = "postgres_stalled", 9.0

    def hit(self, scene: Scene) -> Effect:
        # The postmaster first, so that it starts no child that is missed.
        frozen = scene.cluster.postgres_processes()
        seconds = scene.chance.uniform(3, 6)
        try:
            for pid in frozen:
                scene.cluster.freeze_process(pid)
            began = time.monotonic()
            scene.cluster.pause(seconds)
            waiting = scene.unanswered(scene.cluster.stand.database_url)
        finally:
            for pid in reversed(frozen):
                scene.cluster.thaw_process(pid)
        held = time.monotonic() - began
        return Effect(
            held > 2 and (waiting > 0 or bool(scene.events(*POSTGRES_MISSED))),
            f"{len(frozen)} processes still for {held:.1f} s, {waiting} connections waited for an answer; "
            f"{scene.count(*POSTGRES_MISSED)}",
        )


class Slow(PostgresFault):
    """For some seconds every statement takes long: its processes run for a part of the time only."""

    kind, lasts = "postgres_slow", 8.0

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
    """No file may grow: the log cannot be written, Postgres panics, and cannot start before there is room again.

    The limit of a process' files stands in for the disk: nobody else is hurt, and root is not needed.
    """

    kind, lasts = "postgres_disk_full", 12.0

    def hit(self, scene: Scene) -> Effect:
        if shutil.which("prlimit") is None:
            return Effect(False, "there is no prlimit (util-linux) to limit the files of a process")
        room = scene.chance.choice((0, 8192, 65_536, 1_048_576))
        limited: set[int] = set()
        end = time.monotonic() + 3
        try:
            # Children are born with their parent's limits; those that lived before are told one by one.
            while time.monotonic() < end:
                pids = [pid for pid in scene.cluster.postgres_processes() if pid not in limited]
                _limit_files(scene, pids, str(room))
                limited.update(pids)
                scene.cluster.pause(0.1)
        finally:
            _limit_files(scene, sorted({*limited, *scene.cluster.postgres_processes()}), "unlimited")
            fell = _bring_up(scene)
        said = scene.count(*POSTGRES_MISSED)
        came = "ended and was started again" if fell else "went on by itself"
        return Effect(
            bool(scene.events(*POSTGRES_MISSED)),
            f"{len(limited)} processes with room for {room} bytes a file; Postgres {came}; {said}",
        )


def _limit_files(scene: Scene, pids: list[int], size: str) -> None:
    """Set the soft limit, as the user that the processes belong to: even root may lack the right to, elsewhere."""
    script = 'size=$1; shift; for pid; do prlimit --pid "$pid" --fsize="$size:" 2>&1; done'
    if pids:
        said = (
            choose(scene.cluster.stand.folder)
            .run(["sh", "-c", script, "sh", size, *map(str, pids)], cwd="/")
            .stdout
        )
        refused = [line for line in said.splitlines() if "No such process" not in line]
        assert not refused, refused[0]


def _bring_up(scene: Scene) -> bool:
    """Start Postgres again unless it has come back by itself; whether it had to be started."""
    postgres = scene.cluster.stand.postgres
    back = scene.until(
        lambda: not postgres.alive or scene.cluster.ask("SELECT 1", within=0.2) is not None, 8.0
    )
    if back and postgres.alive:
        return False
    # It ended since it could not recover without room, or hangs on its way down.
    postgres.kill()
    scene.cluster.start_postgres()
    return True


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
