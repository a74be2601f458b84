"""python -m explore.proxy storage=grpc storage.database=URL [storage.host=NAME] [storage.port=N]

Stands between a database and hundreds of workers, who are then told storage=grpc storage.host=NAME. What has ended it
keeps in memory, so that the database is asked once. It asks nobody for a password: let only your own machines reach it.

  python -m explore.proxy storage=grpc storage.host=head.example.org storage.database=postgresql://me@db/explore
  python -m explore.sweep +sweep=pareto storage=grpc storage.host=head.example.org cluster=slurm workers=400

Without storage.database it stands before EXPLORE_STORAGE_URL, which may hold a password.
"""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from explore.command import INTERRUPTED, refusing_bad_input, run

if TYPE_CHECKING:
    from explore.schema import Config


def main(config: "Config", overrides: list[str]) -> int:
    """Serve until it is ended."""
    from explore.search.options import URL_VARIABLE, Grpc
    from explore.search.secrets import hidden
    from explore.search.storage import make_proxy

    with refusing_bad_input():
        options = config.storage
        if not isinstance(options, Grpc):
            raise ValueError("the proxy needs storage=grpc, got another one; add it, and storage.database=URL")
        database = options.database or os.environ.get(URL_VARIABLE)
        if not database:
            raise ValueError(f"storage.database must be the URL of a database, got none; or set {URL_VARIABLE}")
        options.address(Path())
        here = _address(options.host)
        server = make_proxy(database, options.host, options.port)
    print(f"explore: {options.host}:{options.port} stands before {hidden(database)}", flush=True)
    if here.startswith("127.") and options.host not in ("localhost", here):
        advice = "storage.host=0.0.0.0 listens on all addresses"
        print(f"explore: {options.host} is {here} here, which no other machine reaches; {advice}", flush=True)
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        # Calls that wait for the database would be waited for; whoever made them asks again.
        os._exit(INTERRUPTED)
    return 0


def _address(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError:
        raise ValueError(f"storage.host must be a name or an address of this machine, got {host}") from None


if __name__ == "__main__":
    run(main, __doc__ or "")
