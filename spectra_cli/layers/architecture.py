"""Families of architectures as data: which parameters a model has, what each is, and who feeds whom.

A family is a TOML file. Those in ``architectures/`` come with spectra; ``--architecture my.toml`` names one of your
own.

.. code-block:: toml

    title = "Llama"
    model_types = ["llama"]                  # of config.json; breaks ties between families that fit equally well
    not_model_types = ["diffllama"]          # those that have these names and another structure
    absent = ["layers.{i}.cross.weight"]     # names that no model of the family has

    [heads]                                  # keys of config.json, the first that is there
    query = ["num_attention_heads"]
    key_value = ["num_key_value_heads"]      # as many as query heads where none is there

    [defaults]                               # values of config.json where it does not say
    tie_word_embeddings = false
    gemma = { tie_word_embeddings = true }   # the same for one model_type

    [parameters.query]                       # "query" is a role; connections name roles
    name = "layers.{i}.self_attn.q_proj.weight"
    kind = "attention"
    layout = "out,in"                        # or "in,out"; left out: told from names and shapes
    required = true                          # without it the family does not fit

    [parameters.fused]
    name = ["blocks.{i}.attn.qkv.weight"]    # of several names the first that exists counts, block by block
    split = ["query", "key", "value"]        # its rows hold these roles
    order = "contiguous"                     # or "interleaved": those of one head together, head by head

    [[connections]]
    name = "residual"                        # a value of the column `connection`
    from = ["down"]
    to = ["query", "key", "value"]
    next = true                              # from a block to the next one

Names are templates without the prefix that wrappers put before all of them. ``{i}`` is the number of a block; with
``{s}`` before it, of a block within a stage; ``{j}`` numbers another chain. ``{e}`` is an expert and ``{d}`` one of the
endings listed in ``[endings]``: experts and endings connect with their like. A role without a block feeds the first
block, and the last block feeds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spectra_cli.layers.configuration import model_types, sections
from spectra_cli.layers.kinds import Kind

Layout = Literal["out,in", "in,out"]
Order = Literal["contiguous", "interleaved"]

CONNECTIONS = (
    "embedding-input",
    "query-key",
    "value-output",
    "output-up",
    "up-down",
    "residual",
    "sequential",
    "recurrent",
    "skip",
    "conditioning",
    "output",
)
"""Values of the column `connection`."""

PLACEHOLDER = re.compile(r"\{([a-z])\}")
ADJACENT = re.compile(r"\}[0-9]*\{")
"""Two placeholders of which it could not be told where in a row of digits one ends and the other begins."""

EXPERT, ENDING = "e", "d"


@dataclass(frozen=True, slots=True)
class Template:
    """A parameter's name with placeholders.

    Attributes:
        text: as written, for people.
        skeleton: with ``#`` for every number.
        pattern: matches whole names; groups ``prefix`` and one per placeholder.
        chain: the placeholder that numbers blocks (the last one besides experts), "" without blocks.
        ending: which of the endings of ``{d}`` this is.
    """

    text: str
    skeleton: str
    pattern: re.Pattern[str]
    chain: str
    ending: int = 0


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a role in a model is.

    Attributes:
        role: by which connections name it.
        names: templates, in the order of preference.
        kind: of layer, None to leave what its name says.
        layout: of the stored tensor, None to leave what names and shapes say.
        required: whether the family only fits models that have it.
        split: roles that its rows hold, in order.
        order: of these rows.
        gates: names of the parts of its rows, one below the other, in a recurrent layer.
        primary_gate: the gate that figures show.
        tied: role of the matrix that it is where a model ties the two.
    """

    role: str
    names: tuple[Template, ...]
    kind: Kind | None = None
    layout: Layout | None = None
    required: bool = False
    split: tuple[str, ...] = ()
    order: Order = "contiguous"
    gates: tuple[str, ...] = ()
    primary_gate: str = ""
    tied: str = ""

    @property
    def in_words(self) -> str:
        """Its names, for messages."""
        return " or ".join(dict.fromkeys(f"'{template.text}'" for template in self.names))

    def describes(self, name: str) -> bool:
        """Whether a tensor of that name, wrappers before it included, is this parameter."""
        return any(template.pattern.fullmatch(name) for template in self.names)


