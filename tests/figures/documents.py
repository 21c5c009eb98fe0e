"""Documents to build pages from: one as large as the report of a real model, one of what strangers may write."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from spectra_cli.figures.page.document import Axis, Detail, Document, Grid, Lines, RunView, Series, TextTable

HOSTILE = (
    "<script>alert(1)</script>",
    "a\"b'c",
    "$x$",
    "</script><!-- <img src=x onerror=alert(2)>",
    "left\u202egnp.exe\u2069\nright\u2028\x00\ud800",
    "{a|b} &amp; \\u003c `${1}`",
)
"""Names that break what escapes too little: HTML, attributes, mathtext, scripts, lines, text direction, templates."""

STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 140_000, 1000)]


def transformer_names(layers: int = 12) -> list[str]:
    """The matrices of a GPT-NeoX model."""
    inner = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    extra = ("attention.rotary_gate", "mlp.gate")  # so that there are 76 at 12 layers, with an adapter
    blocks = [f"gpt_neox.layers.{i}.{part}.weight" for i in range(layers) for part in (*inner, *extra)]
    return ["gpt_neox.embed_in.weight", *blocks, "adapter.down.weight", "adapter.up.weight", "embed_out.weight"]


def grid(key: str, names: list[str], steps: list[int], values: np.ndarray, **other: object) -> Grid:
    """A heat map with the texts that it needs."""
    return Grid(
        **{  # type: ignore[arg-type]  # keywords as they come
            "key": key,
            "title": key.replace("_", " ").capitalize(),
            "value_label": "effective rank / R",
            "x": Axis(label="step", values=steps),
            "y_label": "matrix (depth downwards)",
            "names": names,
            "values": values,
            "domain": (0.0, 1.0),
            "summary": f"Of {len(names)} matrices, most are compressed from step {steps[0]} to step {steps[-1]}.",
            **other,
        }
    )


def falling(rows: int, steps: list[int], seed: int) -> np.ndarray:
    """Values in (0, 1) that fall with the step, (rows, steps), float64."""
    generator = np.random.default_rng(seed)
    pace = generator.uniform(0.3, 1.2, (rows, 1))
    progress = np.log1p(steps) / np.log1p(steps[-1])
    return 0.92 - 0.75 * pace / 1.2 * progress**3 + generator.normal(0, 0.004, (rows, len(steps)))


def matrix_detail(name: str, depth: int, steps: list[int], lines: int = 24) -> Detail:
    """Singular values and agreement of one matrix, all made up."""
    at = np.asarray(steps)
    index = np.unique(np.geomspace(1, 768, lines).astype(int))
    progress = np.log1p(at) / np.log1p(at[-1])
    spectra = [20 / i**0.5 * (1 + 8 * progress**2 / i) + 0.0001 * depth for i in index]
    agreement = np.clip(progress[None, :] ** np.arange(1, 25)[:, None], 0, 1)
    return Detail(
        name=name,
        caption=f"linear, 768 x 3072, depth {depth}",
        charts=[
            Lines(
                key="singular_values",
                title="Singular values",
                x_label="step",
                y_label="singular value",
                y_scale="log",
                ordered=True,
                series=[Series(name=f"i = {i}", x=at, y=y) for i, y in zip(index, spectra, strict=True)],
                summary=f"Singular values of {name}: the largest grows ninefold.",
            ),
            grid(
                "agreement",
                [f"{i}" for i in range(1, 25)],
                steps,
                agreement,
                value_label="agreement with the last checkpoint",
                y_label="index i",
                ordered=True,
            ),
        ],
        facts=[("effective rank", "700.1 to 213.4"), ("spectral norm", "20.1 to 180.2")],
    )


def curves(steps: list[int], seed: int) -> list[Lines]:
    """A loss that falls, with a band, and an error that reaches zero."""
    at = np.asarray(steps)
    loss = 1 + 9 * np.exp(-np.log1p(at) / 4)
    generator = np.random.default_rng(seed)
    names = ("full, train", "full, val", "top half, train", "top half, val", "bottom half, val")
    series = [
        Series(name=name, x=at, y=loss * (1 + 0.12 * i), band=0.3 + 0.05 * generator.random(len(at)) if i < 2 else None)
        for i, name in enumerate(names)
    ]
    error = np.clip(1 - np.log1p(at) / 9, 0, 1)
    errors = [Series(name="train", x=at, y=error), Series(name="val", x=at[::10], y=np.clip(error[::10] + 0.1, 0, 1))]
    return [
        Lines(key="loss", title="Loss", x_label="step", y_label="loss / nat", series=series, summary="The loss falls."),
        Lines(key="error", title="Error", x_label="step", y_label="error", series=errors, summary="The error falls."),
    ]


def run_view(name: str, steps: list[int], names: list[str], seed: int) -> RunView:
    """Three heat maps, two of which open details, and curves."""
    values = falling(len(names), steps, seed)
    values[5, 3:9] = np.nan
    notes = {(5, column): "not_finite" for column in range(3, 8)}
    details = [matrix_detail(matrix, depth, steps) for depth, matrix in enumerate(names)]
    connections = [f"{a} -> {b}" for a, b in pairwise(names)]
    opening = range(len(names))
    return RunView(
        name=name,
        grids=[
            grid("effective_rank", names, steps, values, notes=notes, details=opening),
            grid("agreement", names, steps, 1 - falling(len(names), steps, seed + 1), details=opening),
            grid(
                "alignment",
                connections,
                steps,
                1 - falling(len(names) - 1, steps, seed + 2),
                value_label="alignment score",
                y_label="connection (depth downwards)",
            ),
        ],
        lines=curves(steps, seed),
        details=details,
        opened=len(names) // 2,
    )


def barrier() -> Lines:
    """Loss between two checkpoints, whose horizontal axis is no step."""
    alpha = np.linspace(0, 1, 11)
    return Lines(
        key="barrier",
        title="Loss between seed_0 and seed_5",
        x_label="alpha",
        y_label="validation loss / nat",
        x_scale="linear",
        series=[
            Series(name="loss", x=alpha, y=1 + 4 * alpha * (1 - alpha)),
            Series(name="linear interpolation of the ends", x=alpha, y=np.ones(11)),
        ],
        summary="The barrier is 1, at alpha 0.5.",
    )


def named_lines(names: Sequence[str]) -> Lines:
    """A chart whose axes and lines have these names."""
    x = np.arange(5)
    series = [Series(name=name, x=x, y=x * 0.25 * (1 + i)) for i, name in enumerate(names)]
    texts = {"title": names[1], "x_label": names[2], "y_label": names[3], "summary": names[4]}
    return Lines(key="named", x_scale="linear", series=series, **texts)


def tables(names: list[str], runs: int) -> list[TextTable]:
    """The most changed matrices of the first run, and what was skipped."""
    rows = [[name, 700.123456 - 10 * i, 213.4 + i, -0.695 + i / 100] for i, name in enumerate(names)]
    rows[1][3] = None
    return [
        TextTable(
            heading="Most changed matrices",
            caption="Effective rank at the first and at the last step, most compressed first.",
            columns=["matrix", "first", "last", "change"],
            numeric=[False, True, True, True],
            rows=rows,
            note=f"{len(rows)} of 76 matrices are shown.",
            target_column=0,
            targets=[(runs - 1, i) for i in range(len(rows))],
        ),
        TextTable(
            heading="Skipped",
            caption="What has no numbers, and why.",
            columns=["parameter", "status", "rows"],
            numeric=[False, False, True],
            rows=[[names[0], "not_finite", 6], ["gpt_neox.layers.0.attention.rotary_emb.inv_freq", "no_matrix", 154]],
        ),
    ]


def realistic() -> Document:
    """76 matrices at 150 steps, with 24 lines to a matrix, in two runs."""
    names = transformer_names()
    return Document(
        title="Spectra of pythia-160m, two seeds",
        lead="76 matrices at 150 checkpoints of each of two runs, analysed with spectra 0.5 on a CPU in float32.",
        runs=[run_view(name, STEPS, names, seed) for seed, name in enumerate(("seed_0", "seed_5"))],
        across=[barrier()],
        tables=tables(names[:12], 2),
        limits=["24 of 768 singular values are drawn for each matrix."],
    )


def small(names: Sequence[str] = HOSTILE) -> Document:
    """Two runs of six matrices with these names at ten steps: quick to draw; by default each as bad as it gets."""
    steps = [0, 1, 10, 100, 200, 400, 1000, 2000, 5000, 10_000]
    return Document(
        title=f"Spectra of {names[0]}",
        lead=f"Two runs in {names[3]}.",
        runs=[run_view(name, steps, list(names), seed) for seed, name in enumerate((names[0], names[4]))],
        across=[barrier(), named_lines(names)],
        tables=tables(list(names), 2),
        limits=[f"Nothing of {names[5]}."],
    )
