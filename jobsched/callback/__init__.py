"""Callbacks: how one HTTP request is built, guarded, sent and judged to be complete.

``request`` builds a Call (pure), ``Transport`` sends many of them at once from one thread, ``Guard`` decides
which addresses may be dialled, ``Resolver`` looks names up. The only package that knows libcurl.
"""

from jobsched.callback.guard import Guard
from jobsched.callback.model import Call, Phases, Result
from jobsched.callback.resolver import Resolver
from jobsched.callback.transport import Transport

__all__ = ["Call", "Guard", "Phases", "Resolver", "Result", "Transport"]
