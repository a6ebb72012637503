"""Benchmark files from their official sources: pinned, fetched once, verified on every look, readable offline.

path = path_of("longbench/dataset2prompt.json", data_dir)
rows = path_of("longbench/data.zip!/data/hotpotqa.jsonl", data_dir)
tasks = literal(path_of("ruler/constants.py", data_dir), "TASKS")
"""

from lampe_eval.assets.card import Asset, assets, benches_with_assets, chosen, find
from lampe_eval.assets.fetch import Unreachable, fetch
from lampe_eval.assets.literals import literal, literals, strings
from lampe_eval.assets.load import Missing, digest, load, load_member, locate, path_of
from lampe_eval.assets.verify import Corrupt, State

__all__ = [
    "Asset",
    "Corrupt",
    "Missing",
    "State",
    "Unreachable",
    "assets",
    "benches_with_assets",
    "chosen",
    "digest",
    "fetch",
    "find",
    "literal",
    "literals",
    "load",
    "load_member",
    "locate",
    "path_of",
    "strings",
]
