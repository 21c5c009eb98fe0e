"""`spectra prune-eval`: options, exit statuses, messages, and what it prints."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from spectra_cli.cli.prune_eval import left_alone
from spectra_cli.tables.schemas import arrow_schema
from spectra_cli.tasks.modular_addition import ModularAddition
from tests.analyses import tiny_tasks

Fixture = Callable[..., Any]
TABLE = Path("prune_eval.parquet")
TINY = {"prime": 5, "d_model": 4, "num_heads": 2, "mlp": 6}
MLP = ("--task", f"{tiny_tasks.__file__}:mlp")


def addition_run(name: str = "run", steps: tuple[int, ...] = (0, 100, 200)) -> Path:
    directory = Path(name)
    directory.mkdir(parents=True)
    for step in steps:
        torch.manual_seed(step)
        torch.save(ModularAddition(**TINY).model().state_dict(), directory / f"step_{step}.pt")  # type: ignore[arg-type]
    (directory / "run.json").write_text(json.dumps({"task": "modular-addition", "options": TINY}))
    return directory


def mlp_run(name: str = "run", steps: tuple[int, ...] = (0, 100, 200), width: int = 7) -> Path:
    directory = Path(name)
    directory.mkdir(parents=True)
    for step in steps:
        torch.manual_seed(step)
        torch.save(tiny_tasks.mlp(width).model().state_dict(), directory / f"step_{step}.pt")
    return directory


def one_paragraph(text: str, kind: str = "Error") -> str:
    (line,) = text.splitlines()
    assert line.startswith(f"{kind}: ")
    assert line.endswith((".", "?"))
    assert "Traceback" not in line
    return line


# What comes out


def test_a_run_that_knows_its_task_needs_nothing_more(spectra: Fixture, table: Fixture) -> None:
    addition_run("runs/a")
    addition_run("runs/b")
    outcome = spectra("prune-eval", "runs")
    assert (outcome.status, outcome.out) == (0, "")
    assert outcome.widest <= 80
    rows = table(TABLE)
    assert len(rows) == 2 * 3 * 5 * 2 * 2
    assert {row["status"] for row in rows} == {"ok"}
    assert pq.read_schema(TABLE).equals(arrow_schema("prune_eval"))
    assert "prune_eval.parquet: 120 rows from 6 checkpoints in " in outcome.err
    assert outcome.err.endswith("left as it is: decoder.weight\n")
    assert "Pruned weights in a, step_0.pt to step_200.pt" in outcome.err
    assert "kept: top 0.5 of the components, bottom the rest, masks 0.05 of the entries" in outcome.err


def test_the_printed_values_are_those_of_the_table(spectra: Fixture, table: Fixture) -> None:
    """Every row of the printed table: the losses first, then the errors, each at every step."""
    addition_run()
    outcome = spectra("prune-eval", "run", "--keep", "0.3")
    lines = outcome.err.splitlines()
    heading = next(place for place, line in enumerate(lines) if line.startswith("metric"))
    assert lines[heading].split() == ["metric", "step", "full", "top", "bottom", "magnitude", "random"]
    values = {(row["split"], row["metric"], row["step"], row["variant"]): row["value"] for row in table(TABLE)}
    label = ""
    printed: dict[tuple[str, str, int], list[float]] = {}
    for line in lines[heading + 1 : heading + 13]:
        label = line[:11].strip() or label
        step, *cells = line[11:].split()
        split, metric = label.split()
        printed[split, metric, int(step)] = [float(cell) for cell in cells]
    assert list(printed) == [
        (split, metric, step) for metric in ("loss", "error") for split in ("train", "val") for step in (0, 100, 200)
    ]
    assert "in the table" not in outcome.err
    for (split, metric, step), cells in printed.items():
        ours = [values[split, metric, step, variant] for variant in ("full", "top", "bottom", "magnitude", "random")]
        assert cells == pytest.approx(ours, rel=1e-3)


MANY = """
from spectra_cli.tasks.base import Metric
from tests.analyses import tiny_tasks

class Many(tiny_tasks.Classification):
    def __init__(self, count):
        super().__init__(lambda: tiny_tasks.Network(7), tiny_tasks._vectors)
        self.count = count

    def metrics(self, model, batch):
        return {**super().metrics(model, batch), **{f"m{i}": Metric(1.0, 1) for i in range(self.count)}}

