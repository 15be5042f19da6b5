"""What ends a command with one sentence instead of a traceback."""


class CommandFailed(Exception):
    """The command could not do its work; the message says why, and how to mend it."""
