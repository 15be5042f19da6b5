"""Why this door refuses, beyond what every door does."""

from typing import Final

from broker_api.refusals import HttpRefused

#: OpenAI's clients send a request again after most errors; a job that failed fails again.
NO_RETRY: Final = {"x-should-retry": "false"}


class FormInvalid(HttpRefused):
    """The form cannot be read, or lacks a file."""

    code = "invalid_form"


class FieldRefused(HttpRefused):
    """A field of the request has a value that cannot be drawn from."""

    code = "invalid_request"


class JobFailed(HttpRefused):
    """The job failed."""

    code = "job_failed"
    status = 500


class JobGone(HttpRefused):
    """The job was cancelled or deleted before its pictures were fetched."""

    code = "job_gone"
    status = 410
