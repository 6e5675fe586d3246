"""Every family through its own class: proved groups, rebuilt networks, valid frames, heads that can be learnt from."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from l0prune_speech.families import (
    SpeechNetwork,
    Wish,
    build_network,
    network_groups,
    observation_of,
    open_network,
)
from tiny_networks import LAYERED as LAYOUT
from tiny_networks import NETWORKS, WAVEFORM, save_network, skip_where_missing

import l0prune
from l0prune import ConfigError, DataError

UNITS = ("conv", "head", "ffn")
LAYERED = ("hubert-layered", "wav2vec2-layered", "wav2vec2-adapter", "w2v-bert", "parakeet", "whisper")
"""Networks to which padding makes no difference."""
NO_HEADS = ("conformer", "conformer-x-vector", "parakeet", "moonshine")
"""Networks whose attention is left as it is."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Opens a network once for all tests."""
    made: dict[str, SpeechNetwork] = {}

    def get(name: str) -> SpeechNetwork:
        skip_where_missing(name)
        if name not in made:
            made[name] = open_network(str(save_network(name, tmp_path_factory.mktemp(name))))
        return made[name]

    return get


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_are_proved_and_the_architecture_builds_the_network(opened: Any, name: str) -> None:
    network = opened(name)
    assert network.task == NETWORKS[name][0]
    observe = observation_of(network, 0.6, clips=2)
    groups, left = network_groups(
        network.model, observe, units=UNITS, ignored=network.fixed, own=network.own_groups(network.model)
    )
    assert left == {}
    kinds = {group.kind for group in groups}
    assert kinds == ({"conv", "ffn"} if name in NO_HEADS else set(UNITS))
    built = build_network({"network": network.family, **network.architecture})
    assert built is not None
    assert type(built) is type(network.model)
    built.load_state_dict(network.model.state_dict())
    assert l0prune.relative_difference(observe(network.model), observe(built.eval())) == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_frames_of_padding_do_not_count(opened: Any, name: str) -> None:
    network = opened(name)
    torch.manual_seed(0)
    long, short = 0.1 * torch.randn(12_000), 0.1 * torch.randn(7_000)
    answers = [(3, 4), (5, 6, 7)] if network.task == "seq2seq" else None
    with torch.no_grad():
        both = network.hear(network.model, network.inputs([long, short]), answers)
        alone = network.hear(network.model, network.inputs([short]), answers and answers[1:])
    assert both.frames.sum(1).tolist()[1] == alone.frames.sum()
    # Features are padded to pairs.
    assert int(both.frames[0].sum()) >= both.frames.shape[1] - 1
    if name in LAYERED:
        count = int(alone.frames.sum())
        torch.testing.assert_close(both.states[-1][1, :count], alone.states[-1][0, :count], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, (task, _) in NETWORKS.items() if task != "distill"])
