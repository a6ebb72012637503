"""Every fast backend against the float64 oracle: methods x heads x phases, at odd lengths.

Memory that was not written is NaN, so that a kernel which leaves out a tile fails. A backend that
cannot run here is skipped with its own reason; Triton's kernels are interpreted where there is no
GPU. The tolerance is computed, see ``tests.lampe.attention.error_bound``.
"""

import dataclasses
import importlib.util
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import lampe
from lampe.attention import (
    BACKENDS,
    AttentionInputs,
    LogitOptions,
    blockwise,
    flash,
    rotated_keys,
    tiling,
    triton_backend,
)
from lampe.attention.rotated_keys import RotatedKeys
from lampe.methods import method_of
from lampe.positions import LocalWindow
from tests.lampe.attention.error_bound import error_bound

SCALE = 0.25
WINDOW = 24
HEADS = {"MHA": (2, 2), "GQA 4:1": (8, 2), "MQA": (3, 1)}
PHASES = {"prefill": (0, 45), "chunk": (24, 43), "decode": (60, 61)}
PROMPT = 60
METHODS = {
    "original": {},
    "dynamic-ntk": {"cache": "rotated"},
    "selfextend": {},
    "dca": {},
    "chunkllama": {"variant": "reference"},
    "rerope": {},
    "string": {"variant": "reference", "shift": 20, "local": 4},
    "lampe": {},
    "lampe:reference": {
        "variant": "reference",
        "head_tokens": 4,
        "tail_tokens": 3,
        "mapping_length": 12,
    },
    "lampe:paper": {"variant": "paper"},
    "lampe+yarn": {},
    "cope": {"mode": "hard"},
    "self": {"capacity": 5, "rate": 1.0},
    "adagrope": {},
    "streaming-llm": {"sinks": 3, "recent": 9},
    "lm-infinite": {"sinks": 3, "local": 9},
}
BANDED = {"dpe": {"group_sizes": "2/5/1/3", "window_size": 7}, "gali": {}}
"""Methods with bands of rotated pairs, or of queries, with one kind of heads: tests take long."""
FAST = [name for name in BACKENDS if name != "dense"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def nan_in_uninitialized_memory() -> Iterator[None]:
    """Fill new memory with NaN."""
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(was_deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = was_filled


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tiles, and tables of later tokens, so small that short prompts have several.

    Without a GPU the kernels run in Triton's interpreter.
    """
    monkeypatch.setattr(
        triton_backend, "prefill_tile", lambda *inputs: triton_backend.KernelTile(16, 16, 4, 2)
    )
    monkeypatch.setattr(triton_backend, "SPLIT_KEYS", 32)
    monkeypatch.setattr(rotated_keys, "ROWS_AHEAD", 12)
    if DEVICE.type == "cpu" and importlib.util.find_spec("triton"):
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def flash_by_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the flash kernel by its definition where there is no GPU."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(flash, "flash_kernel", lambda dim: _flash_by_definition)
        monkeypatch.setattr(flash.Flash, "refuses", lambda *inputs: None)


def _flash_by_definition(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, window_left: int
) -> tuple[Tensor, Tensor]:
    """Compute what a ``FlashKernel`` documents, its edges aligned to the last query and key."""
    k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], 2) for x in (k, v))
    logits = scale * torch.einsum("bqhd,bkhd->bhqk", q.float(), k.float())
    own_key = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
    key = torch.arange(k.shape[1])
    hidden = ((key > own_key) & causal) | ((key < own_key - window_left) & (window_left >= 0))
    logits = logits.masked_fill(hidden, -torch.inf)
    out = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v.float())
    return out.to(q.dtype), logits.logsumexp(-1)


def _encoding(method: str, length: int) -> lampe.Encoding:
    """Return the encoding of a prompt of ``length`` tokens by one of ``METHODS``."""
    geometry = lampe.Geometry(window=WINDOW, head_dim=16)
    return method_of(method.partition(":")[0], **{**METHODS, **BANDED}[method]).encode(
        geometry, length
    )


def _inputs(
    heads: tuple[int, int],
    queries: int,
    keys: int,
    dtype: torch.dtype,
    dim: int = 16,
    rows: int = 1,
) -> list[Tensor]:
    """Return queries, keys and values as views of larger tensors, which are NaN beyond them.

    A cache with spare capacity hands out such views.
    """
    tensors = []
    for count, length in ((heads[0], queries), (heads[1], keys), (heads[1], keys)):
        buffer = torch.full((rows, count, length + 9, dim), torch.nan, dtype=dtype)
        buffer[:, :, :length] = torch.randn(rows, count, length, dim).to(dtype)
        tensors.append(buffer.to(DEVICE)[:, :, :length])
    return tensors


def _oracle(inputs: AttentionInputs) -> Tensor:
    """Return attention by the oracle, in float64 over keys that are not rotated."""
    return BACKENDS["dense"].attend(
        dataclasses.replace(
            inputs,
            query=inputs.query.double(),
            key=inputs.key.double(),
            value=inputs.value.double(),
            rotated_keys=None,
        )
    )


def _check(backend: str, inputs: AttentionInputs) -> None:
    """Assert that a backend is as close to the oracle as rounding allows, or skip the test."""
    if reason := BACKENDS[backend].refuses(inputs):
        pytest.skip(f"{backend}: {reason}")
    ours = BACKENDS[backend].attend(inputs)
    assert ours.dtype == inputs.query.dtype
    assert float((ours.double() - _oracle(inputs)).abs().max()) <= error_bound(inputs)


@pytest.mark.matrix
@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("phase", PHASES)
def test_a_backend_equals_the_oracle(backend: str, method: str, heads: str, phase: str) -> None:
    _check_phase(backend, method, heads, phase)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("method", BANDED)
@pytest.mark.parametrize("phase", PHASES)
def test_a_backend_equals_the_oracle_in_bands(backend: str, method: str, phase: str) -> None:
    _check_phase(backend, method, "MQA", phase)


def _check_phase(backend: str, method: str, heads: str, phase: str) -> None:
    start, stop = PHASES[phase]
    encoding = _encoding(method, min(stop, PROMPT))
    dtype = torch.float32 if phase == "prefill" else torch.float16
    q, k, v = _inputs(HEADS[heads], stop - start, stop, dtype)
    _check(backend, AttentionInputs(q, k, v, encoding, scale=SCALE, start=start))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("phase", PHASES)
def test_a_batch_in_bfloat16_equals_the_oracle(backend: str, phase: str) -> None:
    if backend == "triton" and DEVICE.type == "cpu":
        pytest.skip("Triton's interpreter cannot multiply bfloat16")
    start, stop = PHASES[phase]
    encoding = _encoding("lampe", min(stop, PROMPT))
    q, k, v = _inputs((4, 2), stop - start, stop, torch.bfloat16, rows=3)
    _check(backend, AttentionInputs(q, k, v, encoding, scale=SCALE, start=start))


@pytest.mark.parametrize("backend", ["blockwise", "flash"])
@pytest.mark.parametrize("method", ["dca", "chunkllama", "string", "lampe", "self"])
@pytest.mark.parametrize("start", [0, 83])
def test_tiles_in_groups_equal_the_oracle(
    backend: str, method: str, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read a prompt, or its second part, with sinks; chunks of 18 tokens are in groups of two."""
    monkeypatch.setattr(tiling, "GROUP_QUERIES", 40)
    # Not the cached ones of other sizes.
    monkeypatch.setattr(blockwise, "tile_groups", tiling.tile_groups.__wrapped__)
    encoding = _encoding(method, 171)
    q, k, v = _inputs((4, 2), 171 - start, 171, torch.float32, rows=2)
    logits = LogitOptions(sinks=torch.linspace(-2, 3, 4, device=DEVICE))
    _check(backend, AttentionInputs(q, k, v, encoding, scale=SCALE, start=start, logits=logits))


@pytest.mark.parametrize("method", [*METHODS, *BANDED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_decode_steps_over_a_rotated_copy_equal_the_oracle(method: str, dtype: torch.dtype) -> None:
    encoding = _encoding(method, PROMPT)
    _, key, value = _inputs((4, 2), 1, 90, dtype)
    _check_decode_steps(key, value, encoding, range(PROMPT + 1, 90))


@pytest.mark.matrix
@pytest.mark.parametrize("backend", ["blockwise", "flash"])
@pytest.mark.parametrize("method", [*METHODS, *BANDED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_decode_steps_over_keys_rotated_in_place_equal_the_oracle(
    backend: str, method: str, dtype: torch.dtype
) -> None:
    """Check the steps, and the keys after ``restore``.

    In half precision each rotation rounds a key again, so these steps may have twice the error.
    """
    encoding = _encoding(method, PROMPT)
    _, key, value = _inputs((4, 2), 1, 90, dtype)
    original_key, rotated_keys = key.clone(), RotatedKeys(in_place=True)
    for stop in range(PROMPT + 1, 90):
        q = torch.randn(1, 4, 1, 16, device=DEVICE).to(dtype)
        k, v = original_key[:, :, :stop], value[:, :, :stop]
        original = AttentionInputs(q, k, v, encoding, scale=SCALE, start=stop - 1)
        inputs = dataclasses.replace(original, key=key[:, :, :stop], rotated_keys=rotated_keys)
        error = (BACKENDS[backend].attend(inputs).double() - _oracle(original)).abs().max()
        assert float(error) <= (1 if dtype == torch.float32 else 2) * error_bound(original)
    rotated_keys.restore(key[:, :, :89])
    atol = 1e-5 if dtype == torch.float32 else 0.06
    torch.testing.assert_close(key[:, :, :89], original_key[:, :, :89], atol=atol, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["streaming-llm", "lm-infinite"])
@pytest.mark.parametrize("phase", ["chunk", "decode"])
def test_keys_that_no_query_sees_may_be_missing(backend: str, method: str, phase: str) -> None:
    start, stop = PHASES[phase]
    encoding = _encoding(method, min(stop, PROMPT))
    q, k, v = _inputs((4, 2), stop - start, stop, torch.float32)
    whole = AttentionInputs(q, k, v, encoding, scale=SCALE, start=start)
    gap = range(4, start - 9)
    held = [token for token in range(stop) if token not in gap]
    inputs = dataclasses.replace(
        whole, key=k[:, :, held], value=v[:, :, held], rotated_keys=RotatedKeys(gap=gap)
    )
    if reason := BACKENDS[backend].refuses(inputs):
        pytest.skip(f"{backend}: {reason}")
    error = (BACKENDS[backend].attend(inputs).double() - _oracle(whole)).abs().max()
    assert float(error) <= error_bound(whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rotary_dim", [0, 8])
def test_decode_steps_of_a_layer_that_rotates_half_of_a_head_or_nothing(
    dtype: torch.dtype, rotary_dim: int
) -> None:
    _, key, value = _inputs((4, 2), 1, 90, dtype, rows=2)
    encoding = lampe.Encoding(lampe.Rope(()))
    if rotary_dim:
        geometry = lampe.Geometry(window=WINDOW, head_dim=16, rotary_dim=rotary_dim)
        encoding = method_of("lampe").encode(geometry, PROMPT)
    _check_decode_steps(key, value, encoding, range(80, 90))


def _check_decode_steps(key: Tensor, value: Tensor, encoding: lampe.Encoding, stops: range) -> None:
    """Check decode steps that store one rotated copy of the keys ``[B, 2, 90, 16]``."""
    rotated_keys = RotatedKeys()
    for stop in stops:
        q = torch.randn(len(key), 4, 1, 16, device=DEVICE).to(key.dtype)
        k, v = key[:, :, :stop], value[:, :, :stop]
        inputs = AttentionInputs(
            q, k, v, encoding, scale=SCALE, start=stop - 1, rotated_keys=rotated_keys
        )
        _check("blockwise", inputs)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "geometry",
    [
        lampe.Geometry(window=WINDOW, head_dim=24, rotary_dim=16),
        lampe.Geometry(window=WINDOW, head_dim=24, rotary_dim=8, begin=16, layout="interleaved"),
        lampe.Geometry(window=WINDOW, head_dim=80, layout="interleaved", sense=-1),
    ],
    ids=["part of a head", "its last part, interleaved", "no power of two"],
)
def test_every_kind_of_rope_equals_the_oracle(
    backend: str, phase: str, geometry: lampe.Geometry
) -> None:
    start, stop = PHASES[phase]
    encoding = method_of("lampe+yarn").encode(geometry, min(stop, PROMPT))
    q, k, v = _inputs((4, 2), stop - start, stop, torch.float32, geometry.head_dim)
    _check(backend, AttentionInputs(q, k, v, encoding, scale=SCALE, start=start))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("phase", PHASES)
def test_a_factor_per_token_leaves_the_unrotated_part_of_a_head(backend: str, phase: str) -> None:
    start, stop = PHASES[phase]
    geometry = lampe.Geometry(window=WINDOW, head_dim=24, rotary_dim=16)
    encoding = method_of("chunkllama", variant="reference").encode(geometry, 40)
    q, k, v = _inputs((4, 2), stop - start, stop, torch.float32, 24)
    _check(backend, AttentionInputs(q, k, v, encoding, scale=SCALE, start=start))


@pytest.mark.matrix
@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("local", [None, LocalWindow(19), LocalWindow(19, chunked=True)])
@pytest.mark.parametrize("logits", ["plain", "capped", "with sinks"])
@pytest.mark.parametrize("phase", PHASES)
def test_soft_caps_sinks_and_local_layers_equal_the_oracle(
    backend: str, local: LocalWindow | None, logits: str, phase: str
) -> None:
    start, stop = PHASES[phase]
    plan = _encoding("lampe", PROMPT).plan.within(local)
    encoding = lampe.Encoding(lampe.Geometry(window=WINDOW, head_dim=16).rope(PROMPT), plan)
    first = 0 if local is None else max(0, start - 20)
    q, k, v = _inputs((4, 2), stop - start, stop - first, torch.float32)
    if backend == "flash" and logits == "capped":
        pytest.skip("flash: it has no soft cap")
    options = {
        "plain": LogitOptions(),
        "capped": LogitOptions(softcap=1.5),
        "with sinks": LogitOptions(sinks=torch.linspace(-2, 3, 4, device=DEVICE)),
    }[logits]
    _check(
        backend,
        AttentionInputs(q, k, v, encoding, scale=SCALE, start=start, first=first, logits=options),
    )


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("phase", PHASES)
def test_a_layer_without_rotary_positions_equals_the_oracle(backend: str, phase: str) -> None:
    start, stop = PHASES[phase]
    q, k, v = _inputs((4, 2), stop - start, stop, torch.float32)
    _check(
        backend, AttentionInputs(q, k, v, lampe.Encoding(lampe.Rope(())), scale=SCALE, start=start)
    )
