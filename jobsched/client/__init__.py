"""The Python client of jobsched's HTTP API.

    from jobsched.client import Client

    with Client("https://jobs.example.com", "your-key") as client:
        job = client.jobs.create(schedule="@every 5m", api="https://example.com/hook")
        execution = client.jobs.run(job["id"])
        print(client.executions.wait(execution["id"], timeout=60)["state"])

Field names are snake_case keyword arguments and travel as the API's camelCase; answers are plain
dictionaries, exactly as the API gives them. This package imports nothing else of jobsched, so that it can
be understood, vendored and versioned on its own.
"""

from jobsched.client.client import Client
from jobsched.client.errors import ApiError, Conflict, Invalid, NotFound, Unauthorized, Unreachable

__all__ = ["ApiError", "Client", "Conflict", "Invalid", "NotFound", "Unauthorized", "Unreachable"]
