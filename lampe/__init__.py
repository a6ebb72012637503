"""Training-free context extension for rotary transformers.

>>> handle = lampe.patch(model, "lampe")  # doctest: +SKIP
>>> model.generate(...)  # doctest: +SKIP
>>> handle.unpatch()  # doctest: +SKIP
"""

from lampe.attention import AUTO, BACKENDS
from lampe.cache import growing_cache
from lampe.encoding import Encoding
from lampe.errors import BadSetting, LampeError, PositionWarning, UnknownName, UnsupportedModel
from lampe.geometry import Geometry, geometry_of
from lampe.handle import Handle
from lampe.mapping import PUBLISHED, Sigmoid
from lampe.methods import METHODS, Composed, IndexMethod, Method, method_of
from lampe.patch import explain, patch, unpatch
from lampe.positions import PLAIN, PositionMap, PositionPlan, Region
from lampe.rope import Rope
from lampe.temperature import Temperature

__all__ = [
    "AUTO",
    "BACKENDS",
    "METHODS",
    "PLAIN",
    "PUBLISHED",
    "BadSetting",
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
    "Temperature",
    "UnknownName",
    "UnsupportedModel",
    "explain",
    "geometry_of",
    "growing_cache",
    "method_of",
    "patch",
    "unpatch",
]
