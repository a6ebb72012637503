"""Generated samples on disk, for those that are made as text: that takes as long as encoding them (half a second at
128k tokens), while samples made as ids take milliseconds, less than reading them here.

<cache>/ruler/<digest of the key>/samples.jsonl   what a sample is, but for its ids
<cache>/ruler/<digest of the key>/ids.npy         ids of all prompts one after the other, as int32
<cache>/ruler/<digest of the key>/manifest.json   key, and sha256 of both; written last

Files that are not what the manifest says are made anew.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from lampe_eval import user_cache
from lampe_eval.ruler.piecewise_tokenizer import Ids
from lampe_eval.ruler.ruler_samples import RulerSample

FORMAT = 1
Key = Mapping[str, str | int | bool]
"""All that the samples are a function of: task, version, tokenizer, length, overhead, seed, n, wording, source."""


def cached(key: Key, make: Callable[[], Iterable[RulerSample]]) -> list[RulerSample]:
    """The samples of a key, from disk where they are whole, else made and written.

    Raises:
        UserError: where the cache cannot be written.
    """
    home = folder(key)
    with user_cache.lock(home):
        samples = load(key)
        if samples is None:
            samples = list(make())
            _save(home, key, samples)
    return samples


def folder(key: Key) -> Path:
    """Where the samples of a key lie."""
    return user_cache.root() / "ruler" / hashlib.sha256(_stated(key).encode()).hexdigest()[:32]


def load(key: Key) -> list[RulerSample] | None:
    """The samples of a key; None where there are none, or not as they were written."""
    home = folder(key)
    try:
        manifest = json.loads((home / "manifest.json").read_text(encoding="utf-8"))
        rows, ids = ((home / name).read_bytes() for name in ("samples.jsonl", "ids.npy"))
        if manifest != _manifest(key, rows, ids):
            return None
    except (OSError, ValueError):
        return None
    flat = np.load(io.BytesIO(ids), allow_pickle=False)
    read = [json.loads(line) for line in rows.decode().splitlines()]
    ends = np.cumsum([row["size"] or 0 for row in read])
    return [
        _built(row, flat[end - (row["size"] or 0) : end])
        for row, end in zip(read, ends.tolist(), strict=True)
    ]


def digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """What tells a tokenizer from others: its whole definition, or vocabulary and class where it has no fast one."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    stated = (
        fast.to_str()
        if fast is not None
        else f"{type(tokenizer)} {sorted(tokenizer.get_vocab().items())}"
    )
    return hashlib.sha256(stated.encode()).hexdigest()


def _save(home: Path, key: Key, samples: Sequence[RulerSample]) -> None:
    buffer = io.BytesIO()
    np.save(
        buffer,
        np.concatenate(
            [np.empty(0, np.int32), *(built.ids for built in samples if built.ids is not None)]
        ),
    )
    rows = "".join(f"{json.dumps(_row(built))}\n" for built in samples).encode()
    (home / "manifest.json").unlink(missing_ok=True)
    user_cache.write(home / "samples.jsonl", rows)
    user_cache.write(home / "ids.npy", buffer.getvalue())
    user_cache.write(home / "manifest.json", json.dumps(_manifest(key, rows, buffer.getvalue())))


def _row(built: RulerSample) -> dict[str, Any]:
    """A sample with the number of its ids."""
    return {
        "text": built.text,
        "answer_prefix": built.answer_prefix,
        "outputs": built.outputs,
        "units": built.units,
        "size": len(built.ids) if built.ids is not None else None,
        "before": built.before,
        "after": built.after,
        "meta": dict(built.meta),
    }


def _built(row: dict[str, Any], ids: Ids) -> RulerSample:
    return RulerSample(
        text=row["text"],
        answer_prefix=row["answer_prefix"],
        outputs=tuple(row["outputs"]),
        units=row["units"],
        ids=None if row["size"] is None else ids,
        before=tuple(row["before"]),
        after=tuple(row["after"]),
        meta=row["meta"],
    )


def _manifest(key: Key, rows: bytes, ids: bytes) -> dict[str, Any]:
    hashes = {"samples.jsonl": rows, "ids.npy": ids}
    return {
        "key": dict(key),
        **{name: hashlib.sha256(data).hexdigest() for name, data in hashes.items()},
    }


def _stated(key: Key) -> str:
    return json.dumps({"format": FORMAT, **key}, sort_keys=True)
