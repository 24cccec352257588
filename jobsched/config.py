"""Configuration: the environment, read once and validated, as one frozen object.

The only module that reads ``os.environ``. Unknown ``JOBSCHED_*`` names are refused with a suggestion, so
that a typo cannot silently mean the default. Every name also exists as ``NAME_FILE``, which reads the
value from a file (Docker and Kubernetes secrets). docs/configuration.md lists each setting; a test holds
the two together.
"""

import difflib
import ipaddress
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic.functional_validators import AfterValidator

from jobsched.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_POOL_NAME = re.compile(r"[a-z0-9_-]{1,50}")

_RQ_KEY_PREFIX = re.compile(r"[A-Za-z0-9_.:{}-]+")

# Kubernetes puts these into every pod for a Service called jobsched; they are not ours.
_FROM_KUBERNETES = re.compile(r"JOBSCHED_(SERVICE_HOST|SERVICE_PORT\w*|PORT_\w+)")

# Read by the client library and the command line, not by the processes.
_OF_THE_CLIENT = frozenset({"JOBSCHED_URL", "JOBSCHED_API_KEY"})


def _commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _networks(value: Any) -> Any:
    try:
        return tuple(ipaddress.ip_network(part) for part in _commas(value))
    except ValueError as error:
        raise ValueError(
            f"{error}; write CIDRs separated by commas, such as 10.0.0.0/8,192.168.1.7/32"
        ) from None


def _pools(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _POOL_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a pool name (a-z, 0-9, _ and -, at most 50)")
    if not names:
        raise ValueError("at least one pool is needed")
    return names


def _postgres_url(value: str) -> str:
    if not re.match(r"postgres(ql)?://", value):
        raise ValueError("must start with postgres:// or postgresql://")
    return re.sub(r"^postgres://", "postgresql://", value)


def _redis_url(value: str) -> str:
    if not re.match(r"(rediss?|unix)://", value):
        raise ValueError("must start with redis://, rediss:// or unix://")
    return value


def _port(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("tcp://"):
        raise ValueError(
            f"is {value!r}: Kubernetes sets it so for a Service named jobsched; "
            "set JOBSCHED_PORT in the pod, or enableServiceLinks: false"
        )
    return value


class Settings(BaseModel):
    """All settings of the processes. Field names are the environment's, in lower case and without the prefix."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: Annotated[str | None, AfterValidator(lambda v: v and _postgres_url(v))] = Field(
        None, repr=False
    )
    redis_url: Annotated[str | None, AfterValidator(lambda v: v and _redis_url(v))] = Field(None, repr=False)
    host: str | None = None
    port: Annotated[int, BeforeValidator(_port), Field(ge=0, le=65535)] = 8080
    data_dir: Path | None = None
    poll_interval: float = Field(5.0, ge=0.05, le=60)
    concurrency: int = Field(100, ge=1, le=20_000)
    pools: Annotated[tuple[str, ...], BeforeValidator(_commas), AfterValidator(_pools)] = ("default",)
    shutdown_grace: float = Field(25.0, ge=0, le=3600)
    queue_high_water: int = Field(10_000, ge=1, le=10_000_000)
    history_days: int = Field(30, ge=1, le=3650)
    response_capture_bytes: int = Field(8192, ge=0, le=1_048_576)
    allow_targets: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = ()
    proxy: str | None = Field(None, repr=False)
    ca_bundle: Path | None = None
    redis_tls_verify: bool = True
    secret_key: SecretStr | None = Field(None, min_length=32)
    admin_key: SecretStr | None = Field(None, min_length=20)
    api_threads: int = Field(8, ge=1, le=256)
    db_pool: int = Field(10, ge=1, le=500)
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_port: int | None = Field(None, ge=0, le=65535)
    failpoint: str | None = None

    def need_database_url(self) -> str:
        """The address of Postgres, or ConfigError where none was given."""
        if self.database_url is None:
            raise ConfigError(
                "DATABASE_URL is not set. Give the address of a Postgres server, such as "
                "postgresql://user:password@host:5432/jobsched, or run `jobsched up`, which brings its own."
            )
        return self.database_url

    def need_redis_url(self) -> str:
        """The address of Redis, or ConfigError where none was given."""
        if self.redis_url is None:
            raise ConfigError(
                "REDIS_URL is not set. Give the address of a Redis or Valkey server, such as "
                "redis://host:6379/0, or run `jobsched up`, which brings its own."
            )
        return self.redis_url


def environment_name(field: str) -> str:
    """The environment variable of a field of Settings: ``poll_interval`` → ``JOBSCHED_POLL_INTERVAL``."""
    return field.upper() if field in {"database_url", "redis_url"} else f"JOBSCHED_{field.upper()}"


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the settings from ``environ`` (the process's own by default); flags come as ``overrides``.

    An override of None means that the flag was not given. Raises ConfigError, which names every setting
    that is wrong and never shows a value that may be a secret.
    """
    environ = os.environ if environ is None else environ
    names = {environment_name(field): field for field in Settings.model_fields}
    _refuse_unknown(environ, names)
    values: dict[str, Any] = {}
    for name, field in names.items():
        value = _value(environ, name)
        if value is None and field == "port":
            value = _value(environ, "PORT")
        if value is not None:
            values[field] = value
    values.update({field: value for field, value in overrides.items() if value is not None})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = [
            f"{environment_name(str(fault['loc'][0]))}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigError("; ".join(lines)) from None


def client_setting(name: Literal["JOBSCHED_URL", "JOBSCHED_API_KEY"]) -> str | None:
    """What the command line passes to the client: where the API is, and the key."""
    return _value(os.environ, name)


def rq_key_prefix() -> str:
    """What stands before all of RQ's keys in Redis: RQ_KEY_PREFIX, else ``rq``.

    As rq.defaults reads it, which cannot be imported without all of RQ, at 4 MB a process. Raises ConfigError for
    what RQ refuses.
    """
    prefix = os.environ.get("RQ_KEY_PREFIX", "rq")
    if not _RQ_KEY_PREFIX.fullmatch(prefix):
        raise ConfigError("RQ_KEY_PREFIX: only letters, digits and _ . : - { } are allowed.")
    return prefix


def default_data_dir() -> Path:
    """Where ``jobsched up`` keeps its data: the platform's user data folder; for root /var/lib/jobsched."""
    if os.geteuid() == 0:
        return Path("/var/lib/jobsched")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "jobsched"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "jobsched"


def child_environment(**settings: str) -> dict[str, str]:
    """The environment for a child process: ours, with ``settings`` (by variable name) on top."""
    return {**os.environ, **settings}


def generate_secret() -> str:
    """A fresh secret of 256 bits, URL-safe."""
    return secrets.token_urlsafe(32)


def _refuse_unknown(environ: Mapping[str, str], names: Mapping[str, str]) -> None:
    known = {*names, *_OF_THE_CLIENT}
    for name in environ:
        bare = name.removesuffix("_FILE")
        if not name.startswith("JOBSCHED_") or bare in known or _FROM_KUBERNETES.fullmatch(name):
            continue
        near = difflib.get_close_matches(bare, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "docs/configuration.md lists all settings."
        raise ConfigError(f"{name} is not a setting of jobsched. {hint}")


def _value(environ: Mapping[str, str], name: str) -> str | None:
    direct, path = environ.get(name), environ.get(f"{name}_FILE")
    if direct and path:
        raise ConfigError(f"{name} and {name}_FILE are both set; keep one.")
    if path:
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ConfigError(f"{name}_FILE: cannot read {path}: {reason}.") from error
    return direct or None