def make(count: int = 0):
    return Many(count)
"""


@pytest.mark.parametrize(
    ("steps", "count", "error_rows", "said"),
    [
        (5, 0, 10, None),
        (9, 0, 10, "... more steps in the table"),
        (5, 1, 2, "... more steps in the table"),
        (5, 6, 2, "... more steps and 8 more metrics in the table"),
        (1, 3, 2, None),
    ],
)
def test_all_metrics_are_shown_at_the_same_steps_as_long_as_they_fit_a_screen(
    steps: int, count: int, error_rows: int, said: str | None, spectra: Fixture
) -> None:
    """Else only the loss is, and the others at the last step."""
    mlp_run(steps=tuple(range(0, 100 * steps, 100)))
    Path("many.py").write_text(MANY)
    arguments = ["--task", "many.py:make", "--set", f"count={count}", "--variants", "full"]
    outcome = spectra("prune-eval", "run", *arguments)
    assert outcome.status == 0
    lines = outcome.err.splitlines()
    assert len(lines) <= 30
    label, rows = "", []
    for line in lines:
        if cells := re.match(r"((?:train|val) \w+)? +\d+ +\d", line):
            label = cells[1] or label
            rows.append(label)
    assert rows.count("train error") + rows.count("val error") == error_rows
    more = [line for line in lines if line.startswith("...")]
    assert more == ([] if said is None else [said])


def test_of_many_steps_some_are_shown_and_the_ends_are(spectra: Fixture) -> None:
    mlp_run(steps=tuple(range(0, 1300, 10)))
    outcome = spectra("prune-eval", "run", *MLP, "--variants", "full,top", "--split", "val")
    losses, _, _ = outcome.err.partition("val error")
    shown = [int(step) for step in re.findall(r"^(?:val loss|        ) +(\d+) ", losses, re.MULTILINE)]
    assert (len(shown), shown[0], shown[-1]) == (5, 0, 1290)
    assert all(250 <= later - earlier <= 400 for earlier, later in pairwise(shown))


def test_json_is_one_document(spectra: Fixture, table: Fixture) -> None:
    addition_run()
    outcome = spectra("prune-eval", "run", "--json", "--sva-out", "sva.parquet", "--quiet")
    assert (outcome.status, outcome.err) == (0, "")
    summary = json.loads(outcome.out)
    assert summary["output_layers"] == {".": ["decoder.weight"]}
    assert summary["problems"] == []
    first, second = summary["tables"]
    assert (first["table"], first["rows"], second["table"]) == ("prune_eval", 60, "sva")
    (run,) = first["runs"]
    (val_loss,) = [each for each in run["metrics"] if (each["split"], each["metric"]) == ("val", "loss")]
    for end, step in (("first", 0), ("last", 200)):
        expected = {
            row["variant"]: row["value"]
            for row in table(TABLE)
            if (row["split"], row["metric"], row["step"]) == ("val", "loss", step)
        }
        assert val_loss[end] == expected
    last = [row for row in table("sva.parquet") if row["step"] == 200 and row["variant"] == "top"]
    assert second["runs"][0]["scores"]["top"] == pytest.approx(sum(row["score"] for row in last) / len(last))
    assert second["runs"][0]["matrices"]["top"] == len(last) == 5


def test_agreement_is_a_table_and_a_line(spectra: Fixture, table: Fixture) -> None:
    addition_run()
    outcome = spectra("prune-eval", "run", "--sva-out", "sva.parquet", "--steps", "final", "--mask-keep", "0.4")
    assert outcome.status == 0
    assert outcome.widest <= 80
    rows = table("sva.parquet")
    assert pq.read_schema("sva.parquet").equals(arrow_schema("sva"))
    assert list(dict.fromkeys(row["variant"] for row in rows)) == ["top", "bottom", "magnitude", "random"]
    scores = [row["score"] for row in rows if row["variant"] == "magnitude"]
    assert f"magnitude {sum(scores) / len(scores):.3f}" in outcome.err
    assert "sva.parquet: 18 rows from 1 checkpoint in " in outcome.err


def test_other_tables_of_agreement_have_no_such_column(spectra: Fixture, make_run: Fixture) -> None:
    assert spectra("sva", make_run()).status == 0
    assert "variant" not in pq.read_schema("sva.parquet").names


def test_options_reach_the_work(spectra: Fixture, table: Fixture) -> None:
    mlp_run(width=9)
    arguments = [
        "--set",
        "width=9",
        "--split",
        "val",
        "--variants",
        "random, top",
        "--keep",
        "0.7",
        "--mask-keep",
        "0.2",
    ]
    outcome = spectra("prune-eval", "run@final", *MLP, *arguments, "--mask-seed", "3", "--tag", "note=x")
    assert outcome.status == 0
    rows = table(TABLE)
    named = ("step", "variant", "keep", "seed", "split", "metric", "note")
    assert [tuple(row[name] for name in named) for row in rows] == [
        (200, variant, keep, seed, "val", metric, "x")
        for variant, keep, seed in (("top", 0.7, None), ("random", 0.2, 3))
        for metric in ("loss", "error")
    ]
    settings = json.loads(pq.read_schema(TABLE).metadata[b"spectra.settings"])
    assert (settings["variants"], settings["splits"], settings["mask_seed"]) == (["top", "random"], ["val"], 3)


def test_the_output_layer_that_the_user_names_is_the_one_left(spectra: Fixture) -> None:
    addition_run("runs/a")
    outcome = spectra("prune-eval", "runs/a", "--output-layer", "*linear2*", "--variants", "full")
    assert "left as it is: transformer_encoder.layers.0.linear2.weight" in outcome.err


def test_output_layers_are_told_run_by_run_where_they_differ() -> None:
    same = {"a": ["x"], "b": ["x"]}
    assert list(left_alone({"output_layers": same})) == ["left as it is: x"]
    assert list(left_alone({"output_layers": {**same, "c": ["y", "z"]}})) == [
        "left as it is in a, b: x",
        "left as it is in c: y, z",
    ]


def test_what_the_task_says_of_itself_is_printed_once(spectra: Fixture) -> None:
    mlp_run()
    Path("own.py").write_text(
        "from tests.analyses import tiny_tasks\n"
        "class Own(tiny_tasks.Classification):\n    notice = 'Random numbers serve as data.'\n"
        "def make():\n    return Own(lambda: tiny_tasks.Network(7), tiny_tasks._vectors)\n"
    )
    outcome = spectra("prune-eval", "run", "--task", "own.py:make", "--variants", "full")
    assert outcome.err.count("Random numbers serve as data.") == 1
    assert spectra("prune-eval", "run", "--task", "own.py:make", "--variants", "full", "--quiet").err == ""


# 1


def test_a_run_json_that_names_a_file_is_1_and_runs_no_code(spectra: Fixture) -> None:
    directory = mlp_run()
    Path("own.py").write_text("raise SystemExit('run')")
    (directory / "run.json").write_text(json.dumps({"task": "own.py:make"}))
    outcome = spectra("prune-eval", "run")
    assert outcome.status == 1
    assert "If you trust it, pass --task own.py:make" in one_paragraph(outcome.err)
    assert not TABLE.exists()


BODY = """
from tests.analyses import tiny_tasks

