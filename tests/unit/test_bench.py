"""What the bench counts with: bars, ratios, tables, the plan of capacity. Measuring itself is left to scripts/bench."""

import json
import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from bench import deliver, plots, process, reads, report, run, watch
from bench.capacity import LOADS, Load, Need, need
from bench.markdown import listed, table
from bench.part import Bar, Options

RESULTS = Path(__file__).parents[2] / "docs" / "performance"


def one_side(label: str, speed: float, cpu: float) -> dict[str, object]:
    return {
        "label": label,
        "settings": "s",
        "versions": {"lib": "1.0"},
        "concurrency": 8,
        "tried": {"8": speed},
        "per_second": {"median": speed, "low": speed, "high": speed},
        "cpu_us": {"worker": cpu, "Valkey": 2.0},
        "worker_cpu_us": {"median": cpu, "low": cpu, "high": cpu},
        "worker_peak_pss_mb": {"median": 50.0, "low": 50.0, "high": 50.0},
    }


FIGURES = {
    "window_seconds": 20.0,
    "rounds": 3,
    "sides": {
        "jobsched": one_side("jobsched, one process", 9000.0, 90.0),
        "arq": one_side("arq", 900.0, 900.0),
    },
    "ratios": {"arq": {"median": 10.0, "low": 9.0, "high": 11.0}},
    "disk": {"job_bytes": 1000, "history_row_bytes": 500},
}


def test_a_bar_is_met_up_to_the_bar_itself() -> None:
    assert [Bar("x", value, 2.0, "s", "at least").met for value in (1.9, 2.0, 2.1)] == [False, True, True]
    assert [Bar("x", value, 2.0, "s", "at most").met for value in (1.9, 2.0, 2.1)] == [True, True, False]


def test_only_sides_that_were_measured_are_judged() -> None:
    assert deliver.bars(FIGURES) == [
        Bar("callbacks/s over arq", 10.0, 2.5, "×", "at least"),
        Bar("CPU of the worker per callback", 90.0, 100.0, "µs", "at most"),
    ]


def test_a_ratio_is_taken_within_its_round() -> None:
    rounds = {
        "jobsched": [{"per_second": 100.0}, {"per_second": 40.0}, {"per_second": 90.0}],
        "arq": [{"per_second": 50.0}, {"per_second": 20.0}, {"per_second": 30.0}],
    }
    assert deliver.ratios(rounds) == {"arq": {"median": 2.0, "low": 2.0, "high": 3.0}}


def test_a_side_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no such side: nobody; there are jobsched, jobsched-2, bullmq"):
        deliver.measure(Options(quick=True, only=("nobody",)))


def test_every_bar_is_about_a_side() -> None:
    assert {deliver.ONE, *deliver.RATIOS} <= {side.name for side in deliver.SIDES}


def test_a_part_that_fails_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run.run("deliver", Options(only=("nobody",)), tmp_path / "out", tmp_path / "log")
    assert not result.passed
    assert result.failure is not None
    assert result.failure.startswith("ValueError: no such side: nobody")
    assert result.log is not None
    assert "Traceback" in result.log.read_text()
    assert list(tmp_path.glob("out/*")) == []


def test_a_part_without_a_module_says_so(tmp_path: Path) -> None:
    result = run.run("nothing", Options(), tmp_path, tmp_path)
    assert result.failure == "LookupError: bench.nothing is missing"


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    page = "a\n<!-- x: made by scripts/bench --report -->\nold\n<!-- end of x -->\nb\n"
    once = report.between(page, "x", "new\n")
    assert once == "a\n<!-- x: made by scripts/bench --report -->\n\nnew\n\n<!-- end of x -->\nb\n"
    assert report.between(once, "x", "new\n") == once
    with pytest.raises(ValueError, match="no marks"):
        report.between(page, "y", "new\n")


def test_the_page_has_a_place_for_every_part() -> None:
    page = RESULTS.with_suffix(".md").read_text()
    for name in ("bars", *run.NAMES, "capacity"):
        assert page.count(report.BEGIN.format(name=name)) == page.count(report.END.format(name=name)) == 1


def test_published_results_are_whole() -> None:
    told = report.read(RESULTS)
    assert [name for name, one in told.items() if one["quick"] or one["part"] != name] == []