def test_a_head_learns_what_it_is_told(opened: Any, name: str) -> None:
    network = opened(name)
    labels = {"ctc": "AB", "seq2seq": "a b", "classify": "1", "speaker": "LABEL_2", "frames": "0:0.2 2:0.4"}
    answers = [network.encode(labels[network.task])] * 2
    inputs = network.inputs([0.1 * torch.randn(9_600) for _ in range(2)])
    for parameter in network.model.parameters():
        parameter.requires_grad_(True)
    optimizer, losses = torch.optim.Adam(network.model.parameters(), lr=1e-2), []
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    for _ in range(8):
        loss = network.loss(network.model, network.hear(network.model, inputs, answers), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    network.model.load_state_dict(before)
    assert losses[-1] < 0.8 * losses[0]
    said = network.answers(network.model, inputs, 0.6)
    assert len(said) == 2
    assert all(isinstance(number, int) for answer in said for number in answer)


def test_whisper_hears_a_window_of_another_length(tmp_path: Path) -> None:
    network = open_network(str(save_network("whisper", tmp_path)))
    assert network.window_seconds == network.longest_seconds == 4
    network.fit_window(1.4)
    assert network.window_seconds == 2
    assert network.model.get_submodule("model.encoder.embed_positions").weight.shape[0] == 100  # type: ignore[union-attr]
    assert network.inputs([torch.randn(16_000)])["input_features"].shape == (1, 8, 200)
    heard = network.hear(network.model, network.inputs([torch.randn(16_000)]), [(3,)])
    assert heard.states[-1].shape == (1, 100, 16)
    with pytest.raises(ConfigError, match=r"window out of range: speech.window_seconds \(got 3, expected 1 to 2"):
        network.fit_window(3)


@pytest.mark.parametrize("name", ["whisper", "moonshine"])
def test_a_decoder_that_is_told_nothing_says_nothing(opened: Any, name: str) -> None:
    network = opened(name)
    inputs = network.inputs([0.1 * torch.randn(12_000), 0.1 * torch.randn(8_000)])
    with torch.no_grad():
        silent, speaking = (network.hear(network.model, inputs, answers) for answers in (None, [(3, 4), (5,)]))
    assert silent.logits is None
    assert silent.counted is None
    assert torch.equal(silent.frames, speaking.frames)
    for one, other in zip(silent.states, speaking.states, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("layout", [{}, LAYOUT], ids=["base", "large"])
def test_wavlm_with_prunable_heads_computes_what_transformers_does(tmp_path: Path, layout: dict[str, Any]) -> None:
    import transformers

    model = transformers.WavLMForCTC(transformers.WavLMConfig(**WAVEFORM, **layout)).eval()
    model.save_pretrained(tmp_path)
    network = open_network(str(tmp_path))
    assert network.model.state_dict().keys() == model.state_dict().keys()
    waveforms = 0.1 * torch.randn(2, 9_000)
    mask = (torch.arange(9_000) < torch.tensor([[9_000], [6_000]])).long()
    with torch.no_grad(), warnings.catch_warnings():
        # transformers' own gives torch masks of two types.
        warnings.simplefilter("ignore")
        theirs = model(waveforms, attention_mask=mask, output_hidden_states=True)
        ours = network.model(waveforms, attention_mask=mask, output_hidden_states=True)
    for one, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(one[0], other[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one[1, :18], other[1, :18], rtol=1e-4, atol=1e-5)


def test_what_is_generated_is_what_teacher_forcing_finds_likeliest(opened: Any) -> None:
    network = opened("whisper")
    inputs = network.inputs([0.1 * torch.randn(16_000)])
    (said,) = network.answers(network.model, inputs, 1.0)
    assert len(said) <= 17
    with torch.no_grad():
        heard = network.hear(network.model, inputs, [said])
    assert heard.logits is not None
    # Each token is the likeliest one after those before it; two come before the first, and an end after the last.
    likeliest = heard.logits[0, 1:].argmax(-1).tolist()
    assert likeliest == [*said, 37] if len(said) < 17 else likeliest[:17] == [*said]


def test_an_encoder_alone_gives_what_it_gives_in_its_network(opened: Any, tmp_path: Path) -> None:
    for name in ("whisper", "w2v-bert", "wav2vec2"):
        whole = opened(name)
        encoder = open_network(whole.name, Wish(task="distill"))
        assert encoder.task == "distill"
        assert any("was left out" in note for note in encoder.notes)
        inputs = whole.inputs([0.1 * torch.randn(9_000)])
        with torch.no_grad():
            inside = whole.hear(whole.model, inputs, [(3,)] if name == "whisper" else None)
            alone = encoder.hear(encoder.model, inputs)
        torch.testing.assert_close(alone.states, inside.states)
        assert alone.logits is None


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("wav2vec2", {"model_type": "bert"}, r"unknown family .*got bert, expected one of .*whisper.*register_family"),
        ("wav2vec2", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "a decoder without an encoder"),
        ("whisper", {"architectures": ["WhisperForCausalLM"]}, "a decoder without an encoder hears nothing"),
        ("wav2vec2", {"architectures": None}, "does not say which class"),
        ("wav2vec2", {"architectures": ["Wav2Vec2ForTea"]}, "no such class"),
        ("wav2vec2", {"vocab_size": 9}, "cannot load the checkpoint"),
        ("classes", {"architectures": ["Wav2Vec2ForCTC"]}, "weights are missing"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused_in_a_line(
    tmp_path: Path, name: str, change: dict[str, Any], line: str
) -> None:
    import json

    folder = save_network(name, tmp_path)
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | change))
    with pytest.raises((ConfigError, DataError), match=line) as caught:
        open_network(str(folder))
    assert "\n" not in str(caught.value)


def test_an_extractor_of_another_rate_is_refused(tmp_path: Path) -> None:
    import json

    folder = save_network("wav2vec2", tmp_path)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sampling_rate": 8000}))
    with pytest.raises(DataError, match=r"feature extractor of another sample rate.*got 8000 Hz, expected 16000 Hz"):
        open_network(str(folder))


def test_a_head_that_is_not_there(tmp_path: Path) -> None:
    folder = save_network("wav2vec2", tmp_path)
    with pytest.raises(ConfigError, match=r"no head for the task.*Wav2Vec2ForCTC for classify.*--task ctc"):
        open_network(str(folder), Wish(task="classify"))
    with pytest.raises(ConfigError, match=r"no such task: ctx .*did you mean 'ctc'"):
        open_network(str(folder), Wish(task="ctx"))


def test_labels_that_do_not_fit_the_head(opened: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the head has no such class .*got 'cat', expected LABEL_0, LABEL_1, LABEL_2"):
        opened("classes").encode("cat")
    with pytest.raises(DataError, match=r"malformed labels of frames .*expected name:seconds"):
        opened("frames").encode("0 1")
    with pytest.raises(DataError, match="nothing of the transcript is in the vocabulary"):
        opened("wav2vec2").encode("123")
    with pytest.raises(DataError, match=r"no tokenizer.*tokenizer.json or vocab.json"):
        open_network(str(save_network("wav2vec2", tmp_path / "bare", tokenizer=False))).encode("AB")
    import json

    folder = save_network("wav2vec2", tmp_path / "large")
    (folder / "vocab.json").write_text(json.dumps({chr(65 + number): number for number in range(20)}))
    with pytest.raises(DataError, match=r"the vocabulary does not fit the head.*got 20 tokens, expected at most 12"):
        open_network(str(folder)).encode("AB")


def test_text_becomes_numbers_and_text_again(tmp_path: Path) -> None:
    network = open_network(str(save_network("wav2vec2", tmp_path / "ctc")))
    # The vocabulary is in upper case.
    assert network.decode(network.encode("bad  cab")) == "BAD CAB"
    assert network.encode("bäd") == network.encode("bd")
    assert network.remarks() == ("left out of transcripts, 1 characters outside the vocabulary: 'Ä' (1)",)
    network = open_network(str(save_network("whisper", tmp_path / "whisper")))
    assert network.decode(network.encode("a b c")) == "a b c"
    assert network.encode("a ? c") == network.encode("a c")
    assert network.remarks() == ("left out of transcripts, 1 characters outside the vocabulary: '?' (1)",)