def helper(batch):
    return batch.nope

class Own(tiny_tasks.Classification):
    def {member}:
        return helper(1)

def make():
    return Own(lambda: tiny_tasks.Network(7), tiny_tasks._vectors)
"""


@pytest.mark.parametrize("member", ["model(self)", "batches(self, split)", "metrics(self, model, batch)"])
def test_a_task_that_raises_is_1_and_its_own_line_is_shown(
    member: str, spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The innermost line of the user's file, and no more, unless the whole is asked for."""
    mlp_run()
    Path("own.py").write_text(BODY.format(member=member))
    outcome = spectra("prune-eval", "run", "--task", "own.py:make")
    assert outcome.status == 1
    message = one_paragraph(outcome.err)
    assert "own.py, line 5, in helper: return batch.nope: AttributeError: 'int' object has no attribute" in message
    assert "spectra_cli" not in message
    assert not TABLE.exists()
    monkeypatch.setenv("SPECTRA_DEBUG", "1")
    assert "Traceback" in spectra("prune-eval", "run", "--task", "own.py:make").err


def test_a_file_that_raises_when_it_is_loaded_is_1(spectra: Fixture) -> None:
    mlp_run()
    Path("own.py").write_text("import math\nmath.nope\n")
    message = one_paragraph(spectra("prune-eval", "run", "--task", "own.py:make").err)
    assert re.search(r"own\.py, line 2, in <module>: math\.nope: AttributeError", message)


