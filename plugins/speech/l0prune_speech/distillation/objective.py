"""Distillation of an encoder: layer matched (the paper's eq. 1) or prediction layers (DistilHuBERT's), and more terms.

Legend: B batch, T frames, D student width, E teacher width.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from l0prune import ConfigError, Losses, Objective
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.distillation.comparisons import Comparison, Means, Relations, Steps, Units
from l0prune_speech.distillation.distances import over_clips
from l0prune_speech.distillation.layer_clusters import LayerClusters
from l0prune_speech.distillation.masking import Hiding
from l0prune_speech.distillation.survey import find_structure
from l0prune_speech.distillation.targets import TargetCache, Targets, Wanted
from l0prune_speech.distillation.teacher_units import TeacherUnits
from l0prune_speech.distillation.terms import active, check_between, check_weights, distance, precise
from l0prune_speech.encoder import Recording, SpeechEncoder, record

PUBLISHED: Mapping[str, float] = {"l1": 1.0, "cosine": 1.0}
"""Weights of the terms of DPHuBERT's eq. 1."""


@dataclass(frozen=True, kw_only=True)
class TermSettings:
    """How terms compare; each is a setting of `[speech]`."""

    projections: bool = True
    layer_weighting: str = "equal"
    layer_clusters: int = 4
    unit_layers: tuple[int, ...] = ()
    unit_count: int = 100
    mask_probability: float = 0.08
    mask_frames: int = 10
    masked_share: float = 0.5


def matched_layers(depth: int) -> tuple[int, ...]:
    """Layer 0 and three evenly spaced ones: 0, 4, 8, 12 of 12; 0, 8, 16, 24 of 24."""
    return tuple(sorted({round(depth * third / 3) for third in range(4)}))


def unit_layers(depth: int) -> tuple[int, ...]:
    """The layer that units are made of by default: three quarters up, 9 of 12, as HuBERT's third iteration has it."""
    return (round(3 * depth / 4),)


