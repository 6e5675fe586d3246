"""Networks with heads, out: padded to their stock class, for CTranslate2, as ONNX and torch.export programs."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from l0prune_speech.deploy.networks.opened import open_export, opened_network
from l0prune_speech.deploy.networks.registry import NETWORK_FORMATS, form_named
from l0prune_speech.families import SpeechNetwork, observation_of, open_directory, open_network, padded, times_of_words
from l0prune_speech.plugin import SpeechPlugin
from pruned_networks import pruned_network
from tiny_networks import NETWORKS, save_pieces, skip_where_missing, whisper

import l0prune
from l0prune import ConfigError, DataError, EvaluationSettings, ProofError, RunError, relative_difference
from l0prune.quantisation import is_int8

NORMED = ("w2v-bert", "moonshine", "data2vec")
"""Networks with a norm over units that their class cannot have fewer of."""


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SpeechNetwork]:
    """Makes the run of a pruned network once for all tests."""
    made: dict[str, SpeechNetwork] = {}

    def get(name: str) -> SpeechNetwork:
        skip_where_missing(name)
        if name not in made:
            made[name] = pruned_network(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_padded_with_zeros_it_is_the_same_network_in_its_stock_class(pruned: Any, name: str) -> None:
    import transformers

    network = pruned(name)
    if name in NORMED:
        with pytest.raises(ConfigError, match=r"a norm would count padding with its units: .*norm; --units head,ffn"):
            padded(network, network.model)
        return
    model: Any = padded(network, network.model)
    observe = observation_of(network, 0.6, clips=2, seed=3)
    with torch.no_grad():
        assert relative_difference(observe(network.model), observe(model)) <= 1e-5
    # It can be made from its settings alone.
    stock = getattr(transformers, type(model).__name__)(model.config)
    wanted = {name: tensor.shape for name, tensor in stock.state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == wanted
    counts = [sum(p.numel() for p in each.parameters()) for each in (network.model, model)]
    assert counts[0] < counts[1]


@pytest.mark.parametrize("name", ["conformer", "conformer-x-vector", "parakeet", "moonshine", "w2v-bert"])
def test_as_narrow_as_it_is_it_opens_again(pruned: Any, tmp_path: Path, name: str) -> None:
    """With tables of positions, which from_pretrained computes anew."""
    network = pruned(name)
    network.export(network.model, tmp_path)
    model: Any = open_directory(tmp_path)
    assert {key: tensor.shape for key, tensor in model.state_dict().items()} == {
        key: tensor.shape for key, tensor in network.model.state_dict().items()
    }
    observe = observation_of(network, 0.6, clips=2, seed=3)
    with torch.no_grad():
        # A product with a single column is rounded in another order.
        assert relative_difference(observe(network.model), observe(model)) <= 1e-4


def test_heads_that_tell_the_times_of_words_are_numbered_as_they_are_left(pruned: Any) -> None:
    network = pruned("whisper")
    model = network.model
    kept = l0prune.removal.plan_of(model).kept
    (name,) = [name for name in kept if name.startswith("model.decoder.layers.1.encoder_attn")]
    first, gone = kept[name][0], next(head for head in range(4) if head not in kept[name])
    model.generation_config.alignment_heads = [[1, gone], [1, kept[name][-1]], [1, first]]
    with times_of_words(model):
        assert model.generation_config.alignment_heads == [[1, len(kept[name]) - 1], [1, 0]]
    assert model.generation_config.alignment_heads[0] == [1, gone]
    model.generation_config.alignment_heads = [[1, gone]]
    with times_of_words(model):
        assert model.generation_config.alignment_heads == [[1, place] for place in range(len(kept[name]))]
    # Those of the dense class stand where they stood.
    with times_of_words(padded(network, model)):
        assert model.generation_config.alignment_heads == [[1, gone]]
    model.generation_config.alignment_heads = None


def test_the_stock_directory_says_both_sizes(pruned: Any, tmp_path: Path) -> None:
    import transformers

    network = pruned("whisper")
    written = l0prune.export(network.name, to="huggingface-padded", out=tmp_path / "stock")
    opened: Any = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "stock").eval()
    size = sum(parameter.numel() for parameter in opened.parameters())
    assert any(f"from {network.parameters:,} to {size:,} parameters" in note for note in written.notes)
    inputs = network.inputs([noise(16_000)])
    assert network.answers(opened, inputs, 1.0) == network.answers(network.model, inputs, 1.0)
    # It needs no code of ours.
    assert not list((tmp_path / "stock").glob("*.py"))


def test_ctranslate2_says_what_the_network_says(pruned: Any, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    network = pruned("whisper")
    written = l0prune.export(network.name, to="ctranslate2", out=tmp_path / "ct2")
    assert written.max_relative_difference <= 1e-4
    assert any("--window-seconds 30" in note for note in written.notes)
    model = ctranslate2.models.Whisper(str(tmp_path / "ct2"), compute_type="float32")
    inputs = network.inputs([noise(20_000), noise(12_000, seed=1)])
    features = ctranslate2.StorageView.from_array(inputs["input_features"].numpy())
    said = model.generate(
        features, [[38, 39]] * 2, beam_size=1, max_length=36, suppress_blank=False, suppress_tokens=[]
    )
    expected = network.answers(network.model, inputs, 8 / 7)
    assert [one.sequences_ids[0] for one in said] == [list(answer) for answer in expected]


@pytest.mark.parametrize("to", ["huggingface-padded", "ctranslate2", "onnx"])
def test_an_export_can_be_verified_and_tells_what_was_damaged(
    pruned: Any, request: pytest.FixtureRequest, tmp_path: Path, to: str
) -> None:
    if to == "ctranslate2":
        pytest.importorskip("ctranslate2")
    folder = tmp_path / "export"
    if to == "onnx":
        shutil.copytree(request.getfixturevalue("onnx"), folder)
    else:
        l0prune.export(pruned("whisper").name, to=to, out=folder)
    found = {check.name: check for check in l0prune.verify(folder, plugin="speech").checks}
    assert found["checksum"].said.endswith("in SHA256SUMS")
    assert found["checksum"].holds
    assert found["network"].holds is (True if to == "huggingface-padded" else None), found["network"].said
    # As other programs check it.
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0
    weights = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    broken = l0prune.verify(folder, plugin="speech").broken
    assert broken
    assert f"not what was written: {weights}" in broken.said
    if to == "onnx":
        with pytest.raises(RunError, match=f"not what was written: .*{weights.name}"):
            opened_network(str(folder))


def test_faster_whisper_transcribes(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    faster_whisper = pytest.importorskip("faster_whisper")
    from transformers import WhisperFeatureExtractor

    teacher = tmp_path / "teacher"
    # It knows windows of 30 seconds alone.
    whisper(max_source_positions=1500).save_pretrained(teacher)
    WhisperFeatureExtractor(feature_size=8).save_pretrained(teacher)
    save_pieces(teacher)
    network = pruned_network(teacher, tmp_path)
    l0prune.export(network.name, to="ctranslate2", out=tmp_path / "ct2")
    model = faster_whisper.WhisperModel(str(tmp_path / "ct2"), compute_type="float32")
    audio = noise(20_000)
    greedy: dict[str, Any] = {"beam_size": 1, "temperature": 0.0, "suppress_tokens": [], "suppress_blank": False}
    off: dict[str, Any] = dict.fromkeys(
        ("compression_ratio_threshold", "log_prob_threshold", "no_speech_threshold", "suppress_tokens")
    )
    segments, _ = model.transcribe(
        audio.numpy(), without_timestamps=True, max_new_tokens=18, condition_on_previous_text=False, **off | greedy
    )
    said = [token for segment in segments for token in segment.tokens if token < 37]
    (expected,) = network.answers(network.model, network.inputs([audio]), 8 / 7)
    # It stops earlier.
    assert said == [token for token in expected if token < 37][: len(said)]
    assert len(said) >= 8


@pytest.fixture(scope="module")
def onnx(pruned: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX folder of a pruned Whisper."""
    out = tmp_path_factory.mktemp("onnx") / "whisper"
    written = l0prune.export(pruned("whisper").name, to="onnx", out=out)
    assert written.max_relative_difference <= 1e-4
    assert written.notes[-1] == "opened again by onnxruntime"
    return out


