"""Connections to storages that fsspec knows, and what they say when something goes wrong, in spectra's words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spectra_cli.errors import CheckpointError, InputError, MissingExtraError, SpectraError
from spectra_cli.storage.secrets import NOTHING, secrets_of, shown_url, without_secrets

EXTRA = "pip install 'spectra-weights[remote]'"
LONGEST_MESSAGE = 300

_OF_THE_EXTRA = frozenset({"s3", "s3a", "gs", "gcs", "hf"})

_LOG_IN = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE; for a public bucket, FSSPEC_S3_ANON=true",
    "gs": "run 'gcloud auth application-default login' or set GOOGLE_APPLICATION_CREDENTIALS; for a public bucket, "
    "FSSPEC_GS_TOKEN=anon",
    "hf": "run 'hf auth login' or set HF_TOKEN",
}


class StorageError(CheckpointError):
    """A storage that is not read: no network, no credentials, a timeout.

    Attributes:
        reason: why not, for a sentence that says itself what cannot be done.
    """

    def __init__(self, what: str, *, reason: str = "", where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.reason = reason


def connect(url: str) -> Any:
    """The filesystem of fsspec behind a URL. It is configured as fsspec is: by environment variables and its files.

    Raises:
        InputError: if there is no such storage.
        MissingExtraError: if a package is absent that knows it.
    """
    scheme = url.partition("://")[0]
    if "::" in url:  # fsspec would take the second part for another storage
        raise InputError(
            "URLs with '::' are not read", where=shown_url(url), remedy="Give a plain URL such as s3://bucket/run"
        )
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - an extra, and not needed for local files
        from fsspec.registry import known_implementations, registry  # noqa: PLC0415 - as above
    except ImportError as error:
        raise MissingExtraError(f"{scheme}:// is read through fsspec", where=shown_url(url), remedy=EXTRA) from error
    try:
        filesystem, _ = url_to_fs(url)
    except ImportError as error:
        remedy = EXTRA if scheme in _OF_THE_EXTRA else _one_line(error, url)
        raise MissingExtraError(
            f"a package that reads {scheme}:// is absent", where=shown_url(url), remedy=remedy
        ) from error
    except ValueError as error:
        if scheme in registry or scheme in known_implementations:
            raise InputError(
                f"this is no URL of {scheme}:// ({_one_line(error, url)})", where=shown_url(url)
            ) from error
        raise InputError(
            f"no storage is known as {scheme}://",
            where=shown_url(url),
            remedy="Write s3://, gs://, hf://, or a local path",
        ) from error
    return filesystem


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Say what a storage's library raises as the system would of a file, else as an error of the checkpoint.

    Raises:
        OSError: FileNotFoundError, NotADirectoryError, IsADirectoryError or PermissionError, with the URL.
        StorageError: for all else.
    """
    try:
        yield
    except SpectraError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        number = {FileNotFoundError: errno.ENOENT, NotADirectoryError: errno.ENOTDIR}.get(type(error), errno.EISDIR)
        raise type(error)(number, "there is no such file or directory", shown_url(url)) from error
    except NotImplementedError as error:  # such as a listing of all repositories
        raise PermissionError(
            errno.EACCES, f"the storage has no answer: {_one_line(error, url)}", shown_url(url)
        ) from error
    except Exception as error:  # every storage has errors of its own, most of which are no OSError
        message = _one_line(error, url)
        if _denies_access(error):
            raise PermissionError(errno.EACCES, f"the storage denies access: {message}", shown_url(url)) from error
        if "credential" in f"{type(error).__name__} {message}".lower():
            absent = f"there are no credentials for the storage: {message}"
            raise StorageError(absent, reason=absent, where=shown_url(url), remedy=credentials_remedy(url)) from error
        raise StorageError(
            f"the storage cannot be read: {message}",
            reason=message,
            where=shown_url(url),
            remedy="Check the URL, the network and the credentials, then run again",
        ) from error


def _denies_access(error: Exception) -> bool:
    """Whether a library says that a storage knows who asks, or that it does not, and lets them read nothing.

    s3fs and adlfs raise an error of the system; others have the status of the answer; gcsfs begins with a word. A
    storage may answer so for what is absent, too, where one may not list.
    """
    answered = getattr(error, "status", None) or getattr(error, "code", None)
    answered = answered or getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error, PermissionError) or answered in {401, 403} or str(error).startswith("Forbidden")


def credentials_remedy(url: str) -> str:
    """How to get at what the storage denies."""
    scheme = url.partition("://")[0]
    how = _LOG_IN.get({"s3a": "s3", "gcs": "gs"}.get(scheme, scheme))
    return f"Check the credentials: {how}" if how else "Check the credentials"


def _one_line(error: BaseException, url: str) -> str:
    """What an error of a library says of a URL, in one line that a terminal can show, without the URL's secrets."""
    text = without_secrets(" ".join(str(error).split()) or type(error).__name__)
    for secret in secrets_of(url):
        text = text.replace(secret, NOTHING)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"
