"""/api/v1/signing-secrets"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from flask import Response
from flask_openapi3.models.tag import Tag

from jobsched.clock import rfc3339
from jobsched.db.signing import SigningSecret
from jobsched.errors import Fault, InvalidInput
from jobsched.web import schemas, serialize
from jobsched.web.auth import principal
from jobsched.web.body import read_bytes
from jobsched.web.params import RotateQuery
from jobsched.web.routing import Api
from jobsched.web.services import Services

TAG: Final = Tag(name="signing secrets", description="What callbacks are signed with, and verified.")

_ALL = "/api/v1/signing-secrets"


def register(api: Api, services: Services) -> None:
    """Add the routes of signing secrets."""

    @api.route("GET", _ALL, tag=TAG, role="admin", answers={200: schemas.SigningSecretList})
    def list_signing_secrets() -> Response:
        """List the signing secrets.

        Those that are valid now, newest first. Callbacks are signed with each of them. The first one is made
        when somebody first asks for it.
        """
        return _listed(services.signing.active(principal().project_id))

    @api.route(
        "POST",
        f"{_ALL}/rotate",
        tag=TAG,
        role="admin",
        answers={200: schemas.SigningSecretList},
        query=RotateQuery,
        secret_answer=True,
    )
    def rotate_signing_secrets(query: RotateQuery) -> Response:
        """Make a new signing secret.

        The older ones stay valid for `grace`, so that receivers have the time to take the new one; callbacks
        carry a signature of each meanwhile. `grace=0` ends them at once.
        """
        # Who has written the grace into a body believes that a leaked secret ends with it.
        if read_bytes().strip() not in {b"", b"{}"}:
            raise InvalidInput(
                [Fault("", "is not read by this call; grace is a parameter of the query string")]
            )
        grace = timedelta(seconds=query.grace)
        return _listed(services.signing.rotate(principal().project_id, grace))


def _listed(active: Sequence[SigningSecret]) -> Response:
    return serialize.answer(
        {
            "items": [
                {
                    "id": one.id,
                    "secret": one.secret,
                    "createdAt": rfc3339(one.created_at),
                    "expiresAt": serialize.instant(one.expires_at),
                }
                for one in active
            ]
        }
    )
