"""A saved student that is damaged or incomplete is refused, whatever is missing from it."""

import json
import shutil
from pathlib import Path

import pytest

import l0prune


class TestLoad:
    @pytest.fixture
    def copy(self, finished, tmp_path) -> Path:
        return Path(shutil.copytree(finished.folder, tmp_path / "copy"))

    @pytest.mark.parametrize("size", [0, 4, 100, -50])
    def test_damaged_weights(self, size, copy) -> None:
        weights = copy / "model.safetensors"
        data = weights.read_bytes()
        weights.write_bytes(data[:size])
        with pytest.raises(l0prune.RunError, match="damaged or missing weights"):
            l0prune.load(copy)

    def test_missing_weights(self, copy) -> None:
        (copy / "model.safetensors").unlink()
        with pytest.raises(l0prune.RunError, match="damaged or missing weights"):
            l0prune.load(copy)

    def test_weights_of_another_network(self, copy, bench) -> None:
        shutil.copy(bench.teacher, copy / "model.safetensors")
        with pytest.raises(l0prune.L0PruneError, match="damaged or missing weights"):
            l0prune.load(copy)
        without_checksums(copy)
        with pytest.raises(l0prune.L0PruneError, match="do not fit the plan"):
            l0prune.load(copy)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"format": "l0prune"}'])
    def test_damaged_description(self, text, copy) -> None:
        (copy / "model.json").write_text(text)
        with pytest.raises(l0prune.RunError, match=r"model\.json"):
            l0prune.load(copy)

    @pytest.mark.filterwarnings("ignore:.*saved before there were checksums")
    def test_anything_missing_or_of_the_wrong_kind_is_refused(self, copy) -> None:
        """Each entry of model.json, two levels deep, taken away or replaced."""
        path = without_checksums(copy)
        whole = json.loads(path.read_text())
        # Provenance is for people, and `verify` alone counts again; a version is compared, whatever stands there.
        places = [(key,) for key in whole if key not in ("provenance", "counted_on")]
        places += [("plan", key) for key in whole["plan"]] + [("architecture", "encoder_embed_dim")]
        gone = object()
        for place in places:
            for value in (gone, None, 3, "text", [], {}):
                spoiled = json.loads(path.read_text())
                owner = spoiled
                for key in place[:-1]:
                    owner = owner[key]
                if value is gone:
                    del owner[place[-1]]
                else:
                    owner[place[-1]] = value
                (copy / "model.json").write_text(json.dumps(spoiled))
                with pytest.raises(l0prune.L0PruneError) as caught:
                    l0prune.load(copy)
                assert str(caught.value), (place, value)
                path.write_text(json.dumps(whole))
        l0prune.load(copy)

    def test_missing_folder(self, tmp_path) -> None:
        with pytest.raises(l0prune.RunError, match="no pruned model here"):
            l0prune.load(tmp_path / "nowhere")


def without_checksums(folder: Path) -> Path:
    """A folder's model.json, as it was before there were checksums: any change would be seen by them."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    content.pop("sha256", None)
    path.write_text(json.dumps(content))
    return path