class Distillation(Objective):
    """Student against frozen teacher.

    Args:
        student: The network to train.
        teacher: Frozen; in evaluation mode.
        layers: Teacher layers to match; 0 is the projected CNN output.
        mode: "layers" compares each with the student's own layer; "prediction" predicts all from the student's last.
        weights: Of the terms, by name (`all_terms()`).
        cache: Keeps what the teacher says on disk.
        settings: How terms compare.
        survey: Gives waveforms (clips, samples), an end to them, from which units and clusters of layers are found
            before the first step.

    Raises:
        ConfigError: A weight, a layer or a setting cannot be used, or a term lacks what it compares.
    """

    def __init__(
        self,
        student: SpeechEncoder,
        teacher: SpeechEncoder,
        *,
        layers: Sequence[int],
        mode: str = "layers",
        weights: Mapping[str, float] = PUBLISHED,
        cache: TargetCache | None = None,
        settings: TermSettings = TermSettings(),
        survey: Callable[[], Iterable[Tensor]] | None = None,
    ) -> None:
        super().__init__(student)
        if mode not in ("layers", "prediction"):
            raise ConfigError("unknown distillation mode", got=mode, expected="layers or prediction")
        check_weights(weights)
        # No module: hidden from `parameters()`, `train()` and checkpoints.
        self.targets = Targets(teacher, layers, cache)
        self.layers, self.mode, self.weights = tuple(layers), mode, dict(weights)
        self.settings, self.survey = settings, survey
        terms = active(weights)
        kinds = {term.between for term in terms}
        check_terms(weights, layers=layers, mode=mode)
        self.has_states = "states" in kinds
        self.others = [term for term in terms if term.between not in ("states", "masked_units")]
        self.masked = [term for term in terms if term.between == "masked_units"]
        own, theirs = _width(student), _width(teacher)
        self.projections = self._projections(own, theirs)
        if settings.layer_weighting == "learned" and self.has_states:
            self.log_scales = nn.Parameter(torch.zeros(len(self.layers)))
        self.comparisons = nn.ModuleDict(self._comparisons(kinds, own, theirs, _depth(teacher)))
        if self.masked:
            # As in HuBERT, where it is the encoder's own: here it is dropped with the projections.
            self.mask_embedding = nn.Parameter(torch.empty(own).uniform_())

    @property
    def units(self) -> TeacherUnits | None:
        """The teacher's units, where a term needs them."""
        return self.comparisons["units"].units if "units" in self.comparisons else None  # type: ignore[return-value]

    @property
    def clusters(self) -> LayerClusters | None:
        """Clusters of the teacher's layers, where a term needs them."""
        return self.comparisons["means"].clusters if "means" in self.comparisons else None  # type: ignore[return-value]

    def begin(self) -> None:
        """Find units and clusters of layers, where terms need them and no checkpoint has brought them."""
        units = self.units if self.units is not None and not self.units.known else None
        clusters = self.clusters if self.clusters is not None and not self.clusters.known else None
        if units is None and clusters is None:
            return
        if self.survey is None:
            hint = "pass survey, which gives waveforms"
            raise ConfigError("there is no audio to find units or clusters of layers in", hint=hint)
        find_structure(self.targets.teacher, self.survey(), units=units, clusters=clusters)

    def forward(self, batch: Tensor, lengths: Tensor | None = None) -> Losses:
        """The weighted sum of all terms, and each of them.

        Args:
            batch: Waveforms (B, samples).
            lengths: (B,) valid samples; all by default. Padding counts in no term.
        """
        self.begin()
        device = next(self.student.parameters()).device
        waveforms = batch.to(device, non_blocking=True)
        lengths = None if lengths is None else lengths.to(device)
        targets = self.targets(batch, waveforms, self._wanted(), lengths)
        frames = None if lengths is None else _valid(self.targets.teacher, lengths, _frames(targets))
        heard, hiding = self._heard(waveforms, lengths, frames, _frames(targets))
        parts: dict[str, Tensor] = {}
        totals: list[Tensor] = []
        if self.has_states or self.others:
            of = None if hiding is None else hiding.of_whole
            theirs = targets if of is None else {name: target[of] for name, target in targets.items()}
            valid = frames if of is None or frames is None else frames[of]
            seen = heard if hiding is None else heard.of(hiding.whole)
            if self.has_states:
                states = {f"layer {layer}": self._state_distance(seen, layer, theirs, valid) for layer in self.layers}
                parts |= states
                totals.append(self._over_layers(torch.stack(list(states.values()))))
            for term in self.others:
                pairs = self.comparisons[term.between].pairs(seen, theirs)  # type: ignore[operator]
                found = [
                    over_clips(term.distance, precise(one), precise(other), valid, framewise=term.framewise)
                    for one, other in pairs
                ]
                parts[term.name] = torch.stack(found).mean() if found else waveforms.new_zeros(())
                totals.append(self.weights[term.name] * parts[term.name])
        if hiding is not None:
            units: Units = self.comparisons["units"]  # type: ignore[assignment]
            theirs = {layer: targets[layer][hiding.of_masked] for layer in units.wanted()}
            pairs = units.pairs(heard.of(hiding.masked), theirs, hiding.frames)
            for term in self.masked:
                found = [term.distance(precise(one), other) for one, other in pairs]
                parts[term.name] = torch.stack(found).mean()
                totals.append(self.weights[term.name] * parts[term.name])
        seconds = (waveforms.numel() if lengths is None else int(lengths.sum())) / SAMPLE_RATE
        return Losses(total=sum(totals[1:], totals[0]), parts=parts, amount=seconds)

    def _projections(self, own: int, theirs: int) -> nn.ModuleDict:
        if not self.has_states:
            return nn.ModuleDict()
        if self.mode == "prediction":
            heads = {str(layer): nn.Sequential(nn.Linear(own, theirs), nn.GELU()) for layer in self.layers}
            return nn.ModuleDict(heads)
        if not self.settings.projections:
            _check_alike(own, theirs)
            return nn.ModuleDict()
        # One projection for layer 0 and one shared by the others, as published; both begin as the identity.
        names = ("first", "others") if 0 in self.layers else ("others",)
        return nn.ModuleDict({name: _identity(own, theirs) for name in names})

    def _comparisons(self, kinds: set[str], own: int, theirs: int, depth: int) -> dict[str, Comparison]:
        above, settings = [layer for layer in self.layers if layer], self.settings
        made: dict[str, Comparison] = {}
        if "steps" in kinds:
            made["steps"] = Steps(above)
        if "maps" in kinds:
            made["maps"] = Relations("map", above)
        if "value_relations" in kinds:
            made["value_relations"] = Relations("values", above)
        if "means" in kinds:
            if not settings.projections:
                _check_alike(own, theirs)
            projection = _identity(own, theirs) if settings.projections else nn.Identity()
            made["means"] = Means(LayerClusters(depth, settings.layer_clusters), projection)
        if kinds & {"units", "masked_units"}:
            layers = settings.unit_layers or unit_layers(depth)
            check_layers(layers, depth, where="speech.unit_layers")
            made["units"] = Units(TeacherUnits(layers, settings.unit_count, theirs), own)
        return made

    def _wanted(self) -> tuple[Wanted, ...]:
        """What is wanted of the teacher: hidden states by layer, then the rest."""
        found: dict[Wanted, None] = dict.fromkeys(self.layers if self.has_states else ())
        for comparison in self.comparisons.values():
            found |= dict.fromkeys(comparison.wanted())  # type: ignore[operator]
        states = sorted(name for name in found if isinstance(name, int))
        # In the order of the matched layers where these are all: it is part of a cache's keys.
        first = self.layers if set(states) == set(self.layers) else tuple(states)
        return (*first, *(name for name in found if isinstance(name, str)))

    def _heard(
        self, waveforms: Tensor, lengths: Tensor | None, frames: Tensor | None, count: int
    ) -> tuple[Recording, Hiding | None]:
        """What the student makes of a batch, and which frames were hidden from it."""
        hiding = None
        if self.masked:
            hiding = Hiding.drawn(
                [count] * len(waveforms) if frames is None else frames.sum(1).tolist(),
                count,
                probability=self.settings.mask_probability,
                length=self.settings.mask_frames,
                share=self.settings.masked_share if self.has_states or self.others else None,
                training=self.training,
            ).to(waveforms.device)
        rows = None if hiding is None else hiding.rows
        student: SpeechEncoder = self.student  # type: ignore[assignment]
        whole = self.mode == "prediction" or self.units is not None or self.clusters is not None
        heard = record(
            student,
            waveforms if rows is None else waveforms[rows],
            depth=None if whole else max(self.layers),
            lengths=lengths if rows is None or lengths is None else lengths[rows],
            maps=self._layers_of("maps"),
            values=self._layers_of("value_relations"),
            hidden=None if hiding is None else (hiding.everywhere, self.mask_embedding),
        )
        return heard, hiding

    def _layers_of(self, kind: str) -> tuple[int, ...]:
        return self.comparisons[kind].layers if kind in self.comparisons else ()  # type: ignore[return-value]

    def _over_layers(self, losses: Tensor) -> Tensor:
        """(matched layers,) -> their mean, or that of uncertainty weighting: exp(-s) loss + s, s learned by layer.

        Source: Kendall et al. 2018 (arXiv 1705.07115), section 3, with s = log of a Laplace distribution's scale.
        """
        if self.settings.layer_weighting == "learned":
            losses = losses * (-self.log_scales).exp() + self.log_scales
        return losses.mean()

    def _state_distance(
        self, heard: Recording, layer: int, targets: Mapping[Wanted, Tensor], frames: Tensor | None
    ) -> Tensor:
        own = heard.states[-1 if self.mode == "prediction" else layer]
        return distance(own, self._predict(own, layer), targets[layer], self.weights, frames)

    def _predict(self, own: Tensor, layer: int) -> Tensor:
        if self.mode == "prediction":
            return self.projections[str(layer)](own)
        return self.projections["first" if layer == 0 else "others"](own) if self.projections else own