def test_encoder_and_decoder_with_cache_say_what_the_network_says(pruned: Any, onnx: Path) -> None:
    network, opened = pruned("whisper"), open_export(onnx)
    assert {path.name for path in onnx.glob("*.onnx")} == {
        "encoder_model.onnx",
        "decoder_model.onnx",
        "decoder_with_past_model.onnx",
    }
    assert not list(onnx.parent.glob(".*"))
    assert opened.parameters == network.parameters
    inputs = network.inputs([noise(20_000), noise(12_000, seed=1), noise(9_000, seed=2)])
    for marks in ({}, {"suppress_tokens": [3, 5], "begin_suppress_tokens": [7, 37]}):
        for each in (network, opened):
            each.model.generation_config.update(**{"suppress_tokens": None, "begin_suppress_tokens": None} | marks)
        expected = network.answers(network.model, inputs, 2.0)
        assert opened.answers(opened.model, inputs, 2.0) == expected
    network.model.generation_config.update(suppress_tokens=None, begin_suppress_tokens=None)


def test_names_are_those_of_the_onnx_community(onnx: Path) -> None:
    import onnxruntime

    names = {
        name: [value.name for value in getattr(onnxruntime.InferenceSession(str(onnx / f"{name}.onnx")), side)()]
        for name, side in (("decoder_model", "get_outputs"), ("decoder_with_past_model", "get_inputs"))
    }
    kinds = ("decoder.key", "decoder.value", "encoder.key", "encoder.value")
    past = [f"{layer}.{kind}" for layer in range(2) for kind in kinds]
    assert names["decoder_model"] == ["logits", *(f"present.{one}" for one in past)]
    assert names["decoder_with_past_model"] == ["input_ids", *(f"past_key_values.{one}" for one in past)]


