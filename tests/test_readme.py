"""What the README shows is what happens."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.main import get_command

import spectra_cli
from spectra_cli.cli.main import app, run
from spectra_cli.figures.plots.registry import FIGURES
from spectra_cli.figures.rows.kinds import KINDS
from spectra_cli.layers.family_files import known_architectures, parse_architecture
from spectra_cli.tasks.registry import task_names
from tests.execution.planted_work import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def numbers(text: str) -> list[list[float]]:
    """The numbers of every line that begins with one."""
    rows = [line.split() for line in text.splitlines()]
    return [[float(cell) for cell in row] for row in rows if row and re.fullmatch(r"\d+", row[0])]


def test_the_python_example_prints_what_stands_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank falls while the network groks, and the top vectors settle first."""
    monkeypatch.chdir(ROOT)
    example = next(block for block in blocks("python") if "def agreement" in block)
    printed = README.partition(example)[2].partition("```text\n")[2].partition("```")[0]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - our own text
    shown, found = numbers(printed), numbers(out.getvalue())
    assert len(shown) == len(found) == 12
    for expected, row in zip(shown, found, strict=True):
        assert row == pytest.approx(expected, abs=0.02)


def test_the_notebook_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    (example,) = (block for block in blocks("python") if "log_spaced=4" in block)
    namespace: dict[str, object] = {}
    with pytest.warns(UserWarning, match="shape_mismatch"):  # the flattened convolution of fixtures/cnn
        exec(compile(example, "README.md", "exec"), namespace)  # noqa: S102 - our own text
    assert len(namespace["alignments"]) > 0  # type: ignore[arg-type]
    assert {name.partition("-")[0] for name in namespace["figures"]} == {"effective_rank", "singular_values"}  # type: ignore[attr-defined]
    assert Path("report.html").exists()


def test_every_image_is_there_and_has_a_text_alternative() -> None:
    images = re.findall(r"!\[(.*?)\]\((.*?)\)", README)
    assert len(images) == 3
    for alternative, path in images:
        assert (ROOT / path).read_bytes().startswith(b"\x89PNG")
        assert len(alternative) > 60


def test_every_figure_is_listed_with_what_it_is_drawn_of() -> None:
    for kind in FIGURES.values():
        needs = " and ".join(f"`{KINDS[name].removeprefix('spectra ')}`" for name in kind.needs)
        either = " or ".join(f"`{KINDS[name].removeprefix('spectra ')}`" for name in kind.either)
        assert f"| `{kind.name}` | {kind.meaning} | {needs}{f', and {either}' * bool(either)} |" in README


