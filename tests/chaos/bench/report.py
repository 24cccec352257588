"""Turns result files into words: for the terminal, and docs/reliability.md."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.chaos.bench.scenarios import SCENARIOS

#: What the accountant looks for, in the order of its weight.
FINDINGS = ("lost", "duplicates", "wrong_state", "out_of_time", "stuck", "leaked")

_BEGIN = "<!-- figures: made by scripts/chaos --report -->"
_END = "<!-- end of figures -->"


def of_seed(told: dict[str, Any]) -> str:
    """A seed's result for a terminal."""
    verdict, figures = told["verdict"], told["verdict"]["figures"]
    effective = sum(strike["took_effect"] for strike in told["strikes"])
    lines = [
        f"seed {told['seed']}: {'passed' if told['passed'] else 'FAILED'}: "
        f"{figures.get('executions', 0):,.0f} executions, {figures.get('completed_per_second', 0):.0f}/s, "
        f"{effective} of {len(told['strikes'])} faults took effect, "
        f"{figures.get('duplicates_explained', 0):.0f} explained duplicates, "
        f"drained after {_seconds(told['drained_after'])}"
    ]
    for name in FINDINGS:
        lines += [f"  {name.replace('_', ' ')}: {one}" for one in verdict[name]]
    lines += [f"  the bench: {one}" for one in told["broken"]]
    return "\n".join(lines)


def of_scenario(name: str, told: dict[str, Any]) -> str:
    """A scenario's result for a terminal."""
    lines = [f"{name}: {'passed' if told['passed'] else 'FAILED'} in {told['seconds']:.0f} s"]
    lines += [f"  {figure.replace('_', ' ')}: {value}" for figure, value in told.get("figures", {}).items()]
    lines += [f"  found: {one}" for one in told["findings"]]
    return "\n".join(lines)


def write(results: Path) -> None:
    """Put the figures of all results into docs/reliability.md, between its two marks."""
    page = results.with_suffix(".md")
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    page.write_text(f"{head}{_BEGIN}\n\n{figures(results)}\n{_END}{tail}", encoding="utf-8")


def figures(results: Path) -> str:
    """The tables of docs/reliability.md."""
    seeds = [json.loads(path.read_text()) for path in sorted(results.glob("seed-*.json"))]
    scenarios = {
        name: json.loads(path.read_text())
        for name in SCENARIOS
        if (path := results / f"{name}.json").exists()
    }
    parts = []
    if seeds:
        parts += [_seeds(seeds), _kinds(seeds)]
    if scenarios:
        parts.append(_scenarios(scenarios))
    return "\n".join(parts)


def _seeds(seeds: list[dict[str, Any]]) -> str:
    rows = []
    for told in seeds:
        verdict, figures = told["verdict"], told["verdict"]["figures"]
        rows.append(
            [
                str(told["seed"]),
                f"{figures['executions']:,.0f}",
                f"{figures['completed_per_second']:.0f}",
                f"{sum(strike['took_effect'] for strike in told['strikes'])}/{len(told['strikes'])}",
                f"{figures['duplicates_explained']:.0f}",
                *(str(len(verdict[name])) for name in FINDINGS),
                _seconds(told["drained_after"]),
            ]
        )
    total = [
        "all",
        f"{sum(told['verdict']['figures']['executions'] for told in seeds):,.0f}",
        f"{min(told['verdict']['figures']['completed_per_second'] for told in seeds):.0f} at least",
        "/".join(
            str(n)
            for n in (
                sum(strike["took_effect"] for told in seeds for strike in told["strikes"]),
                sum(len(told["strikes"]) for told in seeds),
            )
        ),
        f"{sum(told['verdict']['figures']['duplicates_explained'] for told in seeds):.0f}",
        *(str(sum(len(told["verdict"][name]) for told in seeds)) for name in FINDINGS),
        _seconds(max((told["drained_after"] or 0.0) for told in seeds)) + " at most",
    ]
    minutes = {told["seconds"] / 60 for told in seeds}
    machines = sorted({told["machine"] for told in seeds})
    header = [
        "seed",
        "executions",
        "a second",
        "faults that took effect",
        "explained duplicates",
        *(name.replace("_", " ") for name in FINDINGS),
        "drained after",
    ]
    return (
        f"{len(seeds)} seeds of {' or '.join(f'{m:g}' for m in sorted(minutes))} minutes, on {'; '.join(machines)}.\n\n"
        + _table(header, [*rows, total])
    )


def _kinds(seeds: list[dict[str, Any]]) -> str:
    hits: Counter[str] = Counter()
    effective: Counter[str] = Counter()
    in_flight: dict[str, list[int]] = defaultdict(list)
    for told in seeds:
        for strike in told["strikes"]:
            hits[strike["kind"]] += 1
            effective[strike["kind"]] += strike["took_effect"]
            in_flight[strike["kind"]].append(strike["in_flight"])
    rows = [
        [
            f"`{kind}`",
            str(hits[kind]),
            str(effective[kind]),
            str(sum(in_flight[kind])) if any(in_flight[kind]) else "",
        ]
        for kind in sorted(hits)
    ]
    return _table(["fault", "struck", "took effect", "calls in flight on the workers hit"], rows)


def _scenarios(scenarios: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            f"`{name}`",
            SCENARIOS[name].shows,
            "; ".join(f"{figure.replace('_', ' ')} {value}" for figure, value in told["figures"].items()),
            "yes" if told["passed"] else "**no**: " + "; ".join(told["findings"]),
        ]
        for name, told in scenarios.items()
    ]
    return _table(["scenario", "what must be seen", "figures", "seen"], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
