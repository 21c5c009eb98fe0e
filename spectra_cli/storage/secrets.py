"""What of a URL is shown and written down: all but what may be a secret. Requests are made with the whole of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)

NOBODY, NOTHING = "***@", "..."
"""What stands for a user with a password, and for the value of a parameter."""

_WITHOUT_USERS = frozenset({"s3", "s3a", "gs", "gcs", "hf", "abfs", "abfss", "az", "wasb", "wasbs", "memory"})
"""Schemes of URLs where a name before ``@`` is that of a container, or ``@`` is followed by a revision or a step."""

_USER = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<user>[^/\s'\"<>]*)@")
_QUERY = re.compile(r"\?[^\s'\"<>=/?]+=[^\s'\"<>]*")
_VALUE = re.compile(r"([?&;#][^=&;#]*)=([^&;#]*)")
_PUNCTUATION = ":,.)]"

_SHORTEST_SECRET = 4
"""Shorter values are no secrets, and may be parts of other words."""


def shown_url(url: str) -> str:
    """A URL with ``***@`` for the user and ``...`` for the values of query parameters.

    Names before ``@`` are kept where they are no users, such as the container of ``abfs://container@account/``; with a
    password they are not.
    """
    match = URL.fullmatch(url)
    if match is None:
        return without_secrets(url)
    place, mark, query = match["rest"].partition("?")
    around, slash, path = place.partition("/")
    user, at, host = around.rpartition("@")
    shown = f"{NOBODY}{host}" if at and _is_user(match["scheme"], user) else around
    query = _VALUE.sub(rf"\1={NOTHING}", mark + query)
    return f"{match['scheme']}://{shown}{slash}{path}{query}"


def without_secrets(text: str) -> str:
    """A text, such as a message of a library, with every URL in it as :func:`shown_url` has it.

    A URL ends at white space and at quotation marks; punctuation after it is kept.
    """
    return _QUERY.sub(lambda query: _VALUE.sub(_shown_value, query[0]), _USER.sub(_shown_user, text))


def recorded(value: Any) -> Any:
    """A value as JSON may have it, without the secrets of the texts in it, at any depth."""
    if isinstance(value, str):
        return shown_url(value)
    if isinstance(value, Mapping):
        return {recorded(name): recorded(each) for name, each in value.items()}
    return [recorded(each) for each in value] if isinstance(value, list | tuple) else value


def secrets_of(url: str) -> list[str]:
    """What :func:`shown_url` does not show, as a library may repeat it in a message; the longest first."""
    match = URL.fullmatch(url)
    place, mark, query = ("", "", "") if match is None else match["rest"].partition("?")
    user, at, _ = place.partition("/")[0].rpartition("@")
    hidden = [value for _, value in _VALUE.findall(mark + query)]
    if match is not None and at and _is_user(match["scheme"], user):
        hidden += [user, *user.split(":")[1:]]
    return sorted((each for each in hidden if len(each) >= _SHORTEST_SECRET), key=len, reverse=True)


def _is_user(scheme: str, user: str) -> bool:
    return ":" in user or scheme.lower() not in _WITHOUT_USERS


def _shown_user(match: re.Match[str]) -> str:
    return f"{match['scheme']}://{NOBODY}" if _is_user(match["scheme"], match["user"]) else match[0]


def _shown_value(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    end = value[len(value.rstrip(_PUNCTUATION)) :]
    return match[0] if end == value else f"{name}={NOTHING}{end}"