def check_layers(layers: Sequence[int], depth: int, *, where: str | None = None) -> None:
    """Check that layers exist.

    Raises:
        ConfigError: One does not, or is named twice.
    """
    if not all(0 <= layer <= depth for layer in layers):
        what = "matched layer does not exist" if where is None else "layer does not exist"
        raise ConfigError(what, where=where, got=list(layers), expected=f"0 to {depth}")
    if len({*layers}) < len(layers):
        raise ConfigError("a layer is named twice", where=where, got=list(layers))


def check_terms(weights: Mapping[str, float], *, layers: Sequence[int], mode: str) -> None:
    """Check that an encoder has what the terms compare.

    Raises:
        ConfigError: It has not.
    """
    every = ["states", "steps", "maps", "value_relations", "means", "units", "masked_units"]
    check_between(weights, every, hint="an encoder has no head: use a term of its layers, or keep the head by --task")
    if not any(layers):
        some = [kind for kind in every if kind not in ("steps", "maps", "value_relations")]
        check_between(weights, some, hint="match a layer above 0: speech.matched_layers")
    if mode != "layers":
        hint = 'speech.mode = "layers" compares layer by layer'
        check_between(weights, [kind for kind in every if kind != "means"], hint=hint)


def set_dropout(student: SpeechEncoder, *, dropout: bool, layer_drop: float) -> None:
    """Keep or switch off every dropout of the student, and set its layer drop.

    The published code keeps the teacher's dropout rates; its layer drop never acts, because features are extracted
    layer by layer.
    """
    if not dropout:
        for module in student.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0  # type: ignore[assignment]
    student.encoder.transformer.layer_drop = layer_drop  # type: ignore[assignment]


def _frames(targets: Mapping[Wanted, Tensor]) -> int:
    return next(iter(targets.values())).shape[1] if targets else 0


def _valid(encoder: SpeechEncoder, lengths: Tensor, frames: int) -> Tensor:
    """Valid samples (B,) -> (B, T), true where a frame is not padding."""
    counts = lengths
    for layer in encoder.feature_extractor.conv_layers:  # type: ignore[union-attr]
        counts = torch.div(counts - layer.kernel_size, layer.stride, rounding_mode="floor") + 1
    return torch.arange(frames, device=lengths.device) < counts.clamp_min(0)[:, None]


def _check_alike(own: int, theirs: int) -> None:
    if own != theirs:
        raise ConfigError(
            "states of different widths need projections", where="speech.projections", got=f"{own} and {theirs}"
        )


def _width(encoder: SpeechEncoder) -> int:
    return encoder.encoder.feature_projection.projection.out_features  # type: ignore[union-attr, return-value]


def _depth(encoder: SpeechEncoder) -> int:
    return len(encoder.encoder.transformer.layers)  # type: ignore[union-attr, arg-type]


def _identity(own: int, theirs: int) -> nn.Linear:
    linear = nn.Linear(own, theirs)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
