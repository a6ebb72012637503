"""Hashes of files that no card pins, recorded in ``assets.lock`` when first downloaded.

Every later download of the same address must have the recorded hash.
"""

import json
from pathlib import Path
from typing import TypedDict

from lampe_eval import user_cache
from lampe_eval.errors import UserError


class Pin(TypedDict):
    """Size and hash of a file."""

    bytes: int
    sha256: str


def lock_file() -> Path:
    """Return the path of ``assets.lock``."""
    return user_cache.root() / "assets.lock"


def recorded_sha256(url: str) -> str | None:
    """Return the hash recorded for an address; None where there is none.

    Raises:
        UserError: if the lock file cannot be read.
    """
    pin = _read_pins().get(url)
    return pin["sha256"] if pin else None


def record(url: str, pin: Pin) -> str:
    """Record the hash for an address, unless another process was faster; return the one that holds.

    Raises:
        UserError: if the lock file cannot be read or written.
    """
    path = lock_file()
    with user_cache.lock(path):
        # Another process may have recorded a hash since the caller looked: the first one holds.
        pins = _read_pins()
        pins.setdefault(url, pin)
        user_cache.write(path, json.dumps(pins, indent=1, sort_keys=True) + "\n")
    return pins[url]["sha256"]


def _read_pins() -> dict[str, Pin]:
    path = lock_file()
    try:
        pins: dict[str, Pin] = json.loads(path.read_text(encoding="utf-8"))
        return {
            url: {"bytes": int(pin["bytes"]), "sha256": str(pin["sha256"])}
            for url, pin in pins.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise UserError(
            f"{path}: is not a valid lock file; correct it, or remove it to record all hashes again"
        ) from None
