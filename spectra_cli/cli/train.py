"""`spectra train`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectra_cli.cli import options, output, parsing
from spectra_cli.cli.interruption import signal_told

if TYPE_CHECKING:
    from spectra_cli.execution.training.options import TrainOptions

LENGTH = "How long and how fast"
SAVING = "What is saved"
VARIATION = "Branches, noise and masks"


def train(
    context: typer.Context,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="What to train: modular-addition, image-classification, diffusion, speech, language-modeling, another "
            "task that `spectra tasks` lists, or path/to/file.py:callable, whose code is then run.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="RUN",
            help="The directory for the checkpoints, made if need be. The same command again goes on where it stopped.",
            rich_help_panel=SAVING,
            show_default=False,
        ),
    ],
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="S",
            help="Seed of initialization, data order and dropout. Default: the trunk's, else 0.",
            rich_help_panel=LENGTH,
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Train for so many steps. Default: the task's recipe, as with all options here.",
            rich_help_panel=LENGTH,
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Train for so many passes over the data.",
            rich_help_panel=LENGTH,
            show_default=False,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", metavar="X", help="Peak learning rate.", rich_help_panel=LENGTH, show_default=False),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(metavar="X", help="Weight decay of all parameters.", rich_help_panel=LENGTH, show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Examples of a step.", rich_help_panel=LENGTH, show_default=False),
    ] = None,
    settings: options.Set = None,
    data: options.Data = None,
    save_every: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Save every N steps, besides the first, the last and five in the first epoch. Default: a twentieth of "
            "the length, rounded up to 1, 2 or 5 times a power of ten.",
            rich_help_panel=SAVING,
            show_default=False,
        ),
    ] = None,
    log_saves: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Save N steps evenly spaced in log(step) instead, and step 0.",
            rich_help_panel=SAVING,
            show_default=False,
        ),
    ] = None,
    save_optimizer: Annotated[
        bool,
        typer.Option(
            "--save-optimizer",
            help="Keep the optimizer's state of every checkpoint too, so that branches go on exactly as the run did. "
            "A run that began with it keeps them without it as well.",
            rich_help_panel=SAVING,
        ),
    ] = False,
    branch_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN@STEP",
            help="Go on from a checkpoint of another run, with its options and recipe; another --seed gives another "
            "order of the data.",
            rich_help_panel=VARIATION,
            show_default=False,
        ),
    ] = None,
    perturb: Annotated[
        str | None,
        typer.Option(
            metavar="ETA@STEP",
            help="At this step add Gaussian noise of Frobenius norm ETA * ||W|| to every matrix W but the output "
            "layer's.",
            rich_help_panel=VARIATION,
            show_default=False,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:KEEP",
            help="Train a part of the weights, the others stay 0: magnitude:0.05 keeps the largest 5 % of all linear "
            "and convolution weights but the output layer's, random:0.05 as many of each layer as magnitude:0.05 of "
            "--mask-from keeps, but any of them.",
            rich_help_panel=VARIATION,
            show_default=False,
        ),
    ] = None,
    mask_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN@STEP",
            help="The checkpoint whose weights give the mask, or of a random mask the number of weights in each "
            "layer; the last one of a run without a step.",
            rich_help_panel=VARIATION,
            show_default=False,
        ),
    ] = None,
    mask_seed: Annotated[
        int | None,
        typer.Option(
            metavar="S", help="Seed of a random mask. Default: 0.", rich_help_panel=VARIATION, show_default=False
        ),
    ] = None,
    rewind: Annotated[
        str | None,
        typer.Option(
            metavar="RUN@STEP",
            help="Put the mask on the weights of this checkpoint and train from its step on. Default: on this run's "
            "own initialization.",
            rich_help_panel=VARIATION,
            show_default=False,
        ),
    ] = None,
    output_layer: options.OutputLayer = None,
    device: options.OneDevice = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Threads of the CPU. Default: torch's choice, or what the run began with.",
            rich_help_panel=options.WORK,
            show_default=False,
        ),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train a task and save its checkpoints; the same command again goes on after a kill, bit for bit.

    Example: spectra train modular-addition --set prime=31 --steps 400 --out runs/addition
    """
    from spectra_cli.execution.training.options import TrainOptions, parse_mask, parse_noise

    chosen = TrainOptions(
        task=task,
        out=out,
        settings=parsing.task_settings(settings, data),
        seed=seed,
        steps=steps,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        batch_size=batch_size,
        save_every=save_every,
        log_saves=log_saves,
        save_optimizer=save_optimizer,
        branch_from=branch_from,
        perturb=None if perturb is None else parse_noise(perturb),
        mask=parse_mask(mask, mask_from, mask_seed),
        rewind=rewind,
        output_layer=output_layer,
        device=device,
        threads=threads,
    )
    _run(chosen, ["spectra", *(context.obj or ())], quiet=quiet, as_json=as_json)


def _run(chosen: TrainOptions, command: Sequence[str], *, quiet: bool, as_json: bool) -> None:
    """Train, and say what came out.

    Raises:
        SpectraError: if it could not be done, or was interrupted.
    """
    started = time.monotonic()
    from spectra_cli.cli import trainshow
    from spectra_cli.execution.training.plan import plan_training
    from spectra_cli.execution.training.run import run_training

    plan = plan_training(chosen)
    with (
        trainshow.TrainingProgress(plan.total_steps, quiet=quiet) as progress,
        signal_told(lambda signal_sent: trainshow.interrupted(progress, chosen.out, signal_sent)),
    ):
        result = run_training(plan, progress, command)
    if as_json:
        output.json_line(trainshow.as_json(plan, result, progress.problems))
    if not quiet:
        trainshow.print_summary(output.stderr_console(), plan, result, elapsed_s=time.monotonic() - started)
