"""What those who do the work tell of it, wherever they are: everything here can be pickled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CheckpointOpened:
    """A checkpoint is opened.

    Attributes:
        matrices: how many of it are to be factorized.
        flops: floating-point operations that will take, roughly.
    """

    matrices: int
    flops: float


@dataclass(frozen=True, slots=True)
class MatrixDone:
    """A matrix is finished, well or not.

    Attributes:
        flops: floating-point operations, as they were counted when the checkpoint was opened.
    """

    flops: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A model is being evaluated.

    Attributes:
        what: is evaluated now, in a few words for people.
        share: of all evaluations of one unit, those done since the last such event.
    """

    what: str
    share: float


@dataclass(frozen=True, slots=True)
class CheckpointDone:
    """All that a checkpoint was opened for is done, well or not."""


RemarkKind = Literal["problem", "once", "checkpoint", "notice"]

Event = CheckpointOpened | MatrixDone | Evaluated | CheckpointDone


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that people should know.

    Attributes:
        message: one or two sentences.
        kind: ``problem``, told as it is; ``once``, told unless the same matter was told before; ``checkpoint``, which
            may be the same in many checkpoints of a run, so that they are counted; ``notice``, where nothing is wrong.
        matter: what it is about, for ``once``; the message itself if None.
    """

    message: str
    kind: RemarkKind = "problem"
    matter: str | None = None
