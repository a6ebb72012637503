"""Fixtures that give every test small corpora for its questions, and a cache of its own."""

from pathlib import Path

import pytest

from lampe_eval.ruler import document_questions
from tests.lampe_eval.ruler import ruler_examples


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("corpora")
    return {
        "ruler/dev-v2.0.json": ruler_examples.write_squad(folder / "squad.json"),
        "ruler/hotpot_dev_distractor_v1.json": ruler_examples.write_hotpotqa(
            folder / "hotpotqa.json"
        ),
    }


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, corpora: dict[str, Path]) -> None:
    def path_of(name: str, data_dir: Path | None = None) -> Path:
        return corpora[name]

    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAMPE_EVAL_DATA", raising=False)
    monkeypatch.setattr(document_questions, "path_of", path_of)