def test_an_onnx_folder_is_scored_and_measured_beside_its_run(pruned: Any, onnx: Path, tmp_path: Path) -> None:
    network, plugin = pruned("whisper"), SpeechPlugin()
    rows = ["path\ttext"]
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", noise(12_000 + 3_000 * number, number).numpy(), 16_000)
        rows.append(f"{number}.wav\ta b c")
    (tmp_path / "list.tsv").write_text("\n".join(rows))
    settings = EvaluationSettings(data=(str(tmp_path / "list.tsv"),), device="cpu")
    found = plugin.evaluate([network.name, str(onnx)], settings, lambda _text: None)
    scores = {(score.model, score.task): score.values for score in found.scores}
    for task in ("asr", "asr characters"):
        assert scores[network.name, task] == scores[str(onnx), task]
    assert found.models[str(onnx)]["parameters"] == network.parameters

    contenders = {str(source): plugin.contender(str(source), tmp_path) for source in (network.name, onnx)}
    measured = l0prune.measure(
        contenders,
        [plugin.load(1.0, 1)],
        dtypes=("float32", "int8"),
        backends=("eager", "onnxruntime"),
        seconds=0.01,
        note=lambda _text: None,
    )
    pairs = {(row.model, row.dtype, row.backend) for row in measured.rows}
    assert {pair for pair in pairs if pair[0] == str(onnx)} == {
        (str(onnx), dtype, "onnxruntime") for dtype in ("float32", "int8")
    }
    assert all(row.real_time_factor for row in measured.rows)
    assert measured.models[network.name]["parameters"] == measured.models[str(onnx)]["parameters"]
    assert measured.models[network.name]["macs"] > 0
    with pytest.raises(DataError, match=r"too long for the model: .*, 5 s \(expected 4 s or less\)"):
        l0prune.measure(contenders, [plugin.load(5.0, 1)], against=network.name)
    with pytest.raises(ConfigError, match=r"cannot be measured so: .*got float32 with eager, .*int8 with onnxruntime"):
        l0prune.measure({"onnx": contenders[str(onnx)]}, [plugin.load(1.0, 1)])


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("wav2vec2-layered", "onnx"),
        ("conformer", "onnx"),
        ("parakeet", "onnx"),
        ("moonshine", "onnx"),
        ("x-vector", "torch.export"),
        ("whisper-classes", "torch.export"),
        ("whisper", "torch.export"),
    ],
)
def test_programs_of_other_heads_answer_alike(pruned: Any, tmp_path: Path, name: str, to: str) -> None:
    network = pruned(name)
    written = l0prune.export(network.name, to=to, out=tmp_path / "out")
    assert written.max_relative_difference <= form_named(to).tolerance
    opened = open_export(tmp_path / "out")
    inputs = network.inputs([noise(11_000), noise(7_777, seed=1)])
    if name == "x-vector":
        ours, theirs = (each.hear(each.model, inputs).logits for each in (network, opened))
        assert relative_difference(ours, theirs) <= 1e-4
    else:
        assert opened.answers(opened.model, inputs, 1.0) == network.answers(network.model, inputs, 1.0)


