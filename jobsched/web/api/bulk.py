"""/api/v1/jobs/bulk"""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from flask import Response, request

from jobsched.domain.bulk import MAX_BULK_BYTES, MAX_JOBS, BulkReader, NotAtOnce
from jobsched.domain.quick import NewJob
from jobsched.domain.validation import MAX_FAULTS
from jobsched.errors import Fault, InvalidInput
from jobsched.web import schemas_jobs, serialize
from jobsched.web.api.jobs import TAG
from jobsched.web.auth import principal
from jobsched.web.body import JSON, NDJSON, check_type, read_bytes, read_chunks
from jobsched.web.errors import RequestRefused
from jobsched.web.items import Item, array_items, line_items, strict_item, strict_line
from jobsched.web.params import BulkQuery
from jobsched.web.problem import BULK_PATH
from jobsched.web.routing import Api
from jobsched.web.services import Services

_TYPES: Final = (JSON, NDJSON)

#: Bodies larger than this, in bytes, are written as they are read ...
_SMALL: Final = 64 * 1024
#: ... if they are no larger than this, and so can be held meanwhile.
_HELD: Final = 16 * 1024 * 1024
#: Each job has it, and little else.
_EACH: Final = b'"api"'


def register(api: Api, services: Services) -> None:
    """Add the route of bulks."""

    @api.route(
        "POST",
        BULK_PATH,
        tag=TAG,
        role="write",
        answers={201: schemas_jobs.BulkCreated, 200: schemas_jobs.BulkCreated},
        query=BulkQuery,
        body=schemas_jobs.JobList,
        ndjson=True,
        max_body=MAX_BULK_BYTES,
    )
    def create_jobs(query: BulkQuery) -> Response:
        """Create many jobs.

        Up to 10,000 in a JSON array or as NDJSON, 64 MiB together. All or none: 201 with the ids in the order
        given, or 422 with pointers such as `/71/priority`. With `partial=true` the good ones are created, and 200
        names the others. A key that exists, or stands twice, is a fault of its item.
        """
        check_type(_TYPES)
        project, strictly = principal().project_id, strict_item if request.mimetype == JSON else strict_line
        reader, created = BulkReader(services.check_target, strictly), None
        if raw := _in_hand():
            with suppress(NotAtOnce):
                jobs = _good_jobs(reader, partial=query.partial)
                created = services.bulk.create_as_read(project, jobs, min(raw.count(_EACH), MAX_JOBS))
        if created is None:
            reader = BulkReader(services.check_target, strictly)
            _read_all(reader, partial=query.partial)
            created = services.bulk.create(project, reader, partial=query.partial)
        if created is None:
            raise InvalidInput(reader.pointed_faults(), "The jobs are not valid; none was created.")
        if created.due_soon:
            services.wake()
        answer = {"created": len(created.ids), "ids": created.ids, "errors": _errors(reader)}
        return serialize.answer(answer, 200 if query.partial else 201)


def _in_hand() -> bytes | None:
    """The whole body, where it is worth while to write jobs as they are read: a transaction waits for no caller."""
    length = request.content_length
    return read_bytes(MAX_BULK_BYTES) if length is not None and _SMALL < length <= _HELD else None


def _items(chunks: Iterator[bytes], reader: BulkReader) -> Iterator[Item]:
    """All items; what speaks against them together is raised."""
    for item in array_items(chunks) if request.mimetype == JSON else line_items(chunks):
        if reader.count == MAX_JOBS:
            raise RequestRefused(413, "too_many_jobs", f"A bulk takes at most {MAX_JOBS} jobs; send several.")
        yield item
    if not reader.count:
        raise InvalidInput([Fault("", "is empty; send at least one job")])


def _good_jobs(reader: BulkReader, *, partial: bool) -> Iterator[NewJob]:
    """The good jobs, as they are read. Without ``partial`` a fault raises NotAtOnce."""
    read = reader.read
    for value, text, fault in _items(read_chunks(MAX_BULK_BYTES), reader):
        job = read(value, text, fault)
        if job is not None:
            yield job
        elif not partial:
            raise NotAtOnce


def _read_all(reader: BulkReader, *, partial: bool) -> None:
    """Read all items; without ``partial`` only as long as there is room to list more faults."""
    chunks = read_chunks(MAX_BULK_BYTES)
    try:
        for item in _items(chunks, reader):
            reader.add(item.value, item.text, item.fault)
            if reader.faults >= MAX_FAULTS and not partial:
                return
    finally:
        # Who is still sending would take an early answer for a broken connection.
        deque(chunks, maxlen=0)


def _errors(reader: BulkReader) -> list[dict[str, object]]:
    return [
        {
            "index": item.index,
            "errors": [{"pointer": fault.pointer, "message": fault.message} for fault in item.faults],
        }
        for item in reader.faulty
    ]
