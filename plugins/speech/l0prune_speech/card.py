"""What a model card says of speech networks, as far as the names of teacher and task tell it."""

from collections.abc import Mapping
from os.path import exists
from typing import Any

from l0prune.plugin import CardFacts

_HUBERT, _WAV2VEC2, _WAVLM = "facebook/hubert-{}", "facebook/wav2vec2-{}", "microsoft/wavlm-{}"
_BUNDLES = {
    "HUBERT_BASE": _HUBERT.format("base-ls960"),
    "HUBERT_LARGE": _HUBERT.format("large-ll60k"),
    "HUBERT_XLARGE": _HUBERT.format("xlarge-ll60k"),
    "WAV2VEC2_BASE": _WAV2VEC2.format("base"),
    "WAV2VEC2_LARGE": _WAV2VEC2.format("large"),
    "WAV2VEC2_LARGE_LV60K": _WAV2VEC2.format("large-lv60"),
    "WAVLM_BASE": _WAVLM.format("base"),
    "WAVLM_BASE_PLUS": _WAVLM.format("base-plus"),
    "WAVLM_LARGE": _WAVLM.format("large"),
}
"""The same weights on the hub, by torchaudio's names."""
_TAGS = {
    "": "feature-extraction",
    "distill": "feature-extraction",
    "ctc": "automatic-speech-recognition",
    "seq2seq": "automatic-speech-recognition",
    "classify": "audio-classification",
    "speaker": "audio-classification",
    "frames": "audio-classification",
}


def card_facts(options: Mapping[str, Any]) -> CardFacts:
    """What the settings of a run tell. Licences and languages are not among it: no setting says them.

    Args:
        options: The table [speech] of a run.
    """
    teacher = str(options.get("teacher", ""))
    # As teachers are opened: what is no path is a hub id, which is an owner and a name.
    is_id = teacher.count("/") == 1 and teacher[0] not in "./~" and not exists(teacher)
    base = _BUNDLES.get(teacher, teacher if is_id else "")
    return CardFacts(base_model=base, pipeline_tag=_TAGS.get(str(options.get("task", "")), ""))
