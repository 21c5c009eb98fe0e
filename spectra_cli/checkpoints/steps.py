"""What the name of a checkpoint says of when it was saved."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from spectra_cli.checkpoints.filenames import MODEL_SUFFIXES

NaturalKey = tuple[tuple[str | int, ...], str]

LARGEST_STEP = 2**63 - 1
"""Steps and epochs are int64 columns."""

LONGEST_COUNT = 18
"""Digits of a count; a longer row is a hash or a time."""

# A number is whole unless it is scaled (10k, 1.5M), and ends where the word does: `7b`, `1.5B`, `3f9a` are none.
_COUNT = r"(?P<count>[0-9]+(?:\.[0-9]+)?[kKmM]|[0-9]+(?!\.[0-9]))(?![0-9A-Za-z])"
_STEP_WORDS = r"global[-_ ]?steps?|steps?|iterations?|iters?|itr|it|updates?|ba"
_EPOCH_WORDS = r"epochs?|ep"
_SAVE_WORDS = r"checkpoints?|ckpts?"
_BETWEEN = r"[-_=. ]{0,2}"
_STEP = re.compile(rf"(?<![A-Za-z])(?:{_STEP_WORDS}){_BETWEEN}{_COUNT}", re.IGNORECASE)
_EPOCH = re.compile(rf"(?<![A-Za-z])(?:{_EPOCH_WORDS}){_BETWEEN}{_COUNT}", re.IGNORECASE)
_SAVE = re.compile(rf"(?<![A-Za-z])(?:{_SAVE_WORDS}){_BETWEEN}{_COUNT}", re.IGNORECASE)
_THOUSANDS = re.compile(  # step_1_000, as Python writes 1000 with f"{step:_}"
    rf"(?<![A-Za-z])(?:{_STEP_WORDS}|{_EPOCH_WORDS}|{_SAVE_WORDS}){_BETWEEN}"
    r"(?P<count>[1-9][0-9]{0,2}(?:(?P<mark>[_,])[0-9]{3})(?:(?P=mark)[0-9]{3})*)(?![0-9A-Za-z]|[_,][0-9])",
    re.IGNORECASE,
)
# A dot separates only where no digit stands before it: `model.12` is a step, `acc_0.95` and `v1.12` are not.
_TRAILING = re.compile(r"(?P<before>.*?)(?:^|[-_ @]|(?<![0-9])\.)(?P<count>[0-9]+)")

_VERSION = re.compile(r"[-_]v[0-9]+$")  # Lightning's mark of a second file of the same name
_DATE = re.compile(r"(?<![0-9])(?:19|20)[0-9]{2}[-_.]?[01][0-9][-_.]?[0-3][0-9](?:[-_T .]?[0-9]{2}[-_:.]?[0-9]{2}.*)?$")
_TIME = re.compile(r"(?<![0-9])[0-2][0-9]([-:])[0-5][0-9]\1[0-5][0-9]$")  # Hydra's outputs/2024-01-13/10-22-05
_SHARD_NUMBER = re.compile(r"[-_.][0-9]+-of-[0-9]+$")
_EXPONENT = re.compile(r"[0-9]e-[0-9]+$", re.IGNORECASE)

_GENERIC_WORDS = frozenset(
    {
        "model",
        "models",
        "checkpoint",
        "checkpoints",
        "ckpt",
        "ckpts",
        "weights",
        "weight",
        "state",
        "states",
        "dict",
        "net",
        "network",
        "params",
        "pytorch",
        "snapshot",
        "save",
        "saved",
        "step",
        "steps",
        "epoch",
        "iter",
        "iteration",
        "global",
        "adapter",
    }
)
_ALIAS_WORDS = frozenset({"last", "latest", "best", "final", "newest", "recent", "current", "end"})
_INITIAL_WORDS = frozenset({"init", "initial", "initialization", "initialisation"})
# Copies kept on purpose beside the model: of the same step, and not the same weights.
_OTHER_MODELS = frozenset({"ema", "swa", "averaged", "average", "avg", "teacher", "target", "momentum"})
# A number after one of these counts something else than training steps.
_COUNTED_ELSEWHERE = frozenset(
    {
        "seed",
        "rank",
        "fold",
        "version",
        "v",
        "run",
        "trial",
        "exp",
        "experiment",
        "layer",
        "block",
        "head",
        "gpu",
        "part",
        "shard",
        "group",
        "worker",
        "split",
        "patch",
        "size",
        "width",
        "depth",
        "dim",
        "lr",
        "wd",
        "bs",
    }
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a checkpoint was saved.

    Attributes:
        step: optimizer steps, or what the run counts in their place; None if unknown.
        epoch: None if unknown.
        explicit: whether a word says what the number counts (``step_100``), or the name holds nothing else (``000100``,
            ``model_100``). A number behind a name of its own (``mlp_100``) is a step of a file; a directory may be
            called so for another reason.
    """

    step: int | None = None
    epoch: int | None = None
    explicit: bool = False

    @property
    def known(self) -> bool:
        """Whether the step or the epoch is known."""
        return self.step is not None or self.epoch is not None


