"""What a training will be, settled before a model is made: task, recipe, beginning, and the run it may go on with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from spectra_cli import __version__
from spectra_cli.errors import UsageError
from spectra_cli.execution.executors.device import resolve_device
from spectra_cli.execution.training.options import MaskChoice, TrainOptions
from spectra_cli.execution.training.origins import Origin, Trunk, find_origin, find_trunk, options_of_trunk
from spectra_cli.execution.training.record import (
    check_same,
    chosen_recipe,
    existing_record,
    recipe_of,
    recorded_options,
)
from spectra_cli.tasks.base import Recipe, TrainableTask
from spectra_cli.tasks.names import settled_name
from spectra_cli.tasks.registry import make_task
from spectra_cli.tasks.runfile import NAME, RunRecord
from spectra_cli.tasks.schedules import saved_steps
from spectra_cli.tasks.training import trainable

MOST_THREADS = 1024


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A training, before it begins.

    Attributes:
        options: what the user chose.
        task: made.
        recipe: the task's or the trunk's, with what the user chose otherwise.
        seed: of all randomness.
        record: for run.json.
        saved: the steps to save, ascending; the first is where the training begins.
        trunk: the run that it goes on from, if any.
        mask_origin: the checkpoint whose weights give the mask, if any.
        existing: the record of the same training that the directory holds, if any.
        device: that it runs on.
        threads: of the CPU.
        remarks: what the user should know before it begins.
    """

    options: TrainOptions
    task: TrainableTask
    recipe: Recipe
    seed: int
    record: RunRecord
    saved: tuple[int, ...]
    trunk: Trunk | None
    mask_origin: Origin | None
    existing: RunRecord | None
    device: torch.device
    threads: int
    remarks: tuple[str, ...]

    @property
    def first_step(self) -> int:
        """Step at which it begins: 0, or the step of a trunk."""
        return self.saved[0]

    @property
    def total_steps(self) -> int:
        """The last step."""
        return self.saved[-1]


def plan_training(options: TrainOptions) -> TrainingPlan:
    """Settle all that can be wrong before there is a model.

    Raises:
        SpectraError: if it cannot be trained so, or the directory holds another training.
    """
    existing = existing_record(options.out)
    if existing is not None and _keeps_optimizer(existing):
        options = replace(options, save_optimizer=True)  # it changes nothing about the training
    begins_from = options.begins_from
    trunk = find_trunk(begins_from[1], begins_from[0]) if begins_from else None
    mask_origin = find_origin(options.mask.source, "--mask-from", final=True) if options.mask else None
    if trunk is None:
        settings: dict[str, Any] = dict(options.settings)
        recorded = recorded_options(options.task, settings)
    else:
        settings = recorded = options_of_trunk(trunk, options.task, options.settings)
    task = trainable(make_task(options.task, settings, files_allowed=True, source="TASK"), options.task)
    base = recipe_of(trunk.record, str(trunk.origin.run.root / NAME)) if trunk else None
    recipe = chosen_recipe(base or task.recipe, options)
    seed = options.seed if options.seed is not None else (trunk.record.seed or 0) if trunk else 0
    saved = _saved_steps(options, task, recipe, trunk)
    device, threads = resolve_device(options.device), _threads(options, existing)
    record = RunRecord(
        task=settled_name(options.task),
        options=recorded,
        seed=seed,
        trunk=trunk.origin.named_from(options.out) if trunk else None,
        split_step=trunk.origin.step if trunk else None,
        training={
            **_course(options, recipe, task.training_count, saved[-1], mask_origin),
            "environment": {
                "spectra": __version__,
                "torch": torch.__version__,
                "device": device.type,
                "threads": threads,
            },
        },
    )
    remarks = []
    if existing is not None:
        check_same(existing, record, recipe, options)
        remarks += _changed_environment(existing, record)
    elif trunk is not None:
        remarks += _remarks_on_branch(trunk, record, recipe)
    return TrainingPlan(
        options, task, recipe, seed, record, saved, trunk, mask_origin, existing, device, threads, tuple(remarks)
    )


