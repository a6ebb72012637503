"""Training-free context extension for rotary transformers.

>>> handle = lampe.patch(model, "lampe")  # doctest: +SKIP
>>> model.generate(...)  # doctest: +SKIP
>>> handle.unpatch()  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lampe.attention_factor import AttentionFactor
from lampe.backend_names import AUTO
from lampe.encoding import Encoding
from lampe.errors import (
    BadSetting,
    CheckpointWarning,
    ExportError,
    LampeError,
    PositionWarning,
    UnknownName,
    UnsupportedModel,
)
from lampe.geometry import Geometry, geometry_of
from lampe.mapping_length import PUBLISHED_CURVES, Sigmoid
from lampe.methods import (
    METHODS,
    Composed,
    IndexMethod,
    Method,
    method_of,
    register_method,
    setting,
)
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region
from lampe.rope import Rope

if TYPE_CHECKING:
    from lampe.attention import BACKENDS
    from lampe.caches.growing_cache import growing_cache
    from lampe.checkpoints.export import export
    from lampe.patching.handle import Handle
    from lampe.patching.patch import explain, patch, unpatch

__all__ = [
    "AUTO",
    "BACKENDS",
    "IDENTITY_PLAN",
    "METHODS",
    "PUBLISHED_CURVES",
    "AttentionFactor",
    "BadSetting",
    "CheckpointWarning",
    "Composed",
    "Encoding",
    "ExportError",
    "Geometry",
    "Handle",
    "IndexMethod",
    "LampeError",
    "Method",
    "PositionMap",
    "PositionPlan",
    "PositionWarning",
    "Region",
    "Rope",
    "Sigmoid",
    "UnknownName",
    "UnsupportedModel",
    "explain",
    "export",
    "geometry_of",
    "growing_cache",
    "method_of",
    "patch",
    "register_method",
    "setting",
    "unpatch",
]

_MODULES_WITH_TORCH = {
    "BACKENDS": "lampe.attention",
    "Handle": "lampe.patching.handle",
    "explain": "lampe.patching.patch",
    "export": "lampe.checkpoints.export",
    "growing_cache": "lampe.caches.growing_cache",
    "patch": "lampe.patching.patch",
    "unpatch": "lampe.patching.patch",
}
"""Modules of the names that are imported when they are first used: torch takes seconds to import,
and methods and their settings are looked up without it."""


def __getattr__(name: str) -> Any:
    """Import a public name that needs torch."""
    if name not in _MODULES_WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES_WITH_TORCH[name]), name)