def test_results_become_a_page(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "performance.md"
    page.parent.mkdir()
    page.write_text(RESULTS.with_suffix(".md").read_text())
    readme = tmp_path / "README.md"
    readme.write_text((RESULTS.parents[1] / "README.md").read_text())
    results = tmp_path / "docs" / "performance"
    results.mkdir()
    (results / "deliver-speed.svg").write_text("<svg/>")
    machine = dict.fromkeys(
        (
            "date",
            "cores",
            "cpu",
            "memory_gb",
            "kernel",
            "python",
            "postgres",
            "valkey",
            "libcurl",
            "jobsched",
        ),
        "?",
    )
    bar = {"what": "w", "value": 12345.6, "bar": 2.5, "unit": "x", "sense": "at least", "met": True}
    told = {"part": "deliver", "title": "Delivering", "quick": False, "machine": machine, "bars": [bar]}
    (results / "deliver.json").write_text(json.dumps(told | {"figures": FIGURES}))
    report.write(results)
    text = page.read_text()
    assert "| [deliver](#deliver) | w | at least 2.5 x | 12,346 x | yes |" in text
    assert "| arq | 8 | 900 | 10 (9 to 11) | 50 |" in text
    assert "![Delivering callbacks: deliver-speed](performance/deliver-speed.svg)" in text
    assert "| 1,000 | 1,000,000 | 14 | 2 (200 seats) |" in text
    assert "| callbacks a second from one worker process, each recorded in Postgres | 9,000 (10 × arq) |" in (
        readme.read_text()
    )


def test_figures_without_words_are_listed_by_their_path() -> None:
    figures = {
        "a": {"b": 1234.5, "c": [1, 2]},
        "d": {"median": 2.0, "low": 1.0, "high": 3.0},
        "e": list(range(99)),
    }
    assert listed(figures) == table(
        ["figure", "value"],
        [["`a.b`", "1,234"], ["`a.c`", "1, 2"], ["`d`", "2 (1 to 3)"], ["`e`", "99 values"]],
    )


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert table(["a"], [["b|c"]]) == "| a |\n| --- |\n| b\\|c |\n"


def test_needs_follow_from_what_was_measured() -> None:
    measured = {"worker": 4000.0, "poller": 20_000.0, "job_bytes": 1000.0, "row_bytes": 500.0}
    assert need(Load(10_000, 1_000_000, 10), **measured) == Need(
        workers=5,
        seats=2000,
        pollers=2,
        connections=5 * 4 + 2 * 6 + 12,
        disk_bytes=1e9 + 10_000 * 864_000 * 500,
    )
    assert need(Load(1, 10, 1), **measured).workers == 1
    assert [load.per_second for load in LOADS] == sorted(load.per_second for load in LOADS)


def test_a_tree_has_its_children_and_what_they_cost() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with Popen([sys.executable, "-c", script], stdin=PIPE, stdout=PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        family = process.tree(parent.pid)
        assert family[0] == parent.pid
        assert len(family) == 2
        assert process.pss_bytes(family) > process.pss_bytes(family[:1]) > 1_000_000
        assert process.cpu_of(family) > 0
        parent.communicate(b"\n")
    assert process.tree(parent.pid) == []
    assert process.cpu_seconds(parent.pid) == process.pss_bytes([parent.pid]) == 0
    assert os.getpid() in process.tree(os.getpid())


def test_what_a_process_computes_is_told_apart_from_waiting_for_a_core() -> None:
    before, _ = process.scheduled([os.getpid()])
    assert sum(range(300_000)) > 0
    after, waited = process.scheduled([os.getpid()])
    assert 0 < after - before < 10
    assert waited >= 0
    assert process.scheduled([2**22 + 1]) == (0.0, 0.0)


def test_the_slowest_twentieth_is_split() -> None:
    usual = [reads._Taken(5.0, 3.0, 1.0, 0.5)] * 38
    slow = [reads._Taken(20.0, 4.0, 2.0, 10.0), reads._Taken(30.0, 4.0, 4.0, 24.0)]
    assert reads._of_slowest(usual + slow) == {
        "whole_ms": 25.0,
        "api_ms": 4.0,
        "postgres_ms": 3.0,
        "waiting_ms": 17.0,
        "rest_ms": 1.0,
    }


def test_the_largest_of_many_looks_is_kept_and_a_wait_ends() -> None:
    sizes = iter([3.0, 9.0, 4.0])
    seen = []

    def look() -> dict[str, float]:
        seen.append(next(sizes, 1.0))
        return {"size": seen[-1]}

    with watch.largest(look, 0.001) as most:
        watch.until(lambda: len(seen) > 2, 10, "too few looks")
    assert most == {"size": 9.0}
    with pytest.raises(RuntimeError, match=r"never within 0\.01 s"):
        watch.until(lambda: False, 0.01, "never")


def test_plots_are_the_same_for_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        bars = plots.horizontal_bars(folder / "a.svg", "Title", "calls/s", [("one", 2.0, 1.0, 3.0)], mark=2.5)
        parts = plots.stacked_bars(
            folder / "b.svg", "Title", "µs", [("one", {"x": 1.0, "y": 2.0}), ("two", {"y": 3.0})]
        )
        lines = plots.quantiles(
            folder / "c.svg", "Title", "ms", {"one": [float(n) for n in range(1, 5000)]}, mark=50
        )
        drawn.append([path.read_text() for path in (bars, parts, lines)])
    assert drawn[0] == drawn[1]
    assert all(
        "Title" in svg and not any(line.endswith(" ") for line in svg.splitlines()) for svg in drawn[0]
    )
