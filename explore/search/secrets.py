"""Passwords in the URLs of storages: where they must not stand, and how they are kept out of what is said.

Texts are looked at as they are, because what no parser can read may hold a password as well.
"""

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from explore.search.options import URL_VARIABLE

# Up to the last @: whoever forgot to write %40 for one in a password must not see half of it again.
_USER = re.compile(r"(?<=://)(?P<user>[^:/?#]*):(?P<secret>.*)@", re.DOTALL)
# A driver takes these from behind the question mark, too.
_OPTION = re.compile(r"(?P<name>[?&](?:ssl)?password=)(?P<secret>[^&#]+)", re.IGNORECASE)


def has_password(url: str) -> bool:
    """Whether there is a password in the URL."""
    return any(_secrets(url))


def hidden(url: str) -> str:
    """The URL with its passwords replaced by stars."""
    return _OPTION.sub(r"\g<name>***", _USER.sub(r"\g<user>:***@", url))


def without_passwords(text: str, url: str) -> str:
    """A text that others have written about a URL, without its passwords."""
    for secret in _secrets(url):
        meant = unquote(secret)
        for form in (secret, meant, unquote_plus(secret), quote(meant), quote_plus(meant)):
            text = text.replace(form, "***")
    return text


def refuse_passwords(overrides: Sequence[str]) -> None:
    """Raise ValueError for an override whose value holds a password: command lines are seen by all on a machine."""
    for override in overrides:
        key, _, text = override.partition("=")
        if has_password(value := text.strip("'\"")):
            raise ValueError(
                f"{key.lstrip('+')} must not hold a password, which others could read in the list of processes, got "
                f"{hidden(value)}; put it into ~/.pgpass or PGPASSWORD, or the whole URL into {URL_VARIABLE}"
            )


def _secrets(url: str) -> Iterator[str]:
    for pattern in (_USER, _OPTION):
        yield from (found["secret"] for found in pattern.finditer(url) if found["secret"])
