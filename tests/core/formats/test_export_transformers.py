"""Folders of transformers: of the stock class where its settings can say the widths, else with code."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import dynamic_module_utils

import l0prune
from l0prune import ConfigError, plan_of
from l0prune.formats.huggingface import shaped_by
from l0prune.support import class_with_sizes, file_digest

IDS = {"input_ids": torch.arange(14).view(2, 7), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
}


def llama() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, num_key_value_heads=2, use_cache=False))


def bert() -> Any:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL, num_labels=3))


def t5() -> Any:
    settings = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 24, "num_layers": 2}
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(**settings, decoder_start_token_id=0, use_cache=False)
    )


BOTH = {"input_ids": IDS["input_ids"], "decoder_input_ids": IDS["input_ids"][:, :3]}


@pytest.fixture(autouse=True)
def _no_shared_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def same(first: Any, second: Any, given: dict[str, torch.Tensor]) -> bool:
    with torch.no_grad():
        return torch.equal(first(**given).logits, second(**given).logits)


def test_one_width_for_all_layers_opens_with_the_stock_class(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = l0prune.prune(llama(), IDS, target_sparsity=0.35, uniform=True)
    kept = {group.kind: plan_of(small).kept_counts[group.name] for group in plan_of(small).groups}
    export = l0prune.export(small, IDS, to="huggingface", out=tmp_path / "small")
    assert export.max_relative_difference == 0
    assert export.notes[0] == "opens with LlamaForCausalLM.from_pretrained"
    assert not list((tmp_path / "small").glob("*.py"))
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert type(opened) is transformers.LlamaForCausalLM
    config = opened.config
    assert (config.intermediate_size, config.head_dim) == (kept["unit"], 4)
    assert config.num_key_value_heads == kept["head"]
    assert config.num_attention_heads == 2 * kept["head"]
    assert same(opened.eval(), small, IDS)
    assert opened.generate(IDS["input_ids"], max_new_tokens=3, do_sample=False).shape == (2, 10)
    stated = json.loads((tmp_path / "small" / "config.json").read_text())
    assert stated["l0prune"]["sha256"] == {"model.safetensors": file_digest(tmp_path / "small" / "model.safetensors")}


@pytest.mark.parametrize(
    ("make", "given", "auto"),
    [(bert, IDS, "AutoModelForSequenceClassification"), (t5, BOTH, "AutoModelForSeq2SeqLM")],
)
def test_other_widths_bring_a_file_of_code_that_imports_nothing_of_ours(
    make: Any, given: Any, auto: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    small = l0prune.prune(make(), given, target_sparsity=0.3)
    export = l0prune.export(small, given, to="huggingface", out=tmp_path / "small")
    assert auto in export.notes[0]
    # Opened once already, for comparison, the code has left nothing beside it.
    assert not [path for path in (tmp_path / "small").iterdir() if path.is_dir()]
    code = next((tmp_path / "small").glob("*.py")).read_text()
    assert "import l0prune" not in code
    assert "from l0prune" not in code
    opened = getattr(transformers, auto).from_pretrained(tmp_path / "small", trust_remote_code=True).eval()
    assert same(opened, small, given)
    # It is a model like any other: it learns, and is saved and opened again.
    loss = opened.train()(**given, labels=torch.zeros(2, *([3] if auto.endswith("LM") else []), dtype=torch.long)).loss
    loss.backward()
    assert all(p.grad is not None for p in opened.parameters() if p.numel())
    opened.eval().save_pretrained(tmp_path / "again")
    again = getattr(transformers, auto).from_pretrained(tmp_path / "again", trust_remote_code=True).eval()
    assert same(again, opened, given)


def test_parametrized_modules_are_alike_and_sizes_in_methods_are_refused() -> None:
    class Merging(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).view(2, 3)

    def net(kind: type[torch.nn.Linear] = torch.nn.Linear) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 4)), kind(4, 4))

    assert shaped_by(net(), net()) == {"shapes": {}, "numbers": {}, "emptied": {}}
    merging = net(Merging)
    merging[1].__class__ = class_with_sizes(Merging, {"forward": {(1, 48): ("own", "kept")}})
    with pytest.raises(ConfigError, match=r"hold this module: 1 .got its methods keep sizes.*export it to onnx"):
        shaped_by(net(Merging), merging)


def test_what_transformers_cannot_shape_is_refused_by_name(tmp_path: Path) -> None:
    class Own(transformers.BertForSequenceClassification):
        pass

    torch.manual_seed(0)
    own = Own(bert().config)
    small = l0prune.prune(own, IDS, target_sparsity=0.3)
    with pytest.raises(ConfigError, match=r"huggingface cannot hold this network: Own .got its class is not of transf"):
        l0prune.export(small, IDS, to="huggingface", out=tmp_path / "small")
    changed = copy.deepcopy(l0prune.prune(bert(), IDS, target_sparsity=0.3))
    changed.classifier = torch.nn.Sequential(changed.classifier)
    with pytest.raises(
        ConfigError, match=r"cannot hold this module: classifier .got Sequential in the place of Linear"
    ):
        l0prune.export(changed, IDS, to="huggingface", out=tmp_path / "small")
    assert not (tmp_path / "small").exists()
