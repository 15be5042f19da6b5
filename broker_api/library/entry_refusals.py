"""Why entries of the library are not added, changed or deleted."""

from broker_api.refusals import HttpRefused


class NameAmbiguous(HttpRefused):
    """Entries of several kinds have this name: give the id."""

    code = "name_ambiguous"
    status = 409


class InUse(HttpRefused):
    """The entry is in use: a job that has not ended names it, or somebody holds it."""

    code = "in_use"
    status = 409


class PathRefused(HttpRefused):
    """The path leads to nothing below the fleet's model folders."""

    code = "path_refused"
    status = 422


class PreviewsFull(HttpRefused):
    """The entry has as many previews as it may have."""

    code = "previews_full"
    status = 409


class BulkRefused(HttpRefused):
    """Nothing was done, because something could not be done to one of the entries."""

    code = "bulk_refused"
    status = 409


class WeightsInvalid(HttpRefused):
    """The range of weights ends before it begins."""

    code = "weights_invalid"
    status = 422