@dataclass(frozen=True, slots=True)
class Rule:
    """Connections from every upstream role to every downstream role.

    Attributes:
        name: a member of :data:`CONNECTIONS`.
        pairs: of roles, upstream and downstream.
        next_block: whether they lead from a block to the next one; else both are in one block.
        concatenated: whether the downstream matrix reads what all endings give, side by side.
        when: values that config.json must have; see ``Architecture.defaults``.
        unless: roles whose presence rules the connection out.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]
    next_block: bool = False
    concatenated: bool = False
    when: Mapping[str, Any] = field(default_factory=dict)
    unless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Architecture:
    """A family of models.

    Attributes:
        family: short name.
        title: for people.
        parameters: by role.
        rules: which of them feed which.
        heads: keys of config.json for ``query`` and ``key_value``, by preference; dots lead into nested objects.
        model_types: values of ``model_type`` in config.json.
        not_model_types: those of models that have the names of the family and another structure.
        absent: templates that no model of the family has.
        defaults: values of config.json where it does not say; those of one ``model_type`` in a table of that name.
    """

    family: str
    title: str
    parameters: Mapping[str, Parameter]
    rules: tuple[Rule, ...]
    heads: Mapping[str, tuple[str, ...]]
    model_types: tuple[str, ...] = ()
    not_model_types: tuple[str, ...] = ()
    absent: tuple[Template, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads_tokens(self) -> bool:
        """Whether its input is an embedding of tokens, not a convolution of patches."""
        givers = {upstream for rule in self.rules if rule.name == "embedding-input" for upstream, _ in rule.pairs}
        return not any(holder.kind == "conv" for holder in map(self.holder_of, givers) if holder is not None)

    def setting(self, config: Mapping[str, Any], key: str, prefix: str) -> Any:
        """What config.json says of a key, or what goes without saying in this family; None if neither tells.

        Args:
            config: the model's ``config.json``.
            key: at its top level, or in the configuration of a part.
            prefix: what the names of the part have in front.
        """
        for section in sections(config, prefix, reads_tokens=self.reads_tokens):
            if key in section:
                return section[key]
        of_types = (self.defaults.get(model_type) for model_type in model_types(config))
        told = (of_type[key] for of_type in of_types if isinstance(of_type, Mapping) and key in of_type)
        return next(told, self.defaults.get(key))

    def holder_of(self, role: str) -> Parameter | None:
        """The parameter of a role, or the one whose rows hold it."""
        if role in self.parameters:
            return self.parameters[role]
        return next((parameter for parameter in self.parameters.values() if role in parameter.split), None)


def template_of(text: str, name: str, ending: int) -> Template | None:
    """A template from its text.

    Args:
        text: as written.
        name: the same with an ending in place of ``{d}``.
        ending: which one.

    Returns:
        None if the placeholders are not single letters, each at most once, and between any two something that
            is no digit.
    """
    letters = PLACEHOLDER.findall(name)
    if len(set(letters)) < len(letters) or "{" in PLACEHOLDER.sub("", name) or ADJACENT.search(name):
        return None
    pieces = PLACEHOLDER.split(name)  # text, letter, text, letter, ..., text
    numbered = [f"(?P<{piece}>[0-9]{{1,9}})" if place % 2 else re.escape(piece) for place, piece in enumerate(pieces)]
    chain = next((letter for letter in reversed(letters) if letter != EXPERT), "")
    return Template(
        text=text,
        skeleton=skeleton_of(PLACEHOLDER.sub("0", name)),
        pattern=re.compile(rf"(?P<prefix>(?:.*\.)?){''.join(numbered)}", re.DOTALL),
        chain=chain,
        ending=ending,
    )


def skeleton_of(name: str) -> str:
    """A name with ``#`` in place of every number."""
    return re.sub(r"[0-9]+", "#", name)