def moment_of(name: str) -> Moment:
    """Read step and epoch off the name of a checkpoint file or directory.

    Understood are words followed by a number (``step_1000``, ``global_step1000``, ``iter_0000500``, ``step_10k``,
    ``step_1_000``, ``epoch=3-step=400``, ``ep3_it500``, ``checkpoint-500``), a bare number at the end (``model_12.pt``,
    ``000100.pt``), and ``init``, which is step 0 of epoch 0. Sizes (``7b``, ``resnet18``), dates, hashes, scores
    (``acc=0.95``), seeds and shard numbers are no steps.

    Args:
        name: one part of a path, with or without a suffix.
    """
    stem = _THOUSANDS.sub(lambda match: match[0].replace(match["mark"], ""), stem_of(name))
    step = _last_count(_STEP, stem)
    epoch = _last_count(_EPOCH, stem)
    if step is not None or epoch is not None:
        return Moment(step, epoch, explicit=True)
    words = _words(stem)
    if words and words <= _GENERIC_WORDS | _INITIAL_WORDS and words & _INITIAL_WORDS:
        return Moment(0, 0, explicit=True)
    return _trailing_number(stem) or Moment(_last_count(_SAVE, stem), explicit=_SAVE.search(stem) is not None)


def stem_of(name: str) -> str:
    """The name without the suffixes of model files, shard numbers and Lightning's ``-v1``."""
    stem = name
    while stem.lower().endswith(MODEL_SUFFIXES):
        stem = stem[: stem.rindex(".")]
    return _VERSION.sub("", _SHARD_NUMBER.sub("", stem))


def is_alias_name(name: str) -> bool:
    """Whether a file of this name is apt to repeat another checkpoint: ``last.ckpt``, ``model_best.pth``, ``model.pt``.

    Names of averaged copies of the model are not: those hold other weights at the same step.
    """
    words = _words(stem_of(name))
    if words & _OTHER_MODELS:
        return False
    return bool(words & _ALIAS_WORDS) or (words <= _GENERIC_WORDS and not moment_of(name).known)


def is_alias_directory(name: str) -> bool:
    """Whether a directory of this name holds a checkpoint of the run around it: ``final``, ``checkpoint-last``."""
    words = _words(stem_of(name))
    return bool(words & _ALIAS_WORDS) and words <= _GENERIC_WORDS | _ALIAS_WORDS


def parse_count(text: str) -> int | None:
    """Read a whole number, scaled or not (``400``, ``10k``, ``1.5M``); None where the text is none."""
    match = re.fullmatch(_COUNT, text)
    return _count(match["count"]) if match else None


def natural_key(name: str) -> NaturalKey:
    """Sort key that compares runs of digits as numbers: ``step_9`` comes before ``step_10``."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name


def nearest(wanted: int, available: Collection[int], limit: int = 5) -> list[int]:
    """The available steps closest to the wanted one, ascending."""
    return sorted(sorted(set(available), key=lambda step: (abs(step - wanted), step))[:limit])


def _trailing_number(stem: str) -> Moment | None:
    if _DATE.search(stem) or _TIME.search(stem) or _EXPONENT.search(stem):
        return None
    match = _TRAILING.fullmatch(stem)
    if match is None:
        return None
    before = _words(match["before"])
    last_word = re.search(r"([A-Za-z]+)[^A-Za-z0-9]*$", match["before"])
    count = _count(match["count"])
    if count is None or (last_word and last_word[1].lower() in _COUNTED_ELSEWHERE):
        return None
    return Moment(count, explicit=before <= _GENERIC_WORDS)


def _last_count(pattern: re.Pattern[str], stem: str) -> int | None:
    # The last one counts: what stands before it is the name of the experiment.
    counts = [count for match in pattern.finditer(stem) if (count := _count(match["count"])) is not None]
    return counts[-1] if counts else None


def _count(text: str) -> int | None:
    digits = text.lstrip("0")
    if len(digits) > LONGEST_COUNT:
        return None
    scale = {"k": 1_000, "m": 1_000_000}.get(text[-1].lower())
    if scale is None:
        return int(digits or "0")
    value = round(float(text[:-1]) * scale)
    return value if value <= LARGEST_STEP else None


def _words(stem: str) -> frozenset[str]:
    """The words of a name, in lower case; a number on its own is none, ``v2`` and ``resnet18`` are."""
    return frozenset(word for word in re.split(r"[^0-9A-Za-z]+", stem.lower()) if word and not word.isdigit())
