"""Commands that talk to the servers themselves find those of a ``jobsched up`` on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobsched.config import Settings


def settings_or_local() -> "Settings":
    """The settings; what they lack is read from the data folder of a local ``jobsched up``."""
    from jobsched.config import default_data_dir, load_settings

    settings = load_settings()
    data_dir = settings.data_dir or default_data_dir()
    # The key in the folder is that of the database in the folder.
    its_key = settings.database_url is None and settings.secret_key is None
    return load_settings(
        database_url=settings.database_url or _written(data_dir / "database-url"),
        redis_url=settings.redis_url or _written(data_dir / "redis-url"),
        secret_key=_written(data_dir / "secret-key") if its_key else None,
    )


def _written(path: Path) -> str | None:
    """What ``jobsched up`` wrote there, or None: then the settings say what is missing."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
