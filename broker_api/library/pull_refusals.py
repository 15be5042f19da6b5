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
