"""Why a request that becomes a job can be refused, and the headers it may carry, whichever route it came by."""

from typing import Final

from broker_api.admission.refusals import NoModels, PromptTooLong, ScheduleTypeUnknown
from broker_api.refusals import HeaderInvalid, Starting, StorageUnavailable
from broker_api.streaming.watching import HEADER, HEADER_TEXT
from jobs.errors import (
    AdapterUnknown,
    FamilyMismatch,
    HardwareUnknown,
    IdempotencyMismatch,
    ModelUnknown,
    OptionUnsupported,
    PictureRefused,
    PictureTooLarge,
    PreprocessorUnknown,
    SchedulerUnknown,
    SchedulerUnsupported,
    SizeUnsupported,
    TaskUnsupported,
    TooLargeForFleet,
    UploadUnknown,
)

SUBMIT_ERRORS: Final = (
    ModelUnknown,
    NoModels,
    TaskUnsupported,
    SizeUnsupported,
    SchedulerUnknown,
    SchedulerUnsupported,
    ScheduleTypeUnknown,
    AdapterUnknown,
    FamilyMismatch,
    PreprocessorUnknown,
    OptionUnsupported,
    PromptTooLong,
    PictureRefused,
    PictureTooLarge,
    UploadUnknown,
    StorageUnavailable,
    HardwareUnknown,
    TooLargeForFleet,
    IdempotencyMismatch,
    HeaderInvalid,
    Starting,
)
IDEMPOTENCY: Final = {
    "Idempotency-Key": "Sent again with the same body, it answers with what it made before; 1 to 255 characters."
}
#: Of routes that may hold the answer until the job has ended.
WAITED_FOR: Final = {**IDEMPOTENCY, HEADER: HEADER_TEXT}
