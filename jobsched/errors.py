"""Every error of jobsched, in one tree.

    JobschedError
    ├── ConfigError              the environment or a flag is wrong; processes exit 2
    │   └── SecretsUnreadable    JOBSCHED_SECRET_KEY is not the one with which stored secrets were encrypted
    ├── InvalidInput             what a user sent is refused; carries every fault found
    │   └── InvalidSchedule      a schedule or time zone that cannot be understood or never matches
    ├── NotFound                 no such job, execution, dead letter or key
    ├── Conflict                 the present state forbids it (a key that exists, a final execution)
    ├── PreconditionFailed       If-Match names a version that is no longer the present one
    ├── Unauthorized             no key, or one that is not known
    ├── Forbidden                the key's role is too small
    ├── DatabaseError
    │   ├── DatabaseUnavailable  the server cannot be reached or refuses work; try again
    │   │   └── DatabaseContended    a deadlock or the like, decided for somebody else; try again at once
    │   ├── DatabaseRefused      the server refuses this very data; trying again cannot help
    │   └── SchemaMismatch       the schema is not the one this code was written for
    ├── QueueUnavailable         Redis cannot be reached or refuses work; Postgres still holds the truth
    └── EmbeddedServerError      an embedded Postgres or Valkey did not start

Errors of libraries are converted where they enter and keep their cause. ``code`` is stable: it names
the error in logs and in problem documents, whatever the wording becomes.
"""

from collections.abc import Iterable
from dataclasses import dataclass


class JobschedError(Exception):
    """Base of all errors that jobsched raises on purpose."""

    code = "internal"


class ConfigError(JobschedError):
    """A setting is missing, misspelt or impossible. The message names it and says what to do."""

    code = "config"


class SecretsUnreadable(ConfigError):
    """Stored secrets are encrypted, and not with this process's JOBSCHED_SECRET_KEY. Names no secret."""

    code = "secrets_unreadable"


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an input.

    ``pointer`` is an RFC 6901 JSON pointer into the body (``/schedule``), or a parameter's name when
    ``parameter`` is true.
    """

    pointer: str
    message: str
    parameter: bool = False


class InvalidInput(JobschedError):
    """What the caller sent is refused. ``faults`` names everything that is wrong, not only the first."""

    code = "invalid_input"

    def __init__(self, faults: Iterable[Fault], message: str = "The request is not valid.") -> None:
        self.faults = tuple(faults)
        super().__init__(message)

    def __str__(self) -> str:
        details = "; ".join(f"{fault.pointer}: {fault.message}" for fault in self.faults)
        return f"{self.args[0]} {details}".strip()


class InvalidSchedule(InvalidInput):
    """A schedule or time zone is refused. ``reason`` is one sentence for the user."""

    code = "invalid_schedule"

    def __init__(self, reason: str, pointer: str = "/schedule") -> None:
        self.reason = reason
        super().__init__([Fault(pointer, reason)], "The schedule is not valid.")


class NotFound(JobschedError):
    """The thing asked for does not exist, or no longer."""

    code = "not_found"


class Conflict(JobschedError):
    """The present state of the thing forbids what was asked."""

    code = "conflict"


class PreconditionFailed(JobschedError):
    """The caller's If-Match names another version than the present one: somebody edited meanwhile."""

    code = "precondition_failed"


class Unauthorized(JobschedError):
    """No API key was sent, or it is not a known, valid one."""

    code = "unauthorized"


class Forbidden(JobschedError):
    """The API key is valid, but its role does not allow this."""

    code = "forbidden"


class DatabaseError(JobschedError):
    """Something between us and Postgres."""

    code = "database"


class DatabaseUnavailable(DatabaseError):
    """Postgres cannot be reached, is shutting down, is read-only or ran out of room. Trying again may help."""

    code = "database_unavailable"


class DatabaseContended(DatabaseUnavailable):
    """Postgres undid this transaction in favour of another (a deadlock). The same again succeeds as a rule."""


class DatabaseRefused(DatabaseError):
    """Postgres refuses the data of this statement. Trying the same again cannot help."""

    code = "database_refused"


class SchemaMismatch(DatabaseError):
    """The database's schema is older or newer than this code. The message says what to run."""

    code = "schema_mismatch"


class QueueUnavailable(JobschedError):
    """Redis cannot be reached, timed out or refuses writes. Nothing is lost: Postgres holds the truth."""

    code = "queue_unavailable"


class EmbeddedServerError(JobschedError):
    """An embedded server could not be installed, started or stopped. The message names its log."""

    code = "embedded_server"
