"""Every error a person can meet, with its stable code.

ImagefleetError
├── RequestRefused          a request that cannot be accepted; becomes a 4xx problem document
│   └── …                   one class per code below
└── JobFailure              a job that cannot finish; recorded in its row as `error`
    └── …
"""

from typing import ClassVar


class ImagefleetError(Exception):
    """Something a person should be told about."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestRefused(ImagefleetError):
    """The request cannot be accepted as it stands."""

    code: ClassVar[str] = "invalid_request"
    status: ClassVar[int] = 422

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        #: Dotted path of the offending field, e.g. `output.format`; None when no single field is at fault.
        self.field = field


class ModelUnknown(RequestRefused):
    """No registered model has this name."""

    code = "model_unknown"


class TaskUnsupported(RequestRefused):
    """The model's family cannot do this task."""

    code = "task_unsupported"


class SizeUnsupported(RequestRefused):
    """The picture size does not suit the model or the limits."""

    code = "size_unsupported"


class SchedulerUnknown(RequestRefused):
    """No scheduler has this name."""

    code = "scheduler_unknown"


class SchedulerUnsupported(RequestRefused):
    """The model's family cannot use this scheduler."""

    code = "scheduler_unsupported"


class HardwareUnknown(RequestRefused):
    """No hardware class or worker tag has this name."""

    code = "hardware_unknown"


class TooLargeForFleet(RequestRefused):
    """No worker of the fleet has the memory for this job."""

    code = "too_large_for_fleet"


class AdapterUnknown(RequestRefused):
    """No registered adapter of this kind has this name."""

    code = "adapter_unknown"


class FamilyMismatch(RequestRefused):
    """The adapter was made for another family of models."""

    code = "family_mismatch"


class PictureRefused(RequestRefused):
    """What was sent as a picture cannot be used as one."""

    code = "picture_refused"


class PictureTooLarge(RequestRefused):
    """The picture has more pixels than this server takes."""

    code = "picture_too_large"


class UploadUnknown(RequestRefused):
    """There is no such upload or picture."""

    code = "upload_unknown"


class PreprocessorUnknown(RequestRefused):
    """No preprocessor has this name, or its weights are not here."""

    code = "preprocessor_unknown"


class OptionUnsupported(RequestRefused):
    """The field asks for something that this task, model or preprocessor does not do."""

    code = "option_unsupported"


class IdempotencyMismatch(RequestRefused):
    """The idempotency key was used before with another request."""

    code = "idempotency_mismatch"
    status = 409


class JobFailure(ImagefleetError):
    """The job cannot finish."""

    code: ClassVar[str] = "internal_error"
    #: Whether the same job may succeed when tried again.
    retryable: ClassVar[bool] = False
    #: Whether the fleet, not the job, is at fault: counted as a loss instead of an attempt.
    fleet_fault: ClassVar[bool] = False


class OutOfMemory(JobFailure):
    """The device has too little memory for this job."""

    code = "out_of_memory"


class ModelDamaged(JobFailure):
    """The model's files cannot be read."""

    code = "model_damaged"


class ModelMissing(JobFailure):
    """The model's files are not where the registry says."""

    code = "model_missing"
    retryable = True


class DiskFull(JobFailure):
    """The worker's disk has no room for the model's files."""

    code = "disk_full"
    retryable = True
    fleet_fault = True


class PictureUnreadable(JobFailure):
    """A picture the job refers to cannot be fetched or decoded."""

    code = "picture_unreadable"


class DrawingFailed(JobFailure):
    """The pipeline raised an error of its own."""

    code = "drawing_failed"


class PictureInvalid(JobFailure):
    """The pipeline produced numbers that are no picture."""

    code = "picture_invalid"
    retryable = True


class PhaseTimeout(JobFailure):
    """A phase of the job took longer than its limit."""

    code = "phase_timeout"
    retryable = True
    fleet_fault = True


class EngineDied(JobFailure):
    """The engine process died while it drew this job."""

    code = "engine_died"
    retryable = True
    fleet_fault = True


class DeadlinePassed(JobFailure):
    """The job's deadline passed while it waited."""

    code = "deadline_passed"


class Poison(JobFailure):
    """The job was lost again and again, so it is not tried any more."""

    code = "poison"
