"""The application and its OpenAPI document without any server: on services that are never called."""

import dataclasses
from functools import cache
from typing import Any

from flask import Flask

from jobsched.config import Settings
from jobsched.web.app import create_app
from jobsched.web.services import Services


@cache
def application() -> Flask:
    """The application; only what is open to everyone and touches nothing can be asked of it."""
    nothing: dict[str, Any] = {field.name: object() for field in dataclasses.fields(Services)}
    return create_app(Services(**nothing | {"settings": Settings()}))


def openapi_document() -> Any:
    """What ``GET /openapi.json`` answers."""
    return application().test_client().get("/openapi.json").get_json()
