"""API keys: made, listed, revoked, recognised. Only hashes are stored."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from peewee import Database

Role = Literal["admin", "write", "read"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a key of a project, and what it may do."""

    project_id: int
    key_id: int
    role: Role
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as listings show it, without its secret."""

    id: int
    project_id: int
    name: str
    role: Role
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class Keys:
    """The API keys in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, project_id: int, name: str, role: Role) -> tuple[int, str]:
        """Make a key. Returns its id and the key itself, which is shown this once. Raises InvalidInput."""
        raise NotImplementedError

    def list(self, project_id: int) -> list[KeyRecord]:
        """All keys of the project, newest first, revoked ones too."""
        raise NotImplementedError

    def revoke(self, project_id: int, key_id: int) -> None:
        """Make the key worthless, in every process within seconds. Raises NotFound."""
        raise NotImplementedError

    def authenticate(self, key: str) -> Principal | None:
        """Whose key this is; None if it is unknown or revoked."""
        raise NotImplementedError


def ensure_admin_key(database: Database, key: str, project_id: int = 1) -> bool:
    """Make ``key`` (JOBSCHED_ADMIN_KEY) an admin key of the project. True if it was not one yet."""
    raise NotImplementedError
