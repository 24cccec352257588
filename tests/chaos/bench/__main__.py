"""``scripts/chaos``: run seeds or scenarios, one result file each, and say what was found."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from tests.chaos.bench import report
from tests.chaos.bench.run import machine, run_seed
from tests.chaos.bench.scenarios import SCENARIOS

#: Results that a whole table is made of are kept with the project.
RESULTS = Path(__file__).parents[3] / "docs" / "reliability"


@click.command()
@click.option("--minutes", default=3.0, show_default=True, help="Of load under faults, for each seed.")
@click.option(
    "--seed", default=1, show_default=True, help="The first seed; the same seed repeats the same faults."
)
@click.option("--seeds", default=1, show_default=True, help="How many seeds, one after the other.")
@click.option("--every", default=5.0, show_default=True, help="Seconds between two faults.")
@click.option("--rate", default=230.0, show_default=True, help="Executions a second to ask for.")
@click.option("--scenario", "scenarios", multiple=True, type=click.Choice([*SCENARIOS, "all"]))
@click.option(
    "--out",
    default=RESULTS,
    show_default="docs/reliability",
    type=click.Path(path_type=Path, file_okay=False),
)
@click.option("--again", is_flag=True, help="Run what has a result already, too.")
@click.option(
    "--report", "only_report", is_flag=True, help="Only write docs/reliability.md from the results."
)
def main(
    minutes: float,
    seed: int,
    seeds: int,
    every: float,
    rate: float,
    scenarios: tuple[str, ...],
    out: Path,
    again: bool,
    only_report: bool,
) -> None:
    """Run jobsched under load while faults strike it, and account for every execution.

    Without --scenario: seeds of random faults. Each leaves OUT/seed-N.json and, in a folder beside it, the
    timeline, all logs and all calls; one that has a result is not run again, so that an interrupted series goes
    on. Exit code 1 if anything was lost, sent twice without a reason, in a wrong state, late, stuck or left over.
    """
    out.mkdir(parents=True, exist_ok=True)
    # As Ctrl-C does, and unlike the default, it ends what was started: servers, workers, targets.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if only_report:
        report.write(out)
        return
    wanted = list(SCENARIOS) if "all" in scenarios else list(dict.fromkeys(scenarios))
    if wanted:
        passed = [_scenario(name, out, again) for name in wanted]
    else:
        passed = [_seed(n, minutes * 60, every, rate, out, again) for n in range(seed, seed + seeds)]
    if out == RESULTS:
        report.write(out)
    sys.exit(0 if all(passed) else 1)


def _seed(seed: int, seconds: float, every: float, rate: float, out: Path, again: bool) -> bool:
    path = out / f"seed-{seed:02}.json"
    if path.exists() and not again:
        told = json.loads(path.read_text())
        print(f"seed {seed}: has a result ({'passed' if told['passed'] else 'FAILED'}), not run again")
        return bool(told["passed"])
    print(f"seed {seed}: {seconds:g} s of load, a fault every {every:g} s …", flush=True)
    result = run_seed(seed, seconds, path.with_suffix(""), every=every, rate=rate)
    told = result.as_json()
    path.write_text(json.dumps(told, indent=1) + "\n")
    print(report.of_seed(told), flush=True)
    return result.passed


def _scenario(name: str, out: Path, again: bool) -> bool:
    path = out / f"{name}.json"
    if path.exists() and not again:
        told: dict[str, Any] = json.loads(path.read_text())
        print(f"{name}: has a result ({'passed' if told['passed'] else 'FAILED'}), not run again")
        return bool(told["passed"])
    print(f"{name}: {SCENARIOS[name].shows} …", flush=True)
    began = time.monotonic()
    told = SCENARIOS[name].run()
    told |= {"seconds": round(time.monotonic() - began, 1), "machine": machine()}
    path.write_text(json.dumps(told, indent=1) + "\n")
    print(report.of_scenario(name, told), flush=True)
    return bool(told["passed"])


main(prog_name="scripts/chaos")
