"""Benchmark files from their official sources: pinned, downloaded once, verified, usable offline.

path = path_of("longbench/dataset2prompt.json", data_dir)
rows = path_of("longbench/data.zip!/data/hotpotqa.jsonl", data_dir)
tasks = literal(path_of("ruler/constants.py", data_dir), "TASKS")

A file is found on its card (``find``), downloaded (``fetch``), verified (``locate``) and opened
(``path_of``). Imports run one way: asset_cards, archive, pins, verify, data_folder, containers,
local_assets, wheel, fetch; each of these modules imports earlier ones only.
"""

from lampe_eval.assets.asset_cards import Asset, find, select
from lampe_eval.assets.fetch import UnreachableSource, fetch
from lampe_eval.assets.literals import all_strings, literal, literals, strings
from lampe_eval.assets.local_assets import (
    cache_path,
    digest,
    locate,
    offline_folder,
    path_of,
    unsearched,
)
from lampe_eval.assets.verify import (
    AssetState,
    CorruptAsset,
    LocalAsset,
    MissingAsset,
    describe_unused,
)

__all__ = [
    "Asset",
    "AssetState",
    "CorruptAsset",
    "LocalAsset",
    "MissingAsset",
    "UnreachableSource",
    "all_strings",
    "cache_path",
    "describe_unused",
    "digest",
    "fetch",
    "find",
    "literal",
    "literals",
    "locate",
    "offline_folder",
    "path_of",
    "select",
    "strings",
    "unsearched",
]
