"""Public names of the library: adding or removing one is a deliberate edit of this list."""

import lampe


def test_public_names() -> None:
    assert set(lampe.__all__) == {
        "AUTO", "AttentionFactor", "BACKENDS", "BadSetting", "CheckpointWarning", "Composed",
        "Encoding", "ExportError", "Geometry", "Handle", "IDENTITY_PLAN", "IndexMethod",
        "LampeError", "METHODS", "Method", "PUBLISHED_CURVES", "PositionMap", "PositionPlan",
        "PositionWarning", "Region", "Rope", "Sigmoid", "UnknownName", "UnsupportedModel",
        "explain", "export", "geometry_of", "growing_cache", "method_of", "patch",
        "register_method", "setting", "unpatch",
    }  # fmt: skip
    assert all(hasattr(lampe, name) for name in lampe.__all__)


def test_public_names_are_documented() -> None:
    public = {name: getattr(lampe, name) for name in lampe.__all__}
    assert not [name for name, value in public.items() if callable(value) and not value.__doc__]
