"""Write the tables of docs/lampe.md: the release at real lengths, and the published curves.

Run: python -m tests.lampe_numbers
"""

import torch

import lampe
from lampe.mapping_length import PUBLISHED_CURVES
from lampe.methods import method_of
from lampe.methods.lampe_release import Release

HEAD, TAIL = 1024, 200
LENGTHS = (8192, 16384, 32768, 65536, 131072)
PAIRS = 2_000_000


def release_table() -> str:
    """Return the properties of the release by length of the prompt, with Llama 3's curve."""
    releases = [
        Release(length, HEAD, TAIL, PUBLISHED_CURVES["llama3"](length)) for length in LENGTHS
    ]
    rows = {
        "tokens of the prompt": LENGTHS,
        "`use_length`": [release.use_length for release in releases],
        "m of the release": [
            int(release.three_regions().largest(release.length)) + 1 for release in releases
        ],
        "m of `lampe`": [_mapping("llama3", length) for length in LENGTHS],
        "tail": [release.run_end for release in releases],
        "floors that float32 misses": [_missed(release) for release in releases],
        "middle as in the paper": [f"{100 * _share(release):.0f} %" for release in releases],
        "drift after 128 tokens": [_drift(release, 128) for release in releases],
        "drift after 512 tokens": [_drift(release, 512) for release in releases],
    }
    return _table([[name, *map(str, cells)] for name, cells in rows.items()])


def curve_table() -> str:
    """Return ``use_length`` and m of each curve, for a model with the curve's window.

    m is the length of the prompt where LaMPE leaves true distances as they are.
    """
    lengths = (4096, 8191, 8192)
    use_lengths = [f"`use_length` at {length}" for length in lengths]
    mapping_lengths = [f"m at {length}" for length in lengths]
    rows = [["curve", "ceiling", *use_lengths, *mapping_lengths, "stretches"]]
    for name, curve in PUBLISHED_CURVES.items():
        mapped = [curve(length) for length in lengths] + [
            _mapping(name, length) for length in lengths
        ]
        longest = max(length for length in range(2, lengths[-1]) if curve(length) >= length)
        rows.append(
            [f"`{name}`", f"{curve.ceiling / curve.window:.2f}", *map(str, mapped), f"to {longest}"]
        )
    return _table(rows)


def _share(release: Release) -> float:
    """Return the share of random pairs of the middle that are at the paper's position.

    The others are off by one, as asserted here.
    """
    mapping, tail = int(release.three_regions().largest(release.length)) + 1, release.run_end
    random = torch.Generator().manual_seed(0)
    query, key = torch.randint(release.length, (2, PAIRS), generator=random)
    distance = query - key
    middle = (distance > HEAD) & (distance < release.length - tail)
    query, key, distance = query[middle], key[middle], distance[middle]
    beyond = (mapping - HEAD - tail) * (distance - HEAD) // (release.length - HEAD - tail)
    ids = release.ids(release.length)
    more = ids(query) - ids(key) + release.head_offset - (HEAD + beyond)
    assert more.abs().max() <= 1
    return float((more == 0).double().mean())


def _missed(release: Release) -> int:
    index = torch.arange(release.length)
    exact = index * release.use_length // (release.length - 1)
    return int((release.ids(release.length)(index) != exact).sum())


def _drift(release: Release, generated: int) -> int:
    """Positions by which the middle's query falls behind, which stays where the prompt ended."""
    return round(generated * release.use_length / (release.length - 1))


def _mapping(curve: str, length: int) -> int:
    resolved = method_of("lampe", curve=curve).resolved(
        lampe.Geometry(window=PUBLISHED_CURVES[curve].window), length
    )
    return min(length, resolved.settings["mapping_length"])


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


if __name__ == "__main__":
    print(release_table(), curve_table(), sep="\n\n")
