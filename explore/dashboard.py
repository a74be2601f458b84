"""python -m explore.dashboard study=NAME [host=HOST] [port=N] [outputs=DIR] [storage.url=URL]

Shows a study in a browser by optuna-dashboard, while it runs or afterwards: front, parameters, importance, and every
trial with its status, costs, test accuracy and command as columns. It reads the study and changes nothing in it.

  python -m explore.dashboard study=pareto
  python -m explore.dashboard study=pareto storage.url=postgresql://me@db.example.org/explore host=0.0.0.0 port=8080

  host=NAME        address that is listened on (default: localhost, for this machine alone; nobody is asked for a
                   password, so let only your own machines reach another one)
  port=N           default: 8080; 0 takes any that is free
  browser=off      opens no browser; there is none to open where there is no display
  format=json      prints the address for machines

Needs: pip install 'explore[dashboard]'. Ctrl-C ends it.
"""

import json
import os
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from explore.command import refusing_bad_input, run

if TYPE_CHECKING:
    from explore.schema import Config

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
_MOST = 65535


@dataclass
class Address:
    """Where the pages are served, and whether a browser is opened on them."""

    host: str = "localhost"
    port: int = 8080
    browser: bool = True


def own(word: str) -> bool:
    """Whether a word of the command line is for this command alone."""
    return word.partition("=")[0] in ("host", "port", "browser")


def main(config: "Config", overrides: list[str]) -> int:
    """Serve until it is ended."""
    from explore.places import named_study, study_url
    from explore.reporting.dashboard import check_installed, make_dashboard
    from explore.search.storage import open_storage

    with refusing_bad_input():
        address = _address([word for word in overrides if own(word)])
        check_installed()
        study = named_study(config)
        server, url = make_dashboard(open_storage(study_url(config)), study.name, address.host, address.port)
    if config.format == "json":
        print(json.dumps({"study": study.name, "url": url}), flush=True)
    else:
        print(f"study {study.name}: {url} (Ctrl-C ends it)", flush=True)
    with server:
        if address.browser and _has_browser():
            webbrowser.open(url)
        server.serve_forever()
    return 0


def _address(words: Sequence[str]) -> Address:
    """What the words say; raises ValueError for what cannot be."""
    address = Address()
    for key, _, value in (word.partition("=") for word in words):
        if key == "host":
            address.host = value
        elif key == "port":
            if not value.isdecimal() or int(value) > _MOST:
                raise ValueError(f"port must be a number from 0 to {_MOST}, got {value or 'nothing'}; try port=8080")
            address.port = int(value)
        elif value not in ("on", "off"):
            raise ValueError(f"browser must be on or off, got {value or 'nothing'}")
        else:
            address.browser = value == "on"
    return address


def _has_browser() -> bool:
    """Whether a browser has somewhere to open a window; one in the terminal would take it from this command."""
    if sys.platform == "linux" and not any(os.environ.get(name) for name in _DISPLAYS):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


if __name__ == "__main__":
    run(main, __doc__ or "", own=own)
