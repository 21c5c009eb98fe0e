"""Options and arguments that commands share, each with its help, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SELECTION = "Which checkpoints and matrices"
WORK = "Where and how the work is done"
RESULT = "What comes out"

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        help="A checkpoint, a run (directory of checkpoints) or a directory of runs. PATH@STEP picks one step: "
        "runs/a@400, runs/a@first, runs/a@final.",
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
        rich_help_panel=SELECTION,
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
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=WORK)]
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
RankOut = Annotated[Path, typer.Option(metavar="FILE", help="The Parquet file to write.", rich_help_panel=RESULT)]
