"""transformers' pipeline "feature-extraction" for speech: audio in, the last hidden state out. The file stands alone.

Legend: T frames, D width.
"""

from collections.abc import Mapping
from typing import Any

from transformers import Pipeline


class SpeechFeatureExtraction(Pipeline):
    """Features of speech, where transformers' own pipeline of this name takes text alone.

    Each input is a clip (samples,) at the extractor's rate, or a mapping with `array` (or `raw`) and `sampling_rate`.
    The output is a list [1][T][D], or with `return_tensors=True` a tensor (1, T, D).
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    def _sanitize_parameters(
        self, return_tensors: bool | None = None, **_others: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return {}, {}, {} if return_tensors is None else {"return_tensors": return_tensors}

    def preprocess(self, input_: Any, **_settings: Any) -> Any:
        """A clip -> the model's inputs."""
        rate = self.feature_extractor.sampling_rate  # type: ignore[union-attr]
        if isinstance(input_, Mapping):
            rate, input_ = input_["sampling_rate"], input_["array"] if "array" in input_ else input_["raw"]
        return self.feature_extractor(input_, sampling_rate=rate, return_tensors="pt")  # type: ignore[misc]

    def _forward(self, input_tensors: Any, **_settings: Any) -> Any:
        return self.model(**input_tensors)

    def postprocess(self, model_outputs: Any, return_tensors: bool = False, **_settings: Any) -> Any:
        """The model's outputs -> the last hidden state."""
        return model_outputs[0] if return_tensors else model_outputs[0].tolist()
