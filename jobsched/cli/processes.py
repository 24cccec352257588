"""The commands that are the processes themselves. Each reads the settings, flags first, and hands over."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobsched.cli.local import settings_or_local

if TYPE_CHECKING:
    from jobsched.config import Settings

_HOST = click.option("--host", metavar="HOST", help="Address to listen on.")
_PORT = click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port to listen on (8080)."
)
_CONCURRENCY = click.option("--concurrency", type=int, metavar="N", help="Calls in flight at once (100).")


@click.command(short_help="Run everything on this machine.")
@_HOST
@_PORT
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where to keep all data.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, metavar="N", help="Worker processes (1).")
@_CONCURRENCY
def up(
    host: str | None, port: int | None, data_dir: Path | None, workers: int, concurrency: int | None
) -> int:
    """Run everything on this machine: API, poller, workers, and the databases that are not given.

    Listens on 127.0.0.1:8080 unless told otherwise. Ctrl-C stops all of it, losing nothing.
    """
    settings = _settings(host=host, port=port, data_dir=data_dir, concurrency=concurrency)
    from jobsched import wiring

    return wiring.run_up(
        settings,
        host=settings.host or "127.0.0.1",
        port=settings.port,
        data_dir=settings.data_dir,
        workers=workers,
        concurrency=concurrency,
    )


@click.command()
@_HOST
@_PORT
def api(host: str | None, port: int | None) -> int:
    """Run the HTTP API."""
    settings = _settings(host=host, port=port)
    from jobsched import wiring

    return wiring.run_api(settings)


@click.command()
def poller() -> int:
    """Run the poller, which turns what is due into executions."""
    settings = _settings()
    from jobsched import wiring

    return wiring.run_poller(settings)


@click.command()
@click.option("--pool", "pools", multiple=True, metavar="POOL", help="Serve this pool. May be repeated.")
@_CONCURRENCY
@click.option("--name", metavar="NAME", help="A name for this worker, shown in statistics.")
def worker(pools: tuple[str, ...], concurrency: int | None, name: str | None) -> int:
    """Run a worker, which delivers the callbacks."""
    settings = _settings(pools=pools or None, concurrency=concurrency)
    from jobsched import wiring

    return wiring.run_worker(settings, name)


@click.command()
@click.option("--restored", is_flag=True, help="This database was put back from a copy of its files.")
def migrate(restored: bool) -> int:
    """Bring the database's schema up to date."""
    settings = _settings()
    from jobsched import wiring

    return wiring.run_migrate(settings, restored=restored)


@click.command()
@click.option("--fix", is_flag=True, help="Mend what is safe to mend, and say what was done.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON document.")
def doctor(fix: bool, as_json: bool) -> int:
    """Check servers, processes, queue and history, and say what is wrong.

    One line a check: ok, info, WARN or FAIL. Watches the processes for up to 5 s. Exits 1 on WARN or FAIL.
    """
    settings = settings_or_local()
    from jobsched import wiring

    return wiring.run_doctor(settings, fix=fix, as_json=as_json)


COMMANDS = (up, api, poller, worker, migrate, doctor)


def _settings(**flags: Any) -> "Settings":
    from jobsched.config import load_settings

    return load_settings(**flags)
