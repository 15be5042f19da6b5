"""Why fetching models and taking files in is refused."""

from broker_api.refusals import HttpRefused


class SourceInvalid(HttpRefused):
    """What was given is no source of a model."""

    code = "source_invalid"
    status = 422


class AddressRefused(HttpRefused):
    """The source leads into a network that must not be reached from the fleet."""

    code = "address_refused"
    status = 422


class TooManyDownloads(HttpRefused):
    """The owner has as many open downloads as one may have."""

    code = "too_many_downloads"
    status = 429


class DownloadEnded(HttpRefused):
    """The download is in no state for that."""

    code = "download_ended"
    status = 409


class FormInvalid(HttpRefused):
    """The form cannot be read, or lacks what it needs."""

    code = "form_invalid"
    status = 422


class FileTooLarge(HttpRefused):
    """The file is larger than this fleet takes."""

    code = "file_too_large"
    status = 413


class DiskFull(HttpRefused):
    """The server has too little room left for the file."""

    code = "disk_full"
    status = 507


class UploadUnfinished(HttpRefused):
    """Not all bytes of the upload have arrived."""

    code = "upload_unfinished"
    status = 409


class OffsetMismatch(HttpRefused):
    """The upload has more or fewer bytes than the request goes on from."""

    code = "offset_mismatch"
    status = 409


class ChecksumMismatch(HttpRefused):
    """The bytes of the request do not match its checksum."""

    code = "checksum_mismatch"
    status = 460


class TusUnsupported(HttpRefused):
    """The request speaks a version of tus that this server does not."""

    code = "tus_unsupported"
    status = 412
