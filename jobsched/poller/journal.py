"""The log of single executions as a poller sees them: which ids it has queued, at debug."""

from collections.abc import Sequence

from jobsched.log import enabled, get_logger

#: Ids that one line names at most.
MOST_IDS = 200

log = get_logger()


def log_ids(event: str, queued: Sequence[tuple[str, int]]) -> None:
    """Say which executions are queued now, as (queue, id); ``event`` says by which move."""
    if enabled("debug"):
        for start in range(0, len(queued), MOST_IDS):
            log.debug(event, execution_ids=[i for _queue, i in queued[start : start + MOST_IDS]])
