"""Why something could not be fetched, with a stable code.

PullError
├── PullFailed              for good: trying again would not help
│   ├── SourceInvalid       what was asked for is no source
│   ├── SourceMissing       there is no such thing, or nothing usable in it
│   ├── SourceForbidden     it needs a token, or another one
│   ├── AddressRefused      it leads into a network that must not be reached
│   ├── AnswerInvalid       the source does not speak as it should
│   ├── TooLarge            it is larger than this fleet takes
│   ├── HashMismatch        the bytes are not those that the source promises
│   └── FileRefused         the bytes are there, and are no usable model
└── PullDelayed             for now: tried again after a while
    ├── SourceAway          the source does not answer, breaks off, or asks to be left alone
    └── DiskFull            too little room is left
"""

from typing import ClassVar


class PullError(Exception):
    """Something could not be fetched."""

    code: ClassVar[str] = "pull_failed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class PullFailed(PullError):
    """It cannot be fetched, and trying again would not help."""


class SourceInvalid(PullFailed):
    """What was asked for is no source."""

    code = "source_invalid"


class SourceMissing(PullFailed):
    """There is no such thing at the source, or nothing usable in it."""

    code = "source_missing"


class SourceForbidden(PullFailed):
    """The source wants a token, or another one."""

    code = "source_forbidden"


class AddressRefused(PullFailed):
    """The source leads into a network that must not be reached from here."""

    code = "address_refused"


class AnswerInvalid(PullFailed):
    """The source does not speak as it should."""

    code = "answer_invalid"


class TooLarge(PullFailed):
    """The files are larger than this fleet takes."""

    code = "file_too_large"


class HashMismatch(PullFailed):
    """The bytes that arrived are not those that the source promises."""

    code = "hash_mismatch"


class FileRefused(PullFailed):
    """The files arrived, and are no model that can be used here."""

    code = "file_refused"

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        #: Code of the rule that they break.
        self.reason = reason


class PullDelayed(PullError):
    """It cannot be fetched for now."""

    #: Seconds after which the source asks to be tried again, if it does.
    retry_after: float | None = None


class SourceAway(PullDelayed):
    """The source does not answer, breaks off, or asks to be left alone for a while."""

    code = "source_away"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DiskFull(PullDelayed):
    """Too little room is left on the disk."""

    code = "disk_full"
