"""Checkpoints in an S3-compatible storage on loopback: the same rows, few requests, errors that name the URL."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import torch
from safetensors.torch import save_file

from spectra_cli.analyses import loading
from spectra_cli.checkpoints.discovery import discover, discover_all
from spectra_cli.checkpoints.fingerprints import fingerprint_files
from spectra_cli.checkpoints.open import check_complete, open_checkpoint
from spectra_cli.checkpoints.runs import Run
from spectra_cli.cli.main import run
from spectra_cli.errors import CheckpointError, CorruptCheckpointError, InputError, MissingExtraError
from spectra_cli.spectrum import memory
from spectra_cli.storage.places import Place, place_of
from tests.checkpoints.s3server import KEYS, REGION, Request, S3Server, running_server

FIXTURES = Path(__file__).parents[2] / "fixtures"
FORMATS = FIXTURES / "formats"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[S3Server]:
    s3fs.S3FileSystem.clear_instance_cache()
    with running_server() as server:
        yield server
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def new_connections() -> Iterator[None]:
    """What was connected before is not used."""
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def s3(endpoint: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    """The server, as the only one that AWS's libraries know; nothing of the user's own account is looked for."""
    absent = str(tmp_path / "no such file")
    files = {"AWS_CONFIG_FILE": absent, "AWS_SHARED_CREDENTIALS_FILE": absent}
    place = {"AWS_ENDPOINT_URL": endpoint.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in {**KEYS, **files, **place}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.chdir(tmp_path)
    endpoint.requests.clear()
    yield endpoint
    endpoint.refusing = None


@pytest.fixture(scope="module")
def formats(endpoint: S3Server) -> str:
    return endpoint.upload(FORMATS, "formats")


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, the first with a step in each of four formats and a copy of its last step."""
    root = tmp_path_factory.mktemp("local") / "runs"
    names_of = {"a": ("safetensors", "safetensors_sharded", "distributed", "torch_zip"), "b": ("torch_legacy",)}
    for run_name, names in names_of.items():
        for step, name in enumerate(names, start=1):
            shutil.copytree(FORMATS / name, root / run_name / f"step_{step}")
    shutil.copytree(root / "a" / "step_4", root / "a" / "last")
    return root


@pytest.fixture(scope="module")
def uploaded(endpoint: S3Server, trajectory: Path) -> str:
    return endpoint.upload(trajectory, "trajectory", "deep/runs/")


def told(runs: list[Run], prefix: str = "") -> list[Any]:
    """What discovery finds, without the place."""
    return [
        (
            each.name.removeprefix(prefix),
            [(checkpoint.name, checkpoint.step, checkpoint.epoch) for checkpoint in each.checkpoints],
            [(stray.name, stray.reason, stray.notable) for stray in each.passed_over],
        )
        for each in runs
    ]


def never(path: Place) -> dict[str, int]:
    """Knows nothing of any checkpoint."""
    return {}