@pytest.mark.parametrize("title", ["Effective rank", "Alignment score", "Agreement with"])
def test_the_printed_tables_are_those_of_the_fixture(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    shown = next(block for block in re.split(r"\n\n|```text\n|```\n", README) if block.startswith(title))
    path = "fixtures/grokking" if title == "Effective rank" else "fixtures/grokking/seed_0"
    assert run(["analyze", path, "--out", str(tmp_path / "tables")]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().err.splitlines()]
    for line in shown.splitlines():
        assert line.rstrip() in printed


RUNS_OF_MODELS = {
    "Pruned weights": ["prune-eval", "fixtures/grokking/seed_0"],
    "Barrier between fixtures/branches/early": ["barrier", "fixtures/branches/early_1", "fixtures/branches/early_2"],
    "Barrier between fixtures/branches/late": ["barrier", "fixtures/branches/late_1", "fixtures/branches/late_2"],
}


@pytest.mark.parametrize("title", RUNS_OF_MODELS)
def test_the_printed_metrics_are_those_of_the_fixture(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word by word; numbers but for what another processor rounds otherwise."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    shown = next(block for block in blocks("text") if block.startswith(title)).split()
    assert run([*RUNS_OF_MODELS[title], "--out", str(tmp_path / "table.parquet")]) == 0
    printed = capsys.readouterr().err.split()
    start = printed.index(shown[0])
    assert len(shown) > 50
    for expected, found in zip(shown, printed[start:], strict=False):
        if NUMBER.fullmatch(expected):
            assert float(found) == pytest.approx(float(expected), rel=0.02, abs=0.003)
        else:
            assert found == expected


NUMBER = re.compile(r"\d+(\.\d+)?(e-?\d+)?")


def test_the_example_of_a_task_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file, its command line, and a state dict of its model."""
    monkeypatch.chdir(tmp_path)
    (example,) = (block for block in blocks("python") if block.startswith("# mytask.py"))
    assert len(example.splitlines()) < 30
    (tmp_path / "mytask.py").write_text(example)
    (command,) = re.findall(r"    spectra (prune-eval .* --task mytask.py:Parity .*)", README)
    layers = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    (tmp_path / "runs" / "parity").mkdir(parents=True)
    save_file(layers.state_dict(), tmp_path / "runs" / "parity" / "step_0.safetensors")
    assert run([*command.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2 * 5


def test_the_branches_and_masks_of_the_readme_begin_where_its_trunk_has_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands on `runs/trunk`, of a tenth of the length."""
    monkeypatch.chdir(tmp_path)
    section = README.partition("## Training\n")[2].partition("\n## ")[0]
    trunk, branch = re.findall(r"spectra (train image-classification [^`\n]*runs/(?:trunk|branch))(?:\n|`)", section)
    (mask,) = re.findall(r"`(--mask magnitude[^`]*)`", section)
    (noise,) = re.findall(r"`(--perturb [^`]*)`", section)
    small = "--set width=3 --quiet"
    assert run([*trunk.split(), *small.split()]) == 0
    assert run([*branch.split(), *noise.split(), "--quiet"]) == 0
    assert run(["train", "image-classification", *mask.split(), "--out", "runs/ticket", "--quiet"]) == 0
    rank = spectra_cli.rank("runs/ticket", steps="final")
    assert set(rank["status"]) == {"ok"}


def test_the_built_in_tasks_are_all_described() -> None:
    section = README.partition("## Tasks")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)
    assert sorted(described) == task_names()


def test_every_family_is_listed() -> None:
    """To update it, replace what is between the markers with a line for each family and its title."""
    section = re.search(r"<!-- families -->\n(.*?)<!-- /families -->", README, re.DOTALL)
    assert section is not None
    listed = [f"| `{architecture.family}` | {architecture.title} |" for architecture in known_architectures()]
    assert section[1].splitlines()[2:] == listed


def test_the_example_of_a_family_is_one() -> None:
    (example,) = blocks("toml")
    architecture = parse_architecture(example, "my")
    assert [rule.name for rule in architecture.rules] == ["embedding-input", "up-down", "residual"]


STAND_IN = """#!/bin/bash
printf -v call '%q ' "${OMP_NUM_THREADS-}" "${0##*/}" "$@"; echo "$call" >> "$CALLS"
for given; do [[ $before == --scheduler* ]] && file=$given; before=$given; done
case "${0##*/} $1" in
  srun*)
    while [[ $1 == -* ]]; do shift; done
    trap 'kill $(jobs -p); exit 143' TERM
    for ((task = 0; task < SLURM_NTASKS; task++)); do "$@" & done
    wait ;;
  "dask scheduler") echo '{"address": "tcp://head:1234"}' > "$file"; exec sleep 600 ;;
  "dask worker") until [[ -e $file ]]; do sleep 0.05; done; exec sleep 600 ;;
  spectra*)
    until [[ -s $file && $(grep -c 'dask worker' "$CALLS") == "$((SLURM_NTASKS + 1))" ]]; do sleep 0.05; done
    exit "$STATUS" ;;
esac
"""
"""For every program of the SLURM recipe: leaves word of how it was called, and does what the others wait for.

The call of srun names the worker as well, hence one more than there are tasks. Each call is one write: those of two
writes run into each other where workers begin at once.
"""


def slurm_recipe() -> str:
    (recipe,) = (block for block in blocks("bash") if "#SBATCH" in block)
    return recipe


def _is_there(group: int) -> bool:
    """Whether a process of a group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def parsed(command: object, arguments: Sequence[str]) -> dict[str, object]:
    """What a command of Click makes of its arguments.

    Raises:
        click.UsageError: if it has no such option.
    """
    params: dict[str, object] = command.make_context("it", list(arguments)).params  # type: ignore[attr-defined]
    return params


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("status", [0, 1, 3])
def test_the_slurm_recipe_begins_a_cluster_and_ends_as_spectra_does(tmp_path: Path, status: int) -> None:
    """With the stand-in of each program; those of Dask and spectra have all the options that they are given."""
    from distributed.cli.dask_scheduler import main as scheduler_command
    from distributed.cli.dask_worker import main as worker_command

    script, calls, programs = tmp_path / "job.sh", tmp_path / "calls", tmp_path / "bin"
    script.write_text(slurm_recipe())
    assert len(slurm_recipe().splitlines()) <= 10
    subprocess.run(["bash", "-n", script], check=True)
    asked = dict(re.findall(r"--([a-z-]+)=(\S+)", re.findall(r"^#SBATCH (.*)", slurm_recipe(), re.MULTILINE)[0]))
    assert int(asked["ntasks"]) > 1
    programs.mkdir()
    for name in ("srun", "dask", "spectra"):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    home = tmp_path / "with a space"
    for name in ("a", "b"):
        (home / "runs" / name).mkdir(parents=True)
    slurm = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": asked["cpus-per-task"]}
    environment = {**os.environ, **slurm, "CALLS": str(calls), "STATUS": str(status)}
    environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    job = subprocess.Popen(["bash", script], cwd=home, env=environment, start_new_session=True)
    try:
        assert job.wait(PATIENCE_S) == status
        wait_until(lambda: not _is_there(job.pid))  # a job ends when all that it has begun has ended
    finally:
        if _is_there(job.pid):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    assert not list(home.glob("dask-*"))
    called = [shlex.split(line) for line in calls.read_text().splitlines()]
    assert Counter(name for _, name, *_ in called) == {"dask": 3, "srun": 1, "spectra": 1}
    ((_, _, *to_srun),) = [call for call in called if call[1] == "srun"]
    assert f"--cpus-per-task={asked['cpus-per-task']}" in to_srun[: to_srun.index("dask")]
    dask = [(threads, *arguments) for threads, name, *arguments in called if name == "dask"]
    ((_, _, *to_scheduler),) = [call for call in dask if call[1] == "scheduler"]
    workers = [call for call in dask if call[1] == "worker"]
    assert parsed(scheduler_command, to_scheduler)["port"] == "0", "another job may be on the node"
    cluster = parsed(scheduler_command, to_scheduler)["scheduler_file"]
    assert isinstance(cluster, str)
    assert Path(cluster).parent == home
    assert "4711" in Path(cluster).name
    for threads, _, *to_worker in workers:
        given = parsed(worker_command, to_worker)
        assert (given["scheduler_file"], given["nthreads"], given["memory_limit"]) == (cluster, 1, "0")
        assert threads == asked["cpus-per-task"]
    ((_, _, command, *to_spectra),) = [call for call in called if call[1] == "spectra"]
    given = parsed(get_command(app).commands[command], to_spectra)  # type: ignore[attr-defined]  # a group
    assert given["scheduler"] == cluster
    assert [str(path) for path in given["paths"]] == ["runs/a", "runs/b"]  # type: ignore[attr-defined]
