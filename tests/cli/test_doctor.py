"""`l0prune doctor`: what is installed, where things are kept, and what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from l0prune_cli import doctor

import l0prune


def test_says_what_there_is(l0prune_call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    found = json.loads(l0prune_call("doctor", "--json").succeeded().out)
    assert found["l0prune"] == l0prune.__version__
    assert found["packages"]["torch"] == torch.__version__.split("+")[0]
    assert found["devices"][0]["name"] == "cpu"
    assert found["threads"] == torch.get_num_threads()
    assert found["folders"][0] == {"what": "cache", "path": str(tmp_path / "cache" / "l0prune"), "writable": True}
    assert [row["problem"] for row in found["plugins"] if row["name"] == "speech"] == [""]
    # Looking leaves no trace.
    assert list(tmp_path.iterdir()) == []
    shown = l0prune_call("doctor").succeeded().out
    assert "nothing is wrong" in shown
    assert "torch-pruning" in shown


def test_names_what_is_to_be_mended(l0prune_call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("torch-pruning", "openvino") else "1.0")
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    found = json.loads(l0prune_call("doctor", "--json").succeeded().out)
    missing, broken, cache = found["problems"]
    assert missing == "torch-pruning is missing"
    assert broken.startswith("torchaudio cannot be loaded")
    assert "XDG_CACHE_HOME" in cache
    assert f"to mend: {missing}" in l0prune_call("doctor").succeeded().out


def test_a_torch_that_cannot_be_loaded_is_a_finding(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\nsys.argv = ['l0prune', 'doctor', '--json']\n"
    code += "from l0prune_cli.main import main; main()"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["devices"] == []
    assert any(line.startswith("torch cannot be loaded") for line in found["problems"])
