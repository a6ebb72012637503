"""``assets.lock``: the sha256 of what no card pins, as it was when first fetched. Later files must agree."""

import json
from pathlib import Path
from typing import TypedDict

from lampe_eval.assets import cache
from lampe_eval.assets.card import Asset
from lampe_eval.errors import UserError


class Pin(TypedDict):
    """Size and hash of a file."""

    bytes: int
    sha256: str


def lock_file() -> Path:
    """Where hashes are recorded."""
    return cache.root() / "assets.lock"


def recorded(asset: Asset) -> str | None:
    """The sha256 that was recorded for an asset.

    Raises:
        UserError: for a lock file that cannot be read.
    """
    pin = _pins().get(asset.key)
    return pin["sha256"] if pin else None


def record(asset: Asset, pin: Pin) -> str:
    """Records an asset's hash, unless another process was faster, and returns the one that holds."""
    path = lock_file()
    with cache.locked(path):
        pins = {asset.key: pin, **_pins()}
        cache.write(path, json.dumps(pins, indent=1, sort_keys=True) + "\n")
    return pins[asset.key]["sha256"]


def _pins() -> dict[str, Pin]:
    path = lock_file()
    try:
        pins: dict[str, Pin] = json.loads(path.read_text(encoding="utf-8"))
        return {
            key: {"bytes": int(pin["bytes"]), "sha256": str(pin["sha256"])}
            for key, pin in pins.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise UserError(
            f"{path}: not a lock file; mend it, or remove it to record all hashes anew"
        ) from None
