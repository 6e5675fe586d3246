"""What can be compared: the method, its variants, and the baselines, one entry each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from l0prune import ConfigError, RunConfig, nearest

SPARSITIES = (0.25, 0.5, 0.75, 0.85, 0.9)
"""Of the figure of quality against parameters (the paper's Figure 3)."""
METHOD = "method"
"""The start of an entry that learns what to remove; every other is a baseline, one of `BASELINES`."""
BASELINES = {
    "distilhubert": "two layers copied from the teacher predict its layers (DistilHuBERT)",
    "thin": "the teacher's depth with all widths alike smaller, random weights, layer to layer (FitHuBERT)",
    "magnitude": "units chosen at once by torch-pruning's group magnitude",
    "taylor": "units chosen at once by torch-pruning's group Taylor expansion",
    "random": "units chosen by chance",
    "low-rank": "every matrix a product of two, from a truncated singular value decomposition",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One student to compare."""

    name: str
    answers: str
    """Which question."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Over those of the comparison."""
    start: str = METHOD
    data_every: int = 1
    """One in so many of the clips is trained on; those held out stay the same."""

    @property
    def is_baseline(self) -> bool:
        """Whether the student is made without gates."""
        return self.start != METHOD


def all_entries(config: RunConfig) -> dict[str, Entry]:
    """Every entry, by name.

    Args:
        config: Settings that all begin from: the full method's.
    """
    full = Entry(name="full", answers="the method as it is")
    baselines = [Entry(name=name, answers=what, start=name) for name, what in BASELINES.items()]
    # The recipe's rate was chosen for the method: a baseline may want another one.
    rate = {"joint": {"learning_rate": 2 * config.joint.learning_rate}}
    faster = [
        replace(entry, name=f"{entry.name}-faster", answers=f"{entry.name}, twice the learning rate", settings=rate)
        for entry in baselines
    ]
    entries = [full, *baselines, *faster, *ablations(config)]
    entries += with_terms(config)
    for sparsity in SPARSITIES:
        if sparsity != config.target_sparsity:
            entries += [_at(entry, sparsity) for entry in (full, *baselines)]
    return {entry.name: entry for entry in entries}


def _at(entry: Entry, sparsity: float) -> Entry:
    return replace(
        entry,
        name=f"{entry.name}-{100 * sparsity:.0f}",
        answers=f"{entry.name}, {sparsity:.0%} removed",
        settings={**entry.settings, "target_sparsity": sparsity},
    )


def ablations(config: RunConfig) -> list[Entry]:
    """Variants of the method: the paper's ablations, and those that the defaults rest on.

    Args:
        config: The full method's settings.
    """
    joint, further, gates = config.joint, config.further, config.controller
    rate = gates.learning_rate
    longer = joint.steps + further.steps
    no_further = {"steps": 0, "warmup_steps": 0}

    def entry(name: str, answers: str, **settings: Any) -> Entry:
        return Entry(name=name, answers=answers, settings=settings)

    return [
        entry("no-step-2", "what does the further stage add?", further=no_further),
        entry(
            "joint-only-same-steps",
            "or do its steps serve the joint stage as well?",
            joint={"steps": longer, "warmup_steps": round(joint.warmup_steps * longer / joint.steps)},
            further=no_further,
        ),
        entry("prediction", "prediction layers in place of matched ones?", speech={"mode": "prediction"}),
        entry("no-conv", "what does pruning the convolutions add?", speech={"units": ["head", "ffn"]}),
        Entry(name="tenth-of-data", answers="how much does a tenth of the audio cost?", data_every=10),
        entry("ffn-gates-open", "FFN gates begin open, as the others?", gates={"drop_rates": {"ffn": 0.01}}),
        entry("published-mask", "the published value of a kept gate?", gates={"mask_value": "published_mask"}),
        entry("no-compaction", "does compaction change the student?", compaction={"enabled": False}),
        entry(
            "compaction-eager",
            "does cutting early?",
            compaction={"every_steps": 2, "patience": 1, "closed_below": 0.3, "least_share": 0.01},
        ),
        entry("gates-slower", "half the rate of gates and multipliers?", controller={"learning_rate": rate / 2}),
        entry("gates-faster", "twice the rate?", controller={"learning_rate": 2 * rate}),
        entry(
            "weights-faster",
            "twice the learning rate?",
            joint={"learning_rate": 2 * joint.learning_rate},
            further={"learning_rate": 2 * further.learning_rate},
        ),
        entry("no-quadratic-start", "multipliers from 0, as published?", controller={"quadratic_start": 0.0}),
        entry("l1-only", "without the cosine distance?", speech={"cosine_weight": 0.0}),
        entry("cosine-only", "without the L1 distance?", speech={"l1_weight": 0.0}),
    ]


TERMS: Mapping[str, Mapping[str, Any]] = {
    "gram": {},
    "gram_step": {},
    "attention": {},
    "value_relation": {},
    "cluster_means": {},
    "units": {},
    "masked_units": {},
}
"""Terms that are added to the full method's one by one, and the settings of `[speech]` that each needs."""


def with_terms(config: RunConfig) -> list[Entry]:
    """The full method with one more distillation term, or with other layers.

    Args:
        config: The full method's settings.
    """
    own = config.options.get("terms", {})
    entries = [
        Entry(
            name=f"term-{name.replace('_', '-')}",
            answers=f"what does the term {name} add?",
            settings={"speech": {**more, "terms": {**own, name: 1.0}}},
        )
        for name, more in TERMS.items()
    ]
    return [
        *entries,
        Entry(
            name="term-masked-units-alone",
            answers="or does masked prediction do without matched states?",
            settings={"speech": {"terms": {"l1": 0.0, "l2": 0.0, "cosine": 0.0, "masked_units": 1.0}}},
        ),
        Entry(name="every-layer", answers="all layers matched?", settings={"speech": {"every_layer": True}}),
        Entry(
            name="learned-layers",
            answers="learned weights of the matched layers?",
            settings={"speech": {"layer_weighting": "learned"}},
        ),
    ]


def chosen(names: Sequence[str], config: RunConfig) -> list[Entry]:
    """The entries that names stand for, each once, in the order of the table.

    Args:
        names: Of entries, or of sets: `baselines`, `ablations`, `terms` (the method with one more distillation term, or
            other layers), `sizes` (the method at all sparsities), those of a baseline (`magnitude-sizes`), or `all`
            (all of these but the terms and the baselines' sizes).
        config: The full method's settings.

    Raises:
        ConfigError: There is no such entry or set.
    """
    entries = all_entries(config)
    sets = {name: [name] for name in entries}
    sets["baselines"] = [*BASELINES, *(f"{name}-faster" for name in BASELINES)]
    sets["ablations"] = [entry.name for entry in ablations(config)]
    sets["terms"] = [entry.name for entry in with_terms(config)]
    for name in ("full", *BASELINES):
        sets[f"{name}-sizes"] = [name, *(other for other in entries if other in _sizes(name))]
    sets["sizes"] = sets.pop("full-sizes")
    sets["all"] = ["full", *sets["baselines"], *sets["ablations"], *sets["sizes"]]
    for name in names:
        if name not in sets:
            raise ConfigError("nothing of this name to compare", where=name, hint=nearest(name, sets))
    wanted = {member for name in names for member in sets[name]}
    return [entry for name, entry in entries.items() if name in wanted]


def _sizes(name: str) -> set[str]:
    return {f"{name}-{100 * sparsity:.0f}" for sparsity in SPARSITIES}
