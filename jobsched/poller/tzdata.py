"""Which version of tzdata this process reads time zones by."""

import importlib.resources
import re
import zoneinfo
from contextlib import suppress
from importlib.resources.abc import Traversable
from pathlib import Path


def rules_version() -> str | None:
    """The version of tzdata by which this process reads time zones, such as ``2026a``; None if nothing tells.

    As zoneinfo does: the first folder of TZPATH that has zones, else the package tzdata.
    """
    sources: list[Traversable] = [Path(folder) for folder in zoneinfo.TZPATH]
    with suppress(ModuleNotFoundError):  # some distributions leave it out for their own files
        sources.append(importlib.resources.files("tzdata") / "zoneinfo")
    for source in sources:
        if (version := _version_in(source)) is not None:
            return version
        if _has_regions(source):
            return None
    return None


def _version_in(source: Traversable) -> str | None:
    for name in ("tzdata.zi", "+VERSION"):
        try:
            with (source / name).open(encoding="utf-8", errors="replace") as file:
                match = re.search(r"\b\d{4}[a-z]{1,2}\b", file.readline(200))
        except OSError:
            continue
        if match:
            return match[0]
    return None


def _has_regions(source: Traversable) -> bool:
    """Whether there are zones such as Europe/Berlin, not just a lone UTC as in minimal images."""
    try:
        return any(one.is_dir() for one in source.iterdir())
    except OSError:
        return False
