"""Two seeds of the chaos bench, a minute each, side by side: what scripts/chaos does for hours, all the time."""

import json
import subprocess
import sys
from pathlib import Path

SEEDS = (1, 2)

#: A minute under faults, and up to as much again for the start, the drain and the look for what was left.
_PATIENCE = 300


def test_under_a_minute_of_faults_nothing_is_lost_and_nothing_sent_twice_without_a_reason(
    tmp_path: Path,
) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.chaos.bench",
        "--minutes",
        "1",
        "--rate",
        "90",
        "--out",
        str(tmp_path),
    ]
    running = [
        subprocess.Popen(
            [*command, "--seed", str(seed)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for seed in SEEDS
    ]
    try:
        said = [process.communicate(timeout=_PATIENCE)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    for seed in SEEDS:
        told = json.loads((tmp_path / f"seed-{seed:02}.json").read_text())
        effective = [strike["kind"] for strike in told["strikes"] if strike["took_effect"]]
        assert len(effective) >= 8, told["strikes"]
        assert told["verdict"]["figures"]["executions"] > 2000
