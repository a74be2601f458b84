"""Searches replayed on recorded learning curves: `python -m benchmarks.search`, and `... record` to make a table."""

import sys
from pathlib import Path

from benchmarks.search_table import BASES, record


def main(arguments: list[str]) -> None:
    given = dict(one.partition("=")[::2] for one in arguments[1:])
    if arguments[:1] == ["record"]:
        names = given.get("data", ",".join(BASES)).split(",")
        count, workers = int(given.get("configurations", 300)), int(given.get("workers", 2))
        record(names, count, Path("outputs/search-tables"), workers)


if __name__ == "__main__":
    main(sys.argv[1:])
