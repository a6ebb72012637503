"""Asset cards: the shipped ones are valid, and errors say what is wrong with others."""

from collections import Counter
from pathlib import Path

import pytest

from lampe_eval.assets import find, select
from lampe_eval.assets.asset_cards import COMMIT, AssetCard, benches_with_assets, list_assets
from lampe_eval.assets.local_assets import cache_path
from lampe_eval.cards import read_card
from lampe_eval.errors import UserError


@pytest.mark.parametrize("bench", benches_with_assets())
def test_shipped_cards(bench: str) -> None:
    assets = list_assets(bench)
    assert assets
    for asset in assets:
        if asset.source.package:
            assert asset.url.startswith(f"{asset.source.package}==")
            continue
        assert asset.url.startswith("https://")
        # What is never fetched needs no version that cannot change; a run records its hash.
        is_fixed = asset.source.url or COMMIT.fullmatch(asset.source.revision)
        assert is_fixed or asset.source.user_copies


def test_every_file_has_its_own_path_in_the_cache() -> None:
    assert max(Counter(cache_path(asset) for asset in select(())).values()) == 1


def test_names_select_assets_each_once() -> None:
    names = [asset.name for asset in select(("longbench/data.zip", "longbench"))]
    assert names[0] == "longbench/data.zip"
    assert sorted(names) == sorted(asset.name for asset in list_assets("longbench"))
    assert len(select(())) == sum(len(list_assets(bench)) for bench in benches_with_assets())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "longbensh",
            r"'longbensh' .*'longbench'.*lampe-eval data list",
        ),
        (
            "longbench/data.zi",
            r"'longbench/data.zi' .*'longbench/data.zip'",
        ),
    ],
)
def test_unknown_names_offer_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select((name,))
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
        (f"url: 'ftp://a/b/', files: [{{path: a, {HASH}}}]", "must be a folder on the web"),
        (f"url: 'https://a/b', files: [{{path: a, {HASH}}}]", "must be a folder on the web"),
        (f"package: a, revision: '1', files: [{{path: a, {HASH}}}]", "needs a wheel_sha256"),
        (f"package: a, wheel_{HASH}, files: [{{path: a, {HASH}}}]", "needs a revision"),
        (f"package: a, wheel_{HASH}, revision: '1', files: [{{path: a}}]", "a needs a sha256"),
        (f"package: --a, wheel_{HASH}, revision: '1', files: [{{path: a, {HASH}}}]", "package"),
        (f"hub: a/b, wheel_{HASH}, revision: main, files: [{{path: a, {HASH}}}]", "none for"),
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
            f"hub: a/b, revision: {REVISION}, files: [{{path: a, alternative_paths: [../b]}}]",
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
