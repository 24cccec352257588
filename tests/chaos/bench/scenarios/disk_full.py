"""The disk under Postgres is full for a while: what was acknowledged stays, and the API says 503, never 500.

Postgres' folder is a small file system in memory, in a mount namespace of this scenario's own (unshare -m).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jobsched.errors import DatabaseError
from jobsched.testing.stand import Stand
from tests.chaos.bench.scenarios.callers import Caller
from tests.chaos.bench.scenarios.stage import (
    Findings,
    Stage,
    account,
    patiently,
    pause,
    schedule_load,
    told,
)

_MEBIBYTE = 1024 * 1024

_PLAY = f"""
import json, sys
from {__name__} import play
print(json.dumps(play(**json.loads(sys.argv[1]))))
"""


def run(**sizes: Any) -> dict[str, Any]:
    """As ``play``, in a mount namespace; where none can be had, the figures say why and nothing was shown."""
    if (reason := _impossible()) is not None:
        return {"passed": True, "findings": [], "figures": {"not_possible_here": reason}}
    ended = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", _PLAY, json.dumps(sizes)],
        cwd=Path(__file__).parents[4],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    )
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def _impossible() -> str | None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "mounting a file system needs root and unshare"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip() or "no file system can be mounted" if tried.returncode else None


def play(*, seconds: float = 10.0, mebibytes: int = 192, jobs: int = 100, runs: int = 40) -> dict[str, Any]:
    """``jobs`` are due each second; the disk of ``mebibytes`` is full for ``seconds``.

    At first Postgres can only refuse what needs room in its tables. In the second half its log has no room either,
    which stops it altogether; whoever frees the disk starts it again.
    """
    findings = Findings()
    stand = Stand(JOBSCHED_LOG_FORMAT="json", JOBSCHED_POLL_INTERVAL="1")
    disk = stand.folder / "postgres"
    disk.mkdir(mode=0o700)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", str(disk)], check=True
    )
    try:
        with Stage(stand) as stage:
            client = stage.cast(apis=1, concurrency=100)
            load = schedule_load(client, stage.target.url + "/slow/200", jobs=jobs, step=1, runs=runs)
            with Caller([stage.urls["api1"]], stand.key) as caller:
                pause(load.first + 5 - time.time())
                filler = disk / "filler"
                full_since = time.time()
                while time.time() < full_since + seconds:
                    _fill(filler)
                    if time.time() > full_since + seconds / 2:
                        _ask_for_more_log(stand)
                    pause(0.2)
                ended = not stand.postgres.alive
                filler.unlink()
                freed = time.time()
                if not stand.postgres.alive:
                    stand.postgres.start()

                def serves() -> bool:
                    return caller.first_success_after(freed, "create") is not None

                try:
                    recovered = patiently(serves, 30, "the API creates jobs again")
                except RuntimeError as error:
                    findings.append(str(error))
                    recovered = None
                pause(3.0)
            figures = account(stage, findings, load, within=max(0.0, load.last - time.time()) + 60)
            stored = {row[0] for row in stand.query("SELECT id FROM job WHERE deleted_at IS NULL")}
            ended_by_itself = stage.ended()
            log = (stand.folder / "log" / "postgres.log").read_text(errors="replace")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
        shutil.rmtree(stand.folder, ignore_errors=True)
    refused = [one for one in caller.asked if one.status is not None and one.status == 503]
    findings.none_of(set(caller.created) - stored, "acknowledged jobs are missing")
    findings.none_of(
        [one for one in caller.failures() if one.status != 503], "answers other than 2xx and 503"
    )
    findings.none_of(ended_by_itself, "processes have ended")
    findings.expect("No space left on device" in log, "Postgres has not noticed that the disk was full")
    findings.expect(bool(refused), "the API has not refused anything")
    findings.expect(figures["repeated_calls"] == 0, f"{figures['repeated_calls']} calls were repeated")
    return told(
        findings,
        figures
        | {
            "full_seconds": freed - full_since,
            "postgres_panicked": log.count("PANIC:"),
            "postgres_had_ended": ended,
            "acknowledged_creates": len(caller.created),
            "api_answers": caller.statuses(),
            "api_slowest_seconds": caller.slowest(),
            "creates_again_after_seconds": recovered,
        },
    )


def _ask_for_more_log(stand: Stand) -> None:
    """Make Postgres begin a new file of its write-ahead log, for which there is no room: it cannot go on then."""
    try:
        stand.query("SELECT pg_switch_wal()")
    except DatabaseError:
        return  # as it must be


def _fill(filler: Path) -> None:
    """Write until nothing more fits."""
    with filler.open("ab", buffering=0) as file:
        for size in (_MEBIBYTE, 4096):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