def _course(
    options: TrainOptions, recipe: Recipe, training_count: int, total_steps: int, mask_origin: Origin | None
) -> dict[str, Any]:
    """All of how a training goes that decides its trajectory, as run.json has it."""
    return {
        "recipe": json.loads(json.dumps(asdict(recipe))),  # as it reads from a file
        "training_count": training_count,
        "total_steps": total_steps,
        "save": {"every": options.save_every, "log_spaced": options.log_saves, "optimizer": options.save_optimizer},
        "perturb": asdict(options.perturb) if options.perturb else None,
        "mask": _recorded_mask(options.mask, mask_origin, options) if options.mask else None,
        "output_layer": options.output_layer,
    }


def _saved_steps(options: TrainOptions, task: TrainableTask, recipe: Recipe, trunk: Trunk | None) -> tuple[int, ...]:
    """The steps to save.

    Raises:
        UsageError: if there is nothing to train, or the noise comes outside of it.
    """
    total, first = recipe.total_steps(task.training_count), trunk.origin.step if trunk else 0
    if total < 1:
        raise UsageError("the task's recipe has no length", remedy="Give --steps or --epochs")
    if total <= first:
        raise UsageError(
            f"the training is {total} steps long and begins at step {first}", remedy=f"Give --steps above {first}"
        )
    noise = options.perturb
    if noise is not None and not first <= noise.step <= total:
        raise UsageError(
            f"--perturb {noise.eta:g}@{noise.step}: the training goes from step {first} to {total}",
            remedy="Name a step of it",
        )
    return saved_steps(
        total,
        recipe.steps_per_epoch(task.training_count),
        first=first,
        every=options.save_every,
        log_spaced=options.log_saves,
        also=() if noise is None else (noise.step,),
    )


def _keeps_optimizer(record: RunRecord) -> bool:
    """Whether a run began with --save-optimizer."""
    save = record.training.get("save")
    return isinstance(save, dict) and save.get("optimizer") is True


def _recorded_mask(choice: MaskChoice, origin: Origin | None, options: TrainOptions) -> dict[str, Any]:
    assert origin is not None  # noqa: S101 - found wherever a mask is asked for
    return {
        "kind": choice.kind,
        "keep": choice.keep,
        "run": origin.named_from(options.out),
        "step": origin.step,
        "seed": choice.seed if choice.kind == "random" else None,
    }


def _threads(options: TrainOptions, existing: RunRecord | None) -> int:
    """Number the user gives, else that the run began with: sums over other numbers of threads have other last bits."""
    environment = existing.training.get("environment") if existing else None
    before = environment.get("threads") if isinstance(environment, dict) else None
    if options.threads is None and isinstance(before, int) and 1 <= before <= MOST_THREADS:
        return before
    return options.threads or torch.get_num_threads()


def _changed_environment(old: RunRecord, new: RunRecord) -> list[str]:
    before, after = old.training.get("environment"), new.training["environment"]
    if not isinstance(before, dict):
        return []
    changes = [f"{name} {before.get(name)}, now {value}" for name, value in after.items() if before.get(name) != value]
    if not changes:
        return []
    return [f"the run began with {'; '.join(changes)}: its last bits may differ from those of a run without a break."]


def _remarks_on_branch(trunk: Trunk, record: RunRecord, recipe: Recipe) -> list[str]:
    """Notes on what is allowed for a branch but rarely meant."""
    found = []
    training, of_trunk = record.training, trunk.record.training
    forced = training["perturb"] or training["mask"] or training["recipe"] != of_trunk.get("recipe")
    if not forced and record.seed == trunk.record.seed:
        found.append(f"the seed is the trunk's, {record.seed}: the branch meets the same data in the same order.")
    elif not forced and recipe.batch_size is None:
        found.append("every batch holds all data: another seed alone does not change the order. --perturb would.")
    if of_trunk.get("mask") and not training["mask"]:
        found.append("the trunk was trained with a mask; the branch has none.")
    return found
