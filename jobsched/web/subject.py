"""What a request was about, for its line in the log: the same ids that pollers and workers write into theirs."""

from flask import Response, request

#: Answers above this size, in bytes, are lists of many: no single thing was asked for.
_LARGEST = 65_536


def subject(response: Response) -> dict[str, int]:
    """``job_id`` and ``execution_id`` as far as the path or the answer names them."""
    found: dict[str, int] = {}
    path = request.url_rule.rule if request.url_rule is not None else ""
    of_a_job = path.startswith("/api/v1/jobs")
    if (id := (request.view_args or {}).get("id")) is not None:
        if of_a_job:
            found["job_id"] = id
        elif path.startswith("/api/v1/executions/"):
            found["execution_id"] = id
    answer = _answer(response)
    if isinstance(answer.get("jobId"), int) and isinstance(answer.get("id"), int):
        found |= {"execution_id": answer["id"], "job_id": answer["jobId"]}
    elif of_a_job and isinstance(answer.get("id"), int):
        found["job_id"] = answer["id"]
    return found


def _answer(response: Response) -> dict[str, int]:
    if not response.is_json or response.is_streamed or (response.content_length or 0) > _LARGEST:
        return {}
    answer = response.get_json(silent=True)
    return answer if isinstance(answer, dict) else {}
