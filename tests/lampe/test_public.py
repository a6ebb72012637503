"""The public surface: adding to it, or taking away, is a deliberate edit of this list."""

import lampe


def test_public_names() -> None:
    assert set(lampe.__all__) == {
        "AUTO",
        "AttentionFactor",
        "BACKENDS",
        "BadSetting",
        "Composed",
        "Encoding",
        "Geometry",
        "Handle",
        "IDENTITY_PLAN",
        "IndexMethod",
        "LampeError",
        "METHODS",
        "Method",
        "PUBLISHED_CURVES",
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
        "unpatch",
    }
    assert all(hasattr(lampe, name) for name in lampe.__all__)


def test_public_names_are_documented() -> None:
    undocumented = [
        name
        for name in lampe.__all__
        if callable(thing := getattr(lampe, name)) and not thing.__doc__
    ]
    assert not undocumented
