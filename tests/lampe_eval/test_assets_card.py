"""Cards of assets: the shipped ones are sound, and others are told what is wrong with them."""

from collections import Counter
from pathlib import Path

import pytest

from lampe_eval.assets import assets, benches_with_assets, cache, chosen, find
from lampe_eval.assets.card import COMMIT, AssetCard
from lampe_eval.cards import read_card
from lampe_eval.errors import UserError


@pytest.mark.parametrize("bench", benches_with_assets())
def test_shipped_cards(bench: str) -> None:
    found = assets(bench)
    assert found
    for asset in found:
        assert asset.key.startswith("https://")
        assert asset.source.url or COMMIT.fullmatch(asset.source.revision)


def test_every_file_has_a_place_of_its_own() -> None:
    assert max(Counter(cache.home(asset) for asset in chosen(())).values()) == 1


def test_names_choose_assets_each_once() -> None:
    names = [asset.name for asset in chosen(("longbench/data.zip", "longbench"))]
    assert names[0] == "longbench/data.zip"
    assert sorted(names) == sorted(asset.name for asset in assets("longbench"))
    assert len(chosen(())) == sum(len(assets(bench)) for bench in benches_with_assets())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "longbensh",
            r"unknown bench with data 'longbensh' .did you mean 'longbench'.*; see: lampe-eval data list",
        ),
        (
            "longbench/data.zi",
            r"unknown asset 'longbench/data.zi' .did you mean 'longbench/data.zip'",
        ),
    ],
)
def test_unknown_names_offer_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen((name,))
    with pytest.raises(UserError, match=r"unknown"):
        find(name)


HASH = "sha256: " + "a" * 64
REVISION = "a" * 40


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"revision: main, files: [{{path: a, {HASH}}}]", "exactly one of github, hub, url"),
        (f"github: a/b, hub: a/b, revision: main, files: [{{path: a, {HASH}}}]", "exactly one of"),
        (f"github: a/b, files: [{{path: a, {HASH}}}]", "needs a revision"),
        (f"url: 'https://a/b/', revision: main, files: [{{path: a, {HASH}}}]", "none for url"),
        (f"url: 'ftp://a/b/', files: [{{path: a, {HASH}}}]", "must be a folder of the web"),
        (f"url: 'https://a/b', files: [{{path: a, {HASH}}}]", "must be a folder of the web"),
        ("hub: a/b, revision: main, files: [{path: a}]", "a needs a sha256"),
        ("url: 'https://a/b/', files: [{path: a}]", "a needs a sha256"),
        (
            f"hub: a/b, revision: {REVISION}, mirrors: ['https://a/'], files: [{{path: a}}]",
            "a needs a sha256",
        ),
        (f"hub: a/b, revision: {REVISION}, files: [{{path: ../a}}]", "stays inside its folder"),
        (f"hub: a/b, revision: {REVISION}, files: [{{path: /a}}]", "stays inside its folder"),
        (f"hub: ../b, revision: {REVISION}, files: [{{path: a}}]", "stays inside its folder"),
        (
            f"hub: a/b, revision: {REVISION}, files: [{{path: a, also: [../b]}}]",
            "stays inside its folder",
        ),
        (f"hub: a/b, revision: {REVISION}, files: [{{path: a, sha256: 12}}]", "sha256"),
        (
            f"hub: a/b, revision: {REVISION}, files: [{{path: a}}, {{path: b/a}}]",
            "two files are called 'a'",
        ),
        (
            f"hub: a/b, revision: {REVISION}, files: [{{path: a, size: 3}}]",
            "key 'sources.0.files.0.size'",
        ),
    ],
)
def test_unsound_cards_are_refused(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(f"sources:\n  - {{{source}}}\n")
    with pytest.raises(UserError) as caught:
        read_card(path, AssetCard)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
