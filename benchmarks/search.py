"""Searches replayed on recorded learning curves: `python -m benchmarks.search`, and `... record` to make a table."""

import sys
from pathlib import Path

from benchmarks.search_table import BASES, record


def main(arguments: list[str]) -> None:
    given = dict(one.partition("=")[::2] for one in arguments[1:])
    if arguments[:1] == ["record"]:
        for data in given.get("data", ",".join(BASES)).split(","):
            record(
                data, int(given.get("configurations", 300)), Path("outputs/search-tables"), int(given.get("workers", 2))
            )


if __name__ == "__main__":
    main(sys.argv[1:])
