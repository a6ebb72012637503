"""Cache of generated samples on disk, for those that are made as text.

Making a sample as text takes as long as encoding it (half a second at 128k tokens). Samples made as
ids take milliseconds, less than reading them here, and are not cached.

<cache>/ruler/<digest of the key>/samples.jsonl   all of a sample but its ids
<cache>/ruler/<digest of the key>/ids.npy         ids of all prompts one after the other, as int32
<cache>/ruler/<digest of the key>/manifest.json   key, and sha256 of both files; written last

Samples are built again where the files differ from what the manifest says.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lampe_eval import user_cache
from lampe_eval.file_io import sha256_of_bytes, sha256_of_text
from lampe_eval.ruler.piecewise_tokenizer import TokenIds
from lampe_eval.ruler.ruler_samples import RulerSample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 3
CacheKey = Mapping[str, str | int | bool]
"""Everything that samples are a function of, such as task, tokenizer, length, seed and wording."""


def load_or_build(key: CacheKey, build: Callable[[], Iterable[RulerSample]]) -> list[RulerSample]:
    """Return the samples of a key, from disk or else built and written.

    Raises:
        UserError: if the cache cannot be written.
    """
    folder = cache_folder(key)
    with user_cache.lock(folder):
        samples = load_samples(key)
        if samples is None:
            samples = list(build())
            _save(folder, key, samples)
    return samples


def cache_folder(key: CacheKey) -> Path:
    """Return the folder of the samples of a key."""
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    return user_cache.root() / "ruler" / sha256_of_text(text)[:32]


def load_samples(key: CacheKey) -> list[RulerSample] | None:
    """Return the samples of a key, or None where there are none or a file is damaged."""
    folder = cache_folder(key)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        rows = (folder / "samples.jsonl").read_bytes()
        id_file = (folder / "ids.npy").read_bytes()
    except (OSError, ValueError):
        return None
    # The key is compared too: the folder's name is only a part of its hash.
    if manifest != _manifest(key, rows, id_file):
        return None
    # A pickle could run code, and a cache is a folder that others may write to.
    ids = np.load(io.BytesIO(id_file), allow_pickle=False)
    samples, start = [], 0
    for line in rows.decode().splitlines():
        row = json.loads(line)
        stop = start + (row["size"] or 0)
        samples.append(_from_row(row, ids[start:stop]))
        start = stop
    return samples


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a sha256 that differs between tokenizers.

    It is that of the whole definition, or of class and vocabulary where there is no fast tokenizer.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None:
        definition = fast.to_str()
    else:
        definition = f"{type(tokenizer)} {sorted(tokenizer.get_vocab().items())}"
    return sha256_of_text(definition)


def _save(folder: Path, key: CacheKey, samples: Sequence[RulerSample]) -> None:
    ids = [sample.ids for sample in samples if sample.ids is not None]
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate([np.empty(0, np.int32), *ids]))
    id_file = buffer.getvalue()
    rows = "".join(f"{json.dumps(_to_row(sample))}\n" for sample in samples).encode()
    # Without its manifest a folder counts as empty, so an interrupted save is never read.
    (folder / "manifest.json").unlink(missing_ok=True)
    user_cache.write(folder / "samples.jsonl", rows)
    user_cache.write(folder / "ids.npy", id_file)
    user_cache.write(folder / "manifest.json", json.dumps(_manifest(key, rows, id_file)))


def _to_row(sample: RulerSample) -> dict[str, Any]:
    """Return a sample as JSON, with the number of its ids instead of the ids."""
    return {
        "text": sample.text,
        "answer_prefix": sample.answer_prefix,
        "outputs": sample.outputs,
        "units": sample.units,
        "size": len(sample.ids) if sample.ids is not None else None,
        "before": sample.before,
        "after": sample.after,
        "meta": dict(sample.meta),
        "document_sha256": sample.document_sha256,
    }


def _from_row(row: dict[str, Any], ids: TokenIds) -> RulerSample:
    return RulerSample(
        text=row["text"],
        answer_prefix=row["answer_prefix"],
        outputs=tuple(row["outputs"]),
        units=row["units"],
        ids=None if row["size"] is None else ids,
        before=tuple(row["before"]),
        after=tuple(row["after"]),
        meta=row["meta"],
        document_sha256=row["document_sha256"],
    )


def _manifest(key: CacheKey, rows: bytes, id_file: bytes) -> dict[str, Any]:
    return {
        "key": dict(key),
        "samples.jsonl": sha256_of_bytes(rows),
        "ids.npy": sha256_of_bytes(id_file),
    }
