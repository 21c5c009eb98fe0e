"""Which settings have changed since a table was made, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN_VALUE = 60
"""Characters of a value that a message shows."""

SHOWN_ENTRIES = 5
"""Entries of a setting which a message names of each kind: of those that have changed, are new, or are no more."""

SHOWN_GONE = 5
"""Settings of which a message says that there are none by now."""


def changes_told(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What has changed, as a clause of a sentence: ``--include was ['a'] and is []``.

    Of a setting that has entries by name, those that differ are named: ``the code has changed: a.py; has new: b.py``.

    Args:
        before: ``command``, ``schema``, ``columns`` and ``settings`` of the table that is there; from a file, so of any
            form.
        now: the same of the table to make.
    """
    said = []
    if before.get("command") != now["command"]:
        said.append(f"spectra {now['command']} did not make it")
    if before.get("schema") != now["schema"]:
        said.append("its columns have changed their meaning since")
    elif before.get("columns") != now["columns"]:
        said.append("it has other columns")
    old = before.get("settings")
    old = old if isinstance(old, dict) else {}
    for name, value in now["settings"].items():
        if name not in old:
            said.append(f"it does not say what {name} was")
        elif old[name] != value:
            said.append(_change(name, old[name], value))
    gone = [name for name in old if name not in now["settings"]][:SHOWN_GONE]
    said += [f"{_shown(name)} was {_shown(old[name])} and is no more" for name in gone]
    return ", and ".join(said) or "it was made otherwise"


def _change(name: str, old: Any, new: Any) -> str:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping) and old and new):
        return f"{name} was {_shown(old)} and is {_shown(new)}"
    kinds = {
        "has changed": [entry for entry in new if entry in old and old[entry] != new[entry]],
        "has new": [entry for entry in new if entry not in old],
        "lacks now": [entry for entry in old if entry not in new],
    }
    return f"{name} {'; '.join(f'{kind}: {_listed(entries)}' for kind, entries in kinds.items() if entries)}"


def _listed(entries: Sequence[str]) -> str:
    more = f" and {len(entries) - SHOWN_ENTRIES} more" if len(entries) > SHOWN_ENTRIES else ""
    return ", ".join(map(_shown, entries[:SHOWN_ENTRIES])) + more


def _shown(value: Any) -> str:
    if value is None or value is False or value in ([], {}, ""):  # 0 is a number
        return "not given"
    if value is True:
        return "given"
    text = ", ".join(map(str, value)) if isinstance(value, list | Mapping) else str(value)
    return text if len(text) <= SHOWN_VALUE else f"{text[: SHOWN_VALUE - 3]}..."