def save(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def bits(tensor: torch.Tensor) -> tuple[Any, ...]:
    stored = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return tensor.dtype, tensor.shape, stored


def header_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


# Discovery


def test_the_same_runs_are_found_as_on_disk(s3: S3Server, formats: str) -> None:
    """Names, steps and everything passed over; directories are listed, and no file is asked after by itself."""
    assert told(discover(formats, peek=never)) == told(discover(FORMATS, peek=never))
    listed = [request for request in s3.requests if request.is_listing]
    assert len(listed) <= 2 + sum(1 for path in FORMATS.rglob("*") if path.is_dir())
    assert {request.method for request in s3.requests if request not in listed} <= {"HEAD"}
    assert sum(request.method == "HEAD" for request in s3.requests) <= 1  # of PATH itself


@pytest.mark.parametrize(
    "spec",
    ["", "@2", "/a", "/a@final", "/a/step_1", "/a/step_1/model.safetensors", "/a/step_2/model.safetensors.index.json",
     "/*", "/*/step_[12]", "/*/step_1/*.safetensors", "/**/model.safetensors", "/a/"],
)  # fmt: skip
def test_every_form_of_path_means_the_same(trajectory: Path, uploaded: str, spec: str) -> None:
    assert told(discover(uploaded + spec), uploaded) == told(discover(f"{trajectory}{spec}"), str(trajectory))


def test_several_paths_are_named_by_their_urls(trajectory: Path, uploaded: str) -> None:
    specs = ("/a@first", "/a@final", "/b")
    found = discover_all([uploaded + spec for spec in specs])
    assert [each.name for each in found] == [f"{uploaded}/a", f"{uploaded}/b"]
    assert told(found, uploaded) == told(discover_all([f"{trajectory}{spec}" for spec in specs]), str(trajectory))


def test_many_checkpoints_take_one_listing_and_no_question_each(s3: S3Server, tmp_path: Path) -> None:
    """Sizes and times for fingerprints are in the listing too."""
    save(tmp_path / "run" / "step_0.safetensors", {"w": torch.ones(2, 2)})
    content = (tmp_path / "run" / "step_0.safetensors").read_bytes()
    url = s3.upload(tmp_path / "run", "many", "run/")
    client = s3.client()
    for step in range(1, 120):
        client.put_object(Bucket="many", Key=f"run/step_{step}.safetensors", Body=content)
    client.close()
    s3.requests.clear()
    (found,) = discover(url)
    assert [checkpoint.step for checkpoint in found.checkpoints] == list(range(120))
    for checkpoint in found.checkpoints:
        check_complete(checkpoint.path)
        ((name, size, _),) = fingerprint_files(checkpoint.path, found.root)
        assert (name, size) == (f"{url}/{checkpoint.name}", len(content))
    assert len(s3.requests) <= 3  # what PATH is, and what lies in it


def test_keys_that_are_no_names_of_files_are_left_out(s3: S3Server) -> None:
    """Keys are any text: empty parts, dots, and markers that stand for directories."""
    client = s3.client()
    client.create_bucket(Bucket="odd")
    for name in ("step_1.pt", "/step_2.pt", "../step_3.pt", "./step_4.pt", "", "sub/", "a::file:/step_5.pt"):
        client.put_object(Bucket="odd", Key=f"run/{name}", Body=b"x")
    client.close()
    (own, other) = discover("s3://odd/run", peek=never)
    assert [checkpoint.name for checkpoint in own.checkpoints] == ["step_1.pt"]
    assert other.name == "a::file:"
    with pytest.raises(CheckpointError, match=r"s3://odd/run/a::file:/step_5\.pt: "):  # and not a file of this machine
        open_checkpoint(other.checkpoints[0].path)


def test_paths_and_runs_go_to_other_processes(s3: S3Server, uploaded: str) -> None:
    """Which do not list the run anew for each of its checkpoints."""
    (found,) = discover(f"{uploaded}/a")
    paths = [checkpoint.path for checkpoint in pickle.loads(pickle.dumps(found)).checkpoints]
    assert paths == [checkpoint.path for checkpoint in found.checkpoints]
    s3fs.S3FileSystem.clear_instance_cache()
    s3.requests.clear()
    for path in paths:
        with open_checkpoint(path) as reader:
            assert reader.tensors
    assert sum(request.is_listing for request in s3.requests) == len(paths)  # each its own directory


# Content


@pytest.mark.parametrize("fixture", sorted(path.name for path in FORMATS.glob("*/") if path.name != "refused"))
def test_every_format_reads_the_same_tensors(s3: S3Server, formats: str, fixture: str) -> None:
    """Its fingerprint names the same files, of the same sizes."""
    place = place_of(f"{formats}/{fixture}")
    with open_checkpoint(FORMATS / fixture) as local, open_checkpoint(place) as remote:
        assert remote.format == local.format
        assert list(remote.tensors.values()) == list(local.tensors.values())
        assert (remote.metadata, remote.notes) == (local.metadata, local.notes)
        for name in local.tensors:
            assert bits(remote.read(name)) == bits(local.read(name))
    states = [(name.removeprefix(formats), size) for name, size, _ in fingerprint_files(place, place)]
    own = fingerprint_files(FORMATS / fixture, FORMATS / fixture)
    assert states == [(name.removeprefix(str(FORMATS)), size) for name, size, _ in own]


def rows(command: str, *arguments: str, prefix: str) -> pa.Table:
    """The table that a command makes, with what names the place taken off the names of runs."""
    out = Path(f"{command}.parquet")
    assert run([command, *arguments, "-q", "--device", "cpu", "--out", str(out)]) == 0
    table = pq.read_table(out).replace_schema_metadata(None)
    out.unlink()
    for name in ("run", "reference_run", "run_a", "run_b"):
        if name in table.column_names:
            values = [value and value.removeprefix(prefix) for value in table[name].to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    return table


@pytest.mark.parametrize(
    "command",
    [
        ("rank", "/a"),
        ("rank", "/*"),
        ("align", "/a@2", "--include", "*linear*"),
        ("sva", "/a", "--reference", "previous"),
        ("sva", "/a@1", "--against", "/b"),
    ],
    ids=" ".join,
)
def test_tables_of_urls_are_those_of_files(trajectory: Path, uploaded: str, command: tuple[str, ...]) -> None:
    """Cell for cell, through the command line."""
    name, *arguments = command

    def at(root: str) -> list[str]:
        return [root + each if each.startswith("/") else each for each in arguments]

    local = rows(name, *at(str(trajectory)), prefix=str(trajectory))
    assert local.num_rows
    assert rows(name, *at(uploaded), prefix=uploaded).equals(local)


def test_inspect_shows_the_same(trajectory: Path, uploaded: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for root in (str(trajectory), uploaded):
        assert run(["inspect", root, "--json"]) == 0
        shown.append(json.loads(capsys.readouterr().out.replace(root, "ROOT")))
    assert shown[0] == shown[1]


def test_a_run_that_knows_its_task_is_evaluated(s3: S3Server) -> None:
    """`prune-eval` and `barrier` read run.json beside the checkpoints."""
    branches = FIXTURES / "branches"
    url = s3.upload(branches, "branches")
    evaluated = [
        rows("prune-eval", f"{root}/early_1@final", "--variants", "full", prefix=str(root)) for root in (branches, url)
    ]
    assert evaluated[0].num_rows
    assert evaluated[1].equals(evaluated[0])
    ends = [
        rows("barrier", f"{root}/early_1", f"{root}/early_2", "--alphas", "2", prefix=str(root))
        for root in (branches, url)
    ]
    assert ends[1].equals(ends[0])


# Bytes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, endpoint: S3Server) -> Path:
    """Three matrices in a file; the second is tall, the third wide; and the same in two shards."""
    torch.manual_seed(0)
    tensors = {"first": torch.randn(300, 200), "tall": torch.randn(1024, 64), "wide": torch.randn(64, 1024)}
    named = {f"{name}.weight": tensor for name, tensor in tensors.items()}
    directory = tmp_path_factory.mktemp("model")
    save(directory / "step_1.safetensors", named)
    sharded = directory / "sharded" / "step_1"
    first, second = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    shards = {first: ["first.weight"], second: ["tall.weight", "wide.weight"]}
    for file, names in shards.items():
        save(sharded / file, {name: named[name] for name in names})
    index = {"weight_map": {name: file for file, names in shards.items() for name in names}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    endpoint.upload(directory, "model")
    return directory


@pytest.fixture(params=[1 << 20, 1 << 12])
def resident_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to which size matrices are held in memory: more and less than those here have."""
    monkeypatch.setattr(memory, "RESIDENT_BYTES", request.param)
    monkeypatch.setattr(loading, "HASH_BYTES", 1 << 15)


@pytest.mark.parametrize("name", ["tall.weight", "wide.weight"])
@pytest.mark.parametrize("path", ["step_1.safetensors", "sharded/step_1"])
def test_one_matrix_costs_its_size_and_the_header(
    s3: S3Server, model: Path, path: str, name: str, resident_bytes: None
) -> None:
    """Counted at the server. Also where it is read in blocks, several times over, as it does not fit into memory."""
    out = Path("rank.parquet")
    assert run(["rank", f"s3://model/{path}", "--include", name, "-q", "--device", "cpu", "--out", str(out)]) == 0
    assert pq.read_table(out)["parameter"].to_pylist() == [name]
    files = sorted((model / path).iterdir()) if (model / path).is_dir() else [model / path]
    headers = sum(header_bytes(file) if file.suffix == ".safetensors" else file.stat().st_size for file in files)
    matrix = 4 * 64 * 1024
    fetched = sum(request.body_bytes for request in s3.objects)
    assert matrix <= fetched <= 1.1 * matrix + headers
    assert all(request.range for request in s3.objects if request.path.endswith(".safetensors"))
    assert len(s3.objects) <= len(files) + 10  # slabs of the first pass over it, and no row by itself


def test_headers_are_all_that_inspect_fetches(s3: S3Server, model: Path) -> None:
    assert run(["inspect", "s3://model/step_1.safetensors", "--json"]) == 0
    assert sum(request.body_bytes for request in s3.objects) <= header_bytes(model / "step_1.safetensors") + 4096


@pytest.fixture
def temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[IO[bytes]]:
    """Those without a name, which are made from now on in an empty directory."""
    made: list[IO[bytes]] = []
    original = tempfile.TemporaryFile
    (tmp_path / "temporary").mkdir()

    def temporary(**options: Any) -> IO[bytes]:
        made.append(original(**options, dir=tmp_path / "temporary"))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    return made


@pytest.mark.parametrize("fixture", ["torch_zip", "torch_legacy", "torch_sharded", "distributed"])
def test_other_formats_pass_through_a_temporary_file(
    formats: str, fixture: str, temporary_files: list[IO[bytes]], tmp_path: Path
) -> None:
    """It holds what was fetched as long as the reader is open, under no name that could be left behind."""
    with open_checkpoint(place_of(f"{formats}/{fixture}")) as reader:
        for name in reader.tensors:
            reader.read(name)
        still_open = [file for file in temporary_files if not file.closed]
        assert sum(os.fstat(file.fileno()).st_blocks for file in still_open)
        assert not list((tmp_path / "temporary").iterdir())
    assert all(file.closed for file in temporary_files)


def test_a_refused_file_leaves_no_temporary_file_open(s3: S3Server, temporary_files: list[IO[bytes]]) -> None:
    client = s3.client()
    client.create_bucket(Bucket="cut")
    client.put_object(Bucket="cut", Key="a.pt", Body=(FORMATS / "torch_zip" / "model.pt").read_bytes()[:-400])
    client.close()
    with pytest.raises(CheckpointError, match=r"s3://cut/a\.pt: the zip archive .* cut short"):
        open_checkpoint(place_of("s3://cut/a.pt"))
    assert temporary_files
    assert all(file.closed for file in temporary_files)


# What goes wrong


def test_what_does_not_exist_is_named_with_what_does(uploaded: str) -> None:
    for spec, message in {
        f"{uploaded}/c": r"does not exist\. The directory s3://trajectory/deep/runs holds a, b\.",
        f"{uploaded}/a/step_11": r"does not exist\. Similar names: s3://trajectory/deep/runs/a/step_1",
        "s3://absent/runs": r"does not exist, or is private\..*AWS_ACCESS_KEY_ID",
        f"{uploaded}/a@77": r"no checkpoint has step 77",
        f"{uploaded}/x*": r"nothing matches",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            discover(spec)
        assert str(caught.value).startswith(spec)


def test_without_credentials_the_remedy_is_to_log_in(
    uploaded: str, monkeypatch: pytest.MonkeyPatch, new_connections: None
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    with pytest.raises(CheckpointError, match=rf"{uploaded}: there are no credentials.*AWS_PROFILE.*FSSPEC_S3_ANON"):
        discover(uploaded)


def test_a_public_bucket_is_read_as_the_remedy_says(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as fsspec reads its configuration once."""
    client = s3.client()
    client.create_bucket(Bucket="public", ACL="public-read")
    content = (FORMATS / "safetensors" / "model.safetensors").read_bytes()
    client.put_object(Bucket="public", Key="run/step_1.safetensors", Body=content, ACL="public-read")
    client.close()
    for name in KEYS:
        monkeypatch.delenv(name)
    code = "from spectra_cli.cli.main import run; raise SystemExit(run(['inspect', 's3://public/run']))"
    monkeypatch.setenv("FSSPEC_S3_ANON", "true")
    subprocess.run([sys.executable, "-c", code], cwd=FIXTURES.parent, capture_output=True, check=True)


def test_a_storage_that_denies_is_said_to(s3: S3Server, uploaded: str) -> None:
    s3.refusing = lambda _: "403 Forbidden"
    with pytest.raises(InputError, match=rf"{uploaded}: the storage denies access.*Check the credentials"):
        discover(uploaded)


def test_who_may_read_but_not_list_reads_a_file(s3: S3Server, uploaded: str, trajectory: Path) -> None:
    s3.refusing = lambda asked: "403 Forbidden" if asked.is_listing else None
    url, path = f"{uploaded}/a/step_1/model.safetensors", trajectory / "a" / "step_1" / "model.safetensors"
    assert rows("rank", url, prefix="").equals(rows("rank", str(path), prefix=""))


def test_a_storage_that_is_busy_for_a_moment_is_asked_again(s3: S3Server, uploaded: str) -> None:
    (found,) = discover(f"{uploaded}/b")
    seen: list[Request] = []

    def busy(asked: Request) -> str | None:
        seen.append(asked)
        return "503 Slow Down" if len(seen) == 1 else None

    s3.refusing = busy
    with open_checkpoint(found.checkpoints[0].path) as reader:
        assert reader.tensors


def test_an_object_that_is_exchanged_meanwhile_is_an_error(s3: S3Server, tmp_path: Path) -> None:
    """Never a tensor of which one half is of another step; and the next look finds it changed."""
    path = save(tmp_path / "run" / "step_1.safetensors", {"w": torch.zeros(64, 64)})
    url = s3.upload(tmp_path / "run", "changing")
    (found,) = discover(url)
    before = fingerprint_files(found.checkpoints[0].path, found.root)
    with open_checkpoint(found.checkpoints[0].path) as reader:
        save(path, {"w": torch.ones(64, 64)})
        s3.upload(tmp_path / "run", "changing")
        with pytest.raises(CheckpointError, match=r"s3://changing/step_1\.safetensors: "):
            reader.read("w")
    (again,) = discover(url)
    after = fingerprint_files(again.checkpoints[0].path, again.root)
    assert [state[:2] for state in after] == [state[:2] for state in before]
    assert after != before
    assert fingerprint_files(place_of(f"{url}/step_1.safetensors"), place_of(url)) == after  # looked at by itself


@pytest.mark.parametrize("kept", ["some of the header", "the header", "some of the data", "nothing"])
def test_a_truncated_object_is_corrupt(s3: S3Server, model: Path, kept: str) -> None:
    header = header_bytes(model / "step_1.safetensors")
    kept_bytes = {"some of the header": header - 9, "the header": header, "some of the data": -100, "nothing": 0}[kept]
    client = s3.client()
    content = (model / "step_1.safetensors").read_bytes()
    client.create_bucket(Bucket="cut")
    client.put_object(Bucket="cut", Key="step_1.safetensors", Body=content[:kept_bytes])
    client.close()
    for directory in ("", "/step_1.safetensors"):
        (found,) = discover(f"s3://cut{directory}")
        with pytest.raises(CorruptCheckpointError, match=r"^s3://cut/step_1\.safetensors: "):
            open_checkpoint(found.checkpoints[0].path)


def test_an_absent_shard_is_found_before_any_work(
    s3: S3Server, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = s3.upload(model / "sharded", "absent-shard")
    client = s3.client()
    client.delete_object(Bucket="absent-shard", Key="step_1/model-00002-of-00002.safetensors")
    client.close()
    s3.requests.clear()
    assert run(["rank", url]) == 1
    message = f"Error: {url}/step_1: model-00002-of-00002.safetensors, named in model.safetensors.index.json, is absent"
    assert message in capsys.readouterr().err
    assert not [request for request in s3.objects if request.path.endswith(".safetensors")]


@pytest.mark.parametrize("url", ["nowhere://bucket/run", "s3://bucket/a::file:///etc"])
def test_a_url_of_no_storage_is_an_error_in_words(url: str) -> None:
    with pytest.raises(InputError, match=r"no storage is known|'::'") as caught:
        discover(url)
    assert str(caught.value).startswith(url)


@pytest.mark.parametrize("absent", ["s3fs", "fsspec"])
def test_an_absent_package_names_the_extra(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(sys.modules["fsspec.registry"])["_registry"], "s3", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == absent]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'spectra-weights[remote]'")):
        discover("s3://bucket/run")