def test_a_split_without_a_batch_is_1_and_names_the_task(spectra: Fixture) -> None:
    mlp_run()
    Path("own.py").write_text(
        "from tests.analyses import tiny_tasks\n"
        "class Own(tiny_tasks.Classification):\n    def batches(self, split):\n        return []\n"
        "def make():\n    return Own(lambda: tiny_tasks.Network(7), tiny_tasks._vectors)\n"
    )
    outcome = spectra("prune-eval", "run", "--task", "own.py:make")
    assert outcome.status == 1
    assert "task own.py:make: the split 'train' has no batch" in one_paragraph(outcome.err)


def test_a_single_checkpoint_that_does_not_fit_is_1_and_lists_the_names(spectra: Fixture, make_run: Fixture) -> None:
    path = make_run(steps=[0]) / "step_0.pt"
    outcome = spectra("prune-eval", path, *MLP)
    assert outcome.status == 1
    message = one_paragraph(outcome.err)
    assert message.startswith(f"Error: {path}: the checkpoint lacks 3 of the model's tensors: ")
    assert "output.weight" in message
    assert "--set KEY=VALUE" in message


# 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--task", "modular-adition"], "no task 'modular-adition'. Did you mean modular-addition"),
        (["--task", "absent.py:make"], "absent.py:make: there is no such file"),
        ([*MLP[:1], f"{MLP[1]}p"], "it has no callable 'mlpp'. "),
        ([*MLP, "--set", "width"], "--set width is not KEY=VALUE"),
        ([*MLP, "--set", "width=7", "--set", "width=8"], "--set width is given twice"),
        ([*MLP, "--set", "witdh=7"], "no option 'witdh'. Did you mean width"),
        ([*MLP, "--data", "here"], "no option 'data'"),
        ([*MLP, "--data", "here", "--set", "data=there"], "--data and --set data exclude each other"),
        ([*MLP, "--split", "test"], "--split test: the task has none. Its splits are train, val"),
        ([*MLP, "--batch-norm", "never"], "--batch-norm never"),
        ([*MLP, "--keep", "0"], "--keep 0"),
        ([*MLP, "--keep", "nan"], "--keep nan"),
        ([*MLP, "--mask-keep", "2"], "--mask-keep 2"),
        ([*MLP, "--mask-seed", "-1"], "--mask-seed -1"),
        ([*MLP, "--variants", "top,botom"], "no 'botom'. Give bottom"),
        ([*MLP, "--variants", ","], "--variants names none"),
        ([*MLP, "--output-layer", "head"], "--output-layer head matches no matrix"),
        ([*MLP, "--sva-out", "prune_eval.parquet"], "two tables would be written to prune_eval.parquet"),
        ([*MLP, "--tag", "keep=1"], "--tag keep"),
        ([*MLP, "--architecture", "nonsense"], "nonsense"),
        ([], "there is no run.json that says what it was trained on. Pass --task"),
    ],
)
def test_an_option_that_means_nothing_is_2_and_is_repeated(arguments: list[str], named: str, spectra: Fixture) -> None:
    mlp_run()
    outcome = spectra("prune-eval", "run", *arguments)
    assert outcome.status == 2
    assert named in one_paragraph(outcome.err)
    assert not TABLE.exists()


# 3


