"""Faults by kind. Each strikes, proves that it took effect, and heals."""

from tests.chaos.bench.faults import (
    apis,
    clocks,
    pollers,
    postgres_server,
    postgres_sessions,
    valkey,
    workers,
)
from tests.chaos.bench.faults.base import Fault
from tests.chaos.bench.faults.rows import RowsPoisoned
from tests.chaos.bench.faults.schema import SchemaMigrated

__all__ = ["FAULTS", "Fault"]

FAULTS: dict[str, Fault] = {
    fault.kind: fault
    for fault in (
        *valkey.FAULTS,
        *postgres_server.FAULTS,
        *postgres_sessions.FAULTS,
        *workers.FAULTS,
        *pollers.FAULTS,
        *apis.FAULTS,
        RowsPoisoned(),
        SchemaMigrated(),
        *clocks.FAULTS,
    )
}
