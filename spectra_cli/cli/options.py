"""Options and arguments that commands share, each with its help, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SELECTION = "Which checkpoints and matrices"
TASK = "The task"
COMPARISON = "What to compare with"
MODEL = "What the model is"
WORK = "Where and how the work is done"
RESULT = "What comes out"

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        help="A checkpoint, a run (directory of checkpoints) or a directory of runs, here or in remote storage "
        "(s3://bucket/runs/a, gs://, hf://). PATH@STEP picks one step: runs/a@400, runs/a@first, runs/a@final.",
        show_default=False,
    ),
]
Tables = Annotated[
    list[Path],
    typer.Argument(
        metavar="TABLE",
        help="A table that spectra wrote, or a directory of tables, such as that of spectra analyze.",
        show_default=False,
    ),
]
RunGlobs = Annotated[
    list[str] | None,
    typer.Option(
        "--run",
        metavar="GLOB",
        help="Take these runs of the tables only. Repeatable.",
        rich_help_panel=SELECTION,
        show_default=False,
    ),
]
Steps = Annotated[
    str | None,
    typer.Option(
        help="Steps to take: 0,400,first,final and inclusive ranges 100:900, :900, 100:. Epochs where there are no "
        "steps.",
        rich_help_panel=SELECTION,
        show_default=False,
    ),
]
Every = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Take every N-th checkpoint, and the last.", rich_help_panel=SELECTION, show_default=False
    ),
]
LogSpaced = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Take at most N checkpoints, evenly spaced in log(step).",
        rich_help_panel=SELECTION,
        show_default=False,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Analyse parameters that match, such as '*.mlp.*'. Repeatable.",
        rich_help_panel=SELECTION,
        show_default=False,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Leave out parameters that match. Repeatable.",
        rich_help_panel=SELECTION,
        show_default=False,
    ),
]
Transposed = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Parameters stored as (in, out, ...), such as transposed convolutions whose names do not say so. "
        "Repeatable.",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
SkipIncomplete = Annotated[
    bool,
    typer.Option(
        "--skip-incomplete",
        help="Go on without checkpoints of which a shard is absent, instead of stopping before any work.",
        rich_help_panel=SELECTION,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, cpu, cuda, cuda:N or mps; of several, such as cuda:0,cuda:1, each has a worker.",
        rich_help_panel=WORK,
    ),
]
OneDevice = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=WORK)]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Processes that share the work and the cores. Default: one for each device.",
        rich_help_panel=WORK,
        show_default=False,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Have the work done by the workers of a Dask cluster: tcp://head:8786, or the .json file that its "
        "scheduler writes, which is waited for.",
        rich_help_panel=WORK,
        show_default=False,
    ),
]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh", help="Start over, whatever is there, instead of doing only what is new.", rich_help_panel=RESULT
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read and hash weights and config.json again, instead of trusting size and time of files; those of data "
        "are trusted.",
        rich_help_panel=RESULT,
    ),
]
Watch = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Follow a run that goes on: look for new checkpoints every so often, until interrupted. `sva` "
        "and `analyze` need another --reference than the final one.",
        rich_help_panel=WORK,
        show_default=False,
    ),
]
MemoryBudget = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Working memory, such as 512MiB or 8GB. Default: half of what is free.",
        rich_help_panel=WORK,
        show_default=False,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but errors and what was skipped.", rich_help_panel=RESULT)
]
Json = Annotated[
    bool, typer.Option("--json", help="Print a summary as JSON to standard output.", rich_help_panel=RESULT)
]
Tag = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Add a constant column of text to the table. Repeatable.",
        rich_help_panel=RESULT,
        show_default=False,
    ),
]
Out = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="The Parquet file or URL to write; of one that is there, rows of what is unchanged are kept.",
        rich_help_panel=RESULT,
    ),
]
OutDirectory = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        help="The directory or URL for the tables, made if need be; of those that are there, rows of what is unchanged "
        "are kept.",
        rich_help_panel=RESULT,
    ),
]
Full = Annotated[
    bool,
    typer.Option("--full", help="Add the leading 100 x 100 block of every alignment matrix.", rich_help_panel=RESULT),
]
Architecture = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The model's family, a .toml file that describes one, or 'sequential'. Default: told from the names.",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
Heads = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Attention heads. Default: what config.json says.", rich_help_panel=MODEL, show_default=False
    ),
]
KvHeads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Key and value heads, in grouped-query attention. Default: what config.json says, else --heads.",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="WHICH",
        help="What to compare with: final (the default), first, previous or a step of the same run.",
        rich_help_panel=COMPARISON,
        show_default=False,
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Compare with the checkpoints of the same steps of this run, or the last with its last.",
        rich_help_panel=COMPARISON,
        show_default=False,
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What the model does: a task's name, or path/to/file.py:callable, whose code is then run. Default: what "
        "the run.json beside the checkpoints says.",
        rich_help_panel=TASK,
        show_default=False,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An option of the task, such as prime=59. Repeatable.",
        rich_help_panel=TASK,
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="A local copy of the data. Default: that of the run.json, else what the task brings with it.",
        rich_help_panel=TASK,
        show_default=False,
    ),
]
Split = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Evaluate this part of the data only, such as val. Repeatable.",
        rich_help_panel=TASK,
        show_default=False,
    ),
]
BatchNorm = Annotated[
    str,
    typer.Option(
        metavar="POLICY",
        help="Running statistics of batch normalization: reestimate, from the training split for every set of weights "
        "alike; or stored, as they stand.",
        rich_help_panel=TASK,
    ),
]
OutputLayer = Annotated[
    str | None,
    typer.Option(
        metavar="GLOB",
        help="Parameters of the output layer, which is left as it is. Default: told from the model; else the last "
        "matrix.",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
