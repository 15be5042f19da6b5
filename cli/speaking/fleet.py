"""Find the fleet that a command speaks to."""

from client.client import Client
from infra.settings import Settings

KEY_FILE = "api-key"
#: Addresses that mean "every interface" to a server and nothing to a client.
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened on


def open_client(settings: Settings) -> Client:
    """Return a client for the fleet that the settings name, with the key that they name."""
    return Client(fleet_url(settings), fleet_key(settings))


def fleet_url(settings: Settings) -> str:
    """Return where the fleet's API is."""
    return settings.url or local_url(settings)


def local_url(settings: Settings) -> str:
    """Return where this machine itself reaches the API that it runs."""
    host = _EVERYWHERE.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def fleet_key(settings: Settings) -> str | None:
    """Return the API key, from the settings or from the home folder; None when there is none to be read."""
    if settings.api_key:
        return settings.api_key.strip()
    try:
        return (settings.home / KEY_FILE).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        # The server says that a key is missing; a fleet that does not run is the more useful news.
        return None
