"""A table in a bucket, against a server that speaks S3: it appears whole, and what is amiss is said before the work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from spectra_cli.errors import InputError
from spectra_cli.tables.kept import KeptTable
from spectra_cli.tables.locations import location_of
from spectra_cli.tables.writer import TableWriter
from tests.checkpoints.s3server import KEYS, REGION, Request, S3Server, running_server
from tests.tables.anyrows import exact, rank_rows, rank_table

URL = "s3://tables/papers/rank.parquet"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    s3fs.S3FileSystem.clear_instance_cache()
    with running_server() as running:
        client = running.client()
        client.create_bucket(Bucket="tables")
        client.close()
        yield running
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    """The only storage that AWS's libraries know; nothing of the user's own account is looked for."""
    absent = str(tmp_path / "no such file")
    settings = {**KEYS, "AWS_CONFIG_FILE": absent, "AWS_SHARED_CREDENTIALS_FILE": absent, "AWS_DEFAULT_REGION": REGION}
    settings |= {"AWS_ENDPOINT_URL": server.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield server
    server.refusing = None


def keys_in(server: S3Server) -> list[str]:
    client = server.client()
    found = client.list_objects_v2(Bucket="tables").get("Contents", [])
    client.close()
    return [each["Key"] for each in found]


def test_a_table_appears_whole_and_is_kept_and_replaced(s3: S3Server) -> None:
    with TableWriter(location_of(URL), "rank") as writer:
        writer.write(rank_rows("a"))
        writer.finish()
        assert keys_in(s3) == []
    assert keys_in(s3) == ["papers/rank.parquet"]
    with (
        KeptTable.open(location_of(URL), "rank", ("run", "checkpoint")) as kept,
        TableWriter(location_of(URL), "rank") as again,
    ):
        again.write(rank_rows("b"))
        again.write_table(kept.rows((".", "a")))
    with KeptTable.open(location_of(URL), "rank", ("run", "checkpoint")) as kept:
        assert kept.keys_in_order == [(".", "b"), (".", "a")]
        assert exact(kept.rows((".", "a"))) == exact(rank_table("a"))


def test_a_bucket_that_is_absent_is_noticed_before_the_work() -> None:
    with pytest.raises(InputError, match=r"^s3://absent/rank.parquet: there is no such bucket.*make the bucket"):
        TableWriter(location_of("s3://absent/rank.parquet"), "rank")


def test_a_bucket_that_may_not_be_looked_at_may_be_written_to(s3: S3Server) -> None:
    """Rights are often to what is under a prefix only: that is looked at first, then the bucket."""
    looks: list[Request] = []

    def refuse(request: Request) -> str | None:
        if request.path.strip("/") == "tables":
            looks.append(request)
        return "403 Forbidden" if len(looks) > 1 else None

    s3.refusing = refuse
    s3fs.S3FileSystem.clear_instance_cache()
    writer = TableWriter(location_of("s3://tables/mine/rank.parquet"), "rank")
    assert len(looks) > 1
    s3.refusing = None
    writer.close()
    assert "mine/rank.parquet" in keys_in(s3)


def test_an_upload_that_is_refused_says_so_and_leaves_what_stood_there(s3: S3Server, tmp_path: Path) -> None:
    url = "s3://tables/refused.parquet"
    with TableWriter(location_of(url), "rank") as writer:
        writer.write(rank_rows("a"))
    s3.refusing = lambda request: "403 Forbidden" if request.method in {"PUT", "POST"} else None
    with pytest.raises(InputError, match=r"cannot be written: the storage denies access.*what is finished is kept"):
        TableWriter(location_of(url), "rank").close()
    with KeptTable.open(location_of(url), "rank", ("checkpoint",)) as kept:
        assert kept.keys_in_order == [("a",)]
