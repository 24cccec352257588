"""Many jobs at once: each by the rules of a single one, as jobsched/domain/quick.py asks them."""

from dataclasses import dataclass
from typing import Any, Final

from jobsched.domain.quick import NewJob, QuickReader, Strictly
from jobsched.domain.spec import CheckTarget
from jobsched.domain.validation import MAX_FAULTS
from jobsched.errors import Fault, InvalidInput

MAX_JOBS: Final = 10_000
MAX_BULK_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ItemFaults:
    """What is wrong with the item at ``index``; pointers are relative to the item."""

    index: int
    faults: tuple[Fault, ...]


class NotAtOnce(Exception):
    """Jobs cannot be written as they are read: one is faulty, or its key exists. All are to be read first."""


class BulkReader:
    """Reads the items of one bulk, one after another, and keeps count of what is wrong.

    ``jobs`` are the good ones that were kept, with their indexes in order, ``faulty`` the others. ``faulty`` takes
    a fault of every bad item; beyond MAX_FAULTS in all, an item's further ones are left out.

    ``strictly`` as for QuickReader.
    """

    def __init__(self, check_target: CheckTarget, strictly: Strictly | None = None) -> None:
        self.jobs: list[NewJob] = []
        self.indexes: list[int] = []
        self.faulty: list[ItemFaults] = []
        self.count = 0
        self.faults = 0
        self._reader = QuickReader(check_target, strictly)
        self._keys: dict[str, int] = {}

    def add(self, document: Any, text: str, fault: str | None = None) -> None:
        """``read``, and keep the job."""
        index = self.count
        job = self.read(document, text, fault)
        if job is not None:
            self.jobs.append(job)
            self.indexes.append(index)

    def read(self, document: Any, text: str, fault: str | None = None) -> NewJob | None:
        """The next item: its value, the JSON text of it, and why it is no JSON, if it is not. None: it is faulty."""
        index, self.count = self.count, self.count + 1
        if fault is not None:
            self._refuse(index, [Fault("", fault)])
            return None
        try:
            job = self._reader.read(document, text, suggest=self.faults < MAX_FAULTS)
        except InvalidInput as error:
            self._refuse(index, error.faults)
            return None
        if job.key is not None and (first := self._keys.setdefault(job.key, index)) != index:
            self._refuse(index, [Fault("/key", f"is the key of item {first} as well")])
            return None
        return job

    def refuse_keys(self, taken: frozenset[str]) -> None:
        """Make faults of the jobs whose keys exist already."""
        if not taken:
            return
        kept = []
        for index, job in zip(self.indexes, self.jobs, strict=True):
            if job.key is not None and job.key in taken:
                self._refuse(index, [Fault("/key", f"a job with the key {job.key!r} exists already")])
            else:
                kept.append((index, job))
        self.indexes, self.jobs = [index for index, _ in kept], [job for _, job in kept]
        self.faulty.sort(key=lambda item: item.index)

    def pointed_faults(self) -> list[Fault]:
        """The faults with their places in the whole body: ``/71/priority``."""
        return [
            Fault(f"/{item.index}{fault.pointer}", fault.message)
            for item in self.faulty
            for fault in item.faults
        ]

    def _refuse(self, index: int, faults: "list[Fault] | tuple[Fault, ...]") -> None:
        listed = tuple(faults[: max(1, MAX_FAULTS - self.faults)])
        self.faults += len(listed)
        self.faulty.append(ItemFaults(index, listed))