def test_what_does_not_fit_is_refused_in_a_line(
    pruned: Any, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctc, out = pruned("wav2vec2"), tmp_path / "out"
    with pytest.raises(ConfigError, match=r"got Wav2Vec2ForCTC, where CTranslate2 .*these can: huggingface, hugg"):
        l0prune.export(ctc.name, to="ctranslate2", out=out)
    with pytest.raises(ConfigError, match=r"dphubert cannot hold this network: .*expected ctranslate2, huggingface"):
        l0prune.export(ctc.name, to="dphubert", out=out)
    with pytest.raises(ConfigError, match=r"no such format: huggingface-paded .*did you mean 'huggingface-padded'"):
        l0prune.export(ctc.name, to="huggingface-paded", out=out)
    with pytest.raises(RunError, match="already there"):
        l0prune.export(ctc.name, to="huggingface", out=onnx)
    with pytest.raises(DataError, match=r"no weights: "):
        open_network(str(onnx))
    monkeypatch.setattr("l0prune.formats.onnx_file.LARGEST_ONNX", 1000)
    with pytest.raises(ConfigError, match=r"onnx cannot hold this network: .*GB of weights"):
        l0prune.export(ctc.name, to="onnx", out=out)
    with monkeypatch.context() as patched:
        patched.setattr("l0prune_speech.families.padding.spread", lambda tensor, room, _places: room * 0)
        with pytest.raises(ProofError, match="the huggingface-padded export does not behave as the network"):
            l0prune.export(ctc.name, to="huggingface-padded", out=out)
    assert not out.exists()
    assert not list(tmp_path.iterdir())


def test_damaged_folders_are_named(onnx: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(onnx, broken)
    (broken / "decoder_model.onnx").unlink()
    with pytest.raises(RunError, match=r"a file of the export cannot be read: .*decoder_model.onnx"):
        open_export(broken)
    # Without its checksums a folder tells what it can.
    (broken / "SHA256SUMS").unlink()
    with pytest.raises(DataError, match=r"a file of the export is missing: .*expected decoder_model.onnx"):
        open_export(broken)
    stated = json.loads((onnx / "config.json").read_text())
    del stated["l0prune_export"]["parameters"]
    (broken / "config.json").write_text(json.dumps(stated))
    with pytest.raises(DataError, match=r"not the settings of an export: .*config.json .*got KeyError: 'parameters'"):
        open_export(broken)
    shutil.copy(onnx / "config.json", broken)
    shutil.copy(onnx / "decoder_model.onnx", broken)
    content = bytearray((onnx / "encoder_model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (broken / "encoder_model.onnx").write_bytes(bytes(content))
    opened = open_export(broken)
    with pytest.raises(l0prune.L0PruneError, match=r"encoder_model.onnx"):
        opened.answers(opened.model, opened.inputs([noise(9_000)]), 1.0)


def test_every_form_is_a_format_of_the_plugin() -> None:
    assert set(NETWORK_FORMATS) <= set(SpeechPlugin.formats)
    assert np.all([form.holds for form in SpeechPlugin.formats.values()])
    assert all("of a network with a head" in SpeechPlugin.formats[name].holds for name in NETWORK_FORMATS)


@pytest.mark.parametrize(("name", "to"), [("whisper", "onnx-int8"), ("wav2vec2", "onnx-int8-dynamic")])
def test_in_int8_each_file_is_quantised_and_the_network_answers(
    pruned: Any, tmp_path: Path, name: str, to: str
) -> None:
    network = pruned(name)
    written = l0prune.export(network.name, to=to, out=tmp_path / "int8")
    assert written.signal_to_noise_db is not None
    assert written.signal_to_noise_db > 10
    files = sorted((tmp_path / "int8").glob("*.onnx"))
    assert len(files) == (3 if name == "whisper" else 1)
    assert all(is_int8(file) for file in files)
    calibrated = [note for note in written.notes if note.startswith("calibrated on")]
    assert bool(calibrated) is (to == "onnx-int8")
    assert l0prune.verify(tmp_path / "int8", plugin="speech").broken is None
    opened = opened_network(str(tmp_path / "int8"))
    inputs = opened.inputs([noise(16_000)])
    if name == "whisper":
        assert len(opened.answers(opened.model, inputs, 1.0)) == 1
        return
    with torch.no_grad():
        heard = opened.hear(opened.model, inputs)
    assert torch.isfinite(heard.states[-1]).all()


def test_a_form_without_scales_takes_no_calibration(pruned: Any, tmp_path: Path) -> None:
    network = pruned("whisper")
    with pytest.raises(ConfigError, match=r"takes no calibration: onnx .*onnx-int8"):
        l0prune.export(network.name, to="onnx", out=tmp_path / "a", calibration=[])