def test_a_checkpoint_that_cannot_be_used_is_a_row(spectra: Fixture, table: Fixture) -> None:
    directory = mlp_run()
    torch.save(tiny_tasks.mlp(9).model().state_dict(), directory / "step_300.pt")
    (directory / "step_400.pt").write_bytes(b"")
    outcome = spectra("prune-eval", "run", *MLP, "--variants", "full", "--sva-out", "sva.parquet")
    assert outcome.status == 3
    assert outcome.err.count("Warning: ") == 2
    bad = [(row["step"], row["status"]) for row in table(TABLE) if row["status"] != "ok"]
    assert bad == [(300, "state_mismatch"), (400, "corrupt")]
    assert "2 of 14 rows not ok: state_mismatch (1), corrupt (1); see the column status" in outcome.err
    assert table("sva.parquet")[-1]["status"] == "corrupt"


def test_a_value_that_is_not_finite_is_a_row_and_a_dash(spectra: Fixture, table: Fixture) -> None:
    directory = mlp_run()
    state = torch.load(directory / "step_200.pt", weights_only=True)
    state["second.weight"][0, 0] = math.nan
    torch.save(state, directory / "step_200.pt")
    outcome = spectra("prune-eval", "run", *MLP, "--split", "val")
    assert outcome.status == 3
    warnings = [line for line in outcome.err.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 2
    assert "1 of 2 matrices not_finite (second.weight): they hold NaN or infinity. Not evaluated: top, " in warnings[0]
    assert "1 of 10 values not_finite (val loss of full): the metrics of the task are NaN" in warnings[1]
    assert re.search(r"^ +200 +- +- +- +- +-$", outcome.err, re.MULTILINE)
    assert {row["status"] for row in table(TABLE) if row["step"] == 200 and row["metric"] == "loss"} == {"not_finite"}


def test_the_same_fault_in_many_checkpoints_is_two_messages(spectra: Fixture) -> None:
    directory = mlp_run(steps=(0, 1, 2, 3, 4))
    for path in directory.glob("*.pt"):
        state = torch.load(path, weights_only=True)
        state["second.weight"][0, 0] = math.inf
        torch.save(state, path)
    outcome = spectra("prune-eval", "run", *MLP, "--variants", "top", "--quiet")
    assert outcome.status == 3
    assert outcome.err.count("Warning: ") == 2
    assert "the same in 4 more of its checkpoints: 1 of 2 matrices not_finite: they hold NaN" in outcome.err


def test_options_that_contradict_the_run_json_are_named_where_the_checkpoint_does_not_fit(spectra: Fixture) -> None:
    """Only those that do; `--task` alone leaves the options of the run.json in force."""
    addition_run()
    said = "'encoder.weight' is 6 x 4 in the checkpoint and 8 x 4 in the task's model. "
    outcome = spectra("prune-eval", "run@final", "--set", "prime=7", "--set", "d_model=4")
    assert outcome.status == 1
    assert said + "Leave it to the run.json, which says prime=5, not 7." in one_paragraph(outcome.err)
    outcome = spectra("prune-eval", "run@final", "--task", "modular-addition", "--set", "prime=7")
    assert "which says prime=5, not 7." in one_paragraph(outcome.err)
    outcome = spectra("prune-eval", "run@final", *MLP)
    assert f"Leave it to the run.json, which says the task modular-addition, not {MLP[1]}." in outcome.err
    (Path("run") / "run.json").unlink()
    outcome = spectra("prune-eval", "run@final", "--task", "modular-addition", "--set", "prime=7")
    assert "Give the --task and the options" in one_paragraph(outcome.err)


def test_a_table_of_another_kind_is_not_replaced(spectra: Fixture) -> None:
    """Neither the metrics of the run itself, as a slip in --out would have it."""
    directory = addition_run()
    assert spectra("rank", directory, "--out", "run/metrics.parquet").status == 0
    before = Path("run/metrics.parquet").read_bytes()
    outcome = spectra("prune-eval", "run@final", "--variants", "full", "--out", "run/metrics.parquet")
    assert outcome.status == 1
    assert "run/metrics.parquet: this file is a table rank; a table prune_eval does not replace it" in outcome.err
    assert Path("run/metrics.parquet").read_bytes() == before


def test_the_file_says_which_layer_was_left_alone(spectra: Fixture) -> None:
    addition_run()
    assert spectra("prune-eval", "run@final", "--variants", "full,top").status == 0
    metadata = pq.read_metadata(TABLE).metadata
    assert json.loads(metadata[b"spectra.output_layers"]) == {".": ["decoder.weight"]}
