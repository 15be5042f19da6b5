"""The system's Chromium, and how it runs in tests."""

import shutil
from typing import Final

CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: CI runs as root, in a container, without a screen.
OPTIONS: Final = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
