"""Training-free context extension for rotary transformers.

>>> handle = lampe.patch(model, "lampe")  # doctest: +SKIP
>>> model.generate(...)  # doctest: +SKIP
>>> handle.unpatch()  # doctest: +SKIP
"""

from lampe.attention import AUTO, BACKENDS
from lampe.attention_factor import AttentionFactor
from lampe.caches.growing_cache import growing_cache
from lampe.encoding import Encoding
from lampe.errors import (
    BadSetting,
    CheckpointWarning,
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
from lampe.patching.handle import Handle
from lampe.patching.patch import explain, patch, unpatch
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region
from lampe.rope import Rope

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
    "geometry_of",
    "growing_cache",
    "method_of",
    "patch",
    "register_method",
    "setting",
    "unpatch",
]
