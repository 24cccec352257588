"""Callbacks: how one HTTP request is built, guarded, sent and judged to be complete.

``request`` builds a Call (pure), ``Transport`` sends many of them at once from one thread, ``Guard`` decides
which addresses may be dialled, ``Resolver`` looks names up. The only package that calls targets, and that knows
libcurl, which is loaded when it is asked for: the API takes the guard from here, and does without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobsched.callback.guard import Guard
    from jobsched.callback.model import Call, Phases, Result
    from jobsched.callback.resolver import Resolver
    from jobsched.callback.transport import Transport

__all__ = ["Call", "Guard", "Phases", "Resolver", "Result", "Transport"]

_PLACES = {
    "Guard": "guard",
    "Call": "model",
    "Phases": "model",
    "Result": "model",
    "Resolver": "resolver",
    "Transport": "transport",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
