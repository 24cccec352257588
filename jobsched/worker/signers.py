"""What signs the callbacks of each project: its secrets, read again every few seconds."""

from collections.abc import Collection

from jobsched import clock
from jobsched.callback.request import Sign
from jobsched.callback.signing import sign
from jobsched.db.connection import Link
from jobsched.db.signing import signing_keys
from jobsched.db.vault import Vault
from jobsched.errors import DatabaseError, SecretsUnreadable
from jobsched.log import get_logger
from jobsched.runtime.outage import Outage

#: Seconds for which secrets are believed: so long may a rotation or an expiry go unnoticed.
READ_EVERY = 10.0

#: Seconds until secrets that the database did not give are asked for again.
_RETRY_AFTER = 1.0

log = get_logger()


class Signers:
    """Belongs to the thread that owns ``link``."""

    def __init__(self, link: Link, vault: Vault) -> None:
        self._link = link
        self._vault = vault
        self._known: dict[int, Sign | SecretsUnreadable] = {}
        self._read_again_at = 0.0
        self._unread = Outage("signing_secrets_postponed")

    def refresh(self, projects: Collection[int]) -> None:
        """Read the secrets of ``projects`` where they are not known or old; one statement for all of them.

        Never raises: while the database is away, what is known goes on to sign.
        """
        now = clock.monotonic()
        if now < self._read_again_at and self._known.keys() >= set(projects):
            return
        try:
            found = signing_keys(self._link, self._vault, self._known.keys() | set(projects))
        except DatabaseError as error:
            self._unread.failed(error=str(error))
            self._read_again_at = now + _RETRY_AFTER
            return
        self._unread.over()
        self._read_again_at = now + READ_EVERY
        for project, keys in found.items():
            if isinstance(keys, SecretsUnreadable):
                log.error("signing_secrets_unreadable", project=project, error=str(keys))
                self._known[project] = keys
            else:
                self._known[project] = sign(keys)

    def of(self, project: int) -> Sign:
        """What signs for ``project``, once it was refreshed. Raises SecretsUnreadable: then nothing is sent."""
        found = self._known.get(project)
        if found is None:
            raise SecretsUnreadable("The signing secrets could not be read.")
        if isinstance(found, SecretsUnreadable):
            raise found
        return found
