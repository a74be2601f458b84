"""Where this package keeps what serves all studies of a user."""

import os
import tempfile
from pathlib import Path


def user_cache() -> Path:
    """`explore` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache); without a home, one for temporary files."""
    given = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if given.startswith("~"):
        return Path(tempfile.gettempdir()) / f"explore-{os.getuid()}"
    return Path(given) / "explore"
