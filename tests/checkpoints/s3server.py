"""An S3-compatible server on loopback that notes every request and can be told to fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}

REGION = "us-east-1"


@dataclass(frozen=True)
class Request:
    """What was asked, and how many bytes of a body went out.

    Attributes:
        range: as the header has it; "" for all of an object.
        is_listing: whether keys are asked for and not an object.
    """

    method: str
    path: str
    range: str
    is_listing: bool
    body_bytes: int = 0


@dataclass
class S3Server:
    """A running server.

    Attributes:
        endpoint: its URL.
        requests: answered since the list was last cleared.
        refusing: says with what status a request is refused; None if it is answered.
    """

    endpoint: str = ""
    requests: list[Request] = field(default_factory=list)
    refusing: Callable[[Request], str | None] | None = None

    @property
    def objects(self) -> list[Request]:
        """Requests for bytes of objects."""
        return [request for request in self.requests if request.method == "GET" and not request.is_listing]

    def client(self) -> Any:
        """The maker's own client of S3, which fsspec has no part in."""
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name=REGION, **keys)

    def upload(self, directory: Path, bucket: str, prefix: str = "") -> str:
        """Put the files below a directory into a bucket, made if need be; returns the URL of the directory."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for file in sorted(path for path in directory.rglob("*") if path.is_file()):
            key = prefix + file.relative_to(directory).as_posix()
            client.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())
        client.close()
        return f"s3://{bucket}/{prefix}".rstrip("/")

    def application(self, answer: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """The WSGI application around that of the server proper."""

        def noting(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            method, path = environ["REQUEST_METHOD"], unquote(environ["PATH_INFO"])
            is_listing = "list-type" in environ.get("QUERY_STRING", "")
            asked = Request(method, path, environ.get("HTTP_RANGE", ""), is_listing)
            status = self.refusing(asked) if self.refusing else None
            if status is None:
                body = b"".join(answer(environ, start))
            else:
                start(status, [("Content-Type", "application/xml")])
                code = {"403": "AccessDenied", "503": "SlowDown"}[status[:3]]
                body = b"" if method == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
            self.requests.append(replace(asked, body_bytes=len(body)))
            return [body]

        return noting


class _Silent(WSGIRequestHandler):
    def log(self, *arguments: Any) -> None:
        pass


@contextmanager
def running_server() -> Iterator[S3Server]:
    """A server on a free port, stopped at the end."""
    server = S3Server()
    application = server.application(DomainDispatcherApplication(create_backend_app))
    running = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Silent)
    server.endpoint = f"http://127.0.0.1:{running.port}"
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        running.shutdown()
        thread.join()
        running.server_close()
