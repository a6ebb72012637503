"""Backend x method x heads x phase against the float64 oracle, at odd lengths, in memory that is NaN where not written.

A backend that cannot run here is skipped with its own reason; Triton's kernels are interpreted where there is no GPU.
The tolerance is computed, see ``tests.lampe.attention.bound``.
"""

import dataclasses
import importlib.util
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import lampe
from lampe.attention import BACKENDS, AttentionInputs, LogitOptions, flash
from lampe.attention import triton_backend as triton_backend
from lampe.attention.rotated_keys import RotatedKeys
from lampe.methods import method_of
from lampe.positions import LocalWindow
from tests.lampe.attention.bound import error_bound

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
}
FAST = [name for name in BACKENDS if name != "dense"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that nobody wrote is NaN."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that short prompts have inner ones, and an interpreter where there is no GPU."""
    monkeypatch.setattr(
        triton_backend, "prefill_tile", lambda *inputs: triton_backend.KernelTile(16, 16, 4, 2)
    )
    monkeypatch.setattr(triton_backend, "SPLIT", 32)
    if DEVICE.type == "cpu" and importlib.util.find_spec("triton"):
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def flash_by_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, what flash kernels say they do stands in for them: edges counted from the last query and key."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(flash, "kernel", lambda dim: _flash_by_definition)
        monkeypatch.setattr(flash.Flash, "refuses", lambda *inputs: None)


def _flash_by_definition(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, seen: int
) -> tuple[Tensor, Tensor]:
    k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], 2) for x in (k, v))
    logits = scale * torch.einsum("bqhd,bkhd->bhqk", q.float(), k.float())
    own = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
    key = torch.arange(k.shape[1])
    hidden = ((key > own) & causal) | ((key < own - seen) & (seen >= 0))
    logits = logits.masked_fill(hidden, -torch.inf)
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v.float()).to(
        q.dtype
    ), logits.logsumexp(-1)


def _inputs(
    heads: tuple[int, int],
    queries: int,
    keys: int,
    dtype: torch.dtype,
    dim: int = 16,
    rows: int = 1,
) -> list[Tensor]:
    """Views of larger tensors that are NaN around them, as caches are that have room left."""
    made = []
    for count, length in ((heads[0], queries), (heads[1], keys), (heads[1], keys)):
        room = torch.full((rows, count, length + 9, dim), torch.nan, dtype=dtype)
        room[:, :, :length] = torch.randn(rows, count, length, dim).to(dtype)
        made.append(room.to(DEVICE)[:, :, :length])
    return made


def _taken(backend: str, call: AttentionInputs) -> Tensor:
    if why := BACKENDS[backend].refuses(call):
        pytest.skip(f"{backend}: {why}")
    return BACKENDS[backend].attend(call)


def _check(backend: str, call: AttentionInputs) -> None:
    ours = _taken(backend, call)
    oracle = BACKENDS["dense"](
        *(x.double() for x in (call.query, call.key, call.value)),
        call.encoding,
        scale=call.scale,
        start=call.start,
        first=call.first,
        logits=call.logits,
    )
    assert ours.dtype == call.query.dtype
    assert float((ours.double() - oracle).abs().max()) <= error_bound(call)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("phase", PHASES)
def test_a_backend_equals_the_oracle(backend: str, method: str, heads: str, phase: str) -> None:
    start, stop = PHASES[phase]
    chosen = method_of(method.partition(":")[0], **METHODS[method])
    encoding = chosen.encode(lampe.Geometry(window=WINDOW, head_dim=16), min(stop, PROMPT))
    dtype = torch.float32 if phase == "prefill" else torch.float16
    q, k, v = _inputs(HEADS[heads], stop - start, stop, dtype)
    _check(backend, AttentionInputs(q, k, v, encoding, scale=SCALE, start=start))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("phase", PHASES)
def test_a_batch_in_bfloat16(backend: str, phase: str) -> None:
    if backend == "triton" and DEVICE.type == "cpu":
        pytest.skip("Triton's interpreter cannot multiply bfloat16")
    start, stop = PHASES[phase]
    encoding = method_of("lampe").encode(
        lampe.Geometry(window=WINDOW, head_dim=16), min(stop, PROMPT)
    )
    q, k, v = _inputs((4, 2), stop - start, stop, torch.bfloat16, rows=3)
    _check(backend, AttentionInputs(q, k, v, encoding, scale=SCALE, start=start))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_steps_over_kept_keys_equal_the_oracle(method: str, dtype: torch.dtype) -> None:
    encoding = method_of(method.partition(":")[0], **METHODS[method]).encode(
        lampe.Geometry(window=WINDOW, head_dim=16), PROMPT
    )
    _, key, value = _inputs((4, 2), 1, 90, dtype)
    kept = RotatedKeys()
    for stop in range(PROMPT + 1, 90):
        q = torch.randn(1, 4, 1, 16, device=DEVICE).to(dtype)
        k, v = key[:, :, :stop], value[:, :, :stop]
        _check(
            "blockwise",
            AttentionInputs(q, k, v, encoding, scale=SCALE, start=stop - 1, turned=kept),
        )


@pytest.mark.parametrize("backend", ["blockwise", "flash"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_steps_over_keys_that_are_turned_where_they_lie_equal_the_oracle(
    backend: str, method: str, dtype: torch.dtype
) -> None:
    """What was turned can be turned back; in half precision a key is rounded again each time."""
    encoding = method_of(method.partition(":")[0], **METHODS[method]).encode(
        lampe.Geometry(window=WINDOW, head_dim=16), PROMPT
    )
    _, key, value = _inputs((4, 2), 1, 90, dtype)
    came, own = key.clone(), RotatedKeys(own=True)
    for stop in range(PROMPT + 1, 90):
        q = torch.randn(1, 4, 1, 16, device=DEVICE).to(dtype)
        call = AttentionInputs(
            q,
            key[:, :, :stop],
            value[:, :, :stop],
            encoding,
            scale=SCALE,
            start=stop - 1,
            turned=own,
        )
        plain = AttentionInputs(
            q, came[:, :, :stop], call.value, encoding, scale=SCALE, start=stop - 1
        )
        oracle = BACKENDS["dense"].attend(
            dataclasses.replace(
                plain, query=q.double(), key=plain.key.double(), value=call.value.double()
            )
        )
        error = (BACKENDS[backend].attend(call).double() - oracle).abs().max()
        assert float(error) <= (1 if dtype == torch.float32 else 2) * error_bound(plain)
    own.restore(key[:, :, :89])
    torch.testing.assert_close(
        key[:, :, :89], came[:, :, :89], atol=1e-5 if dtype == torch.float32 else 0.06, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("turning", [0, 8])
def test_steps_of_a_layer_that_turns_half_of_a_head_or_nothing(
    dtype: torch.dtype, turning: int
) -> None:
    _, key, value = _inputs((4, 2), 1, 90, dtype, rows=2)
    kept, encoding = RotatedKeys(), lampe.Encoding(lampe.Rope(()))
    if turning:
        geometry = lampe.Geometry(window=WINDOW, head_dim=16, rotary_dim=turning)
        encoding = method_of("lampe").encode(geometry, PROMPT)
    for stop in range(80, 90):
        q = torch.randn(2, 4, 1, 16, device=DEVICE).to(dtype)
        k, v = key[:, :, :stop], value[:, :, :stop]
        _check(
            "blockwise",
            AttentionInputs(q, k, v, encoding, scale=SCALE, start=stop - 1, turned=kept),
        )


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
def test_every_rope_that_a_model_may_have(
    backend: str, phase: str, geometry: lampe.Geometry
) -> None:
    start, stop = PHASES[phase]
    encoding = method_of("lampe+yarn").encode(geometry, min(stop, PROMPT))
    q, k, v = _inputs((4, 2), stop - start, stop, torch.float32, geometry.head_dim)
    _check(backend, AttentionInputs(q, k, v, encoding, scale=SCALE, start=start))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("phase", PHASES)
def test_a_temperature_that_drifts_leaves_the_unrotated_part_of_a_head(
    backend: str, phase: str
) -> None:
    start, stop = PHASES[phase]
    geometry = lampe.Geometry(window=WINDOW, head_dim=24, rotary_dim=16)
    encoding = method_of("chunkllama", variant="reference").encode(geometry, 40)
    q, k, v = _inputs((4, 2), stop - start, stop, torch.float32, 24)
    _check(backend, AttentionInputs(q, k, v, encoding, scale=SCALE, start=start))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("local", [None, LocalWindow(19), LocalWindow(19, chunked=True)])
@pytest.mark.parametrize("logits", ["plain", "capped", "with sinks"])
@pytest.mark.parametrize("phase", PHASES)
def test_caps_sinks_and_local_layers(
    backend: str, local: LocalWindow | None, logits: str, phase: str
) -> None:
    start, stop = PHASES[phase]
    plan = (
        method_of("lampe")
        .encode(lampe.Geometry(window=WINDOW, head_dim=16), PROMPT)
        .plan.within(local)
    )
    encoding = lampe.Encoding(lampe.Geometry(window=WINDOW, head_dim=16).rope(PROMPT), plan)
    first = 0 if local is None else max(0, start - 20)
    q, k, v = _inputs((4, 2), stop - start, stop - first, torch.float32)
    if backend == "flash" and logits == "capped":
        pytest.skip("flash: it has no soft cap")
    does = {
        "plain": LogitOptions(),
        "capped": LogitOptions(softcap=1.5),
        "with sinks": LogitOptions(sinks=torch.linspace(-2, 3, 4, device=DEVICE)),
    }[logits]
    _check(
        backend,
        AttentionInputs(q, k, v, encoding, scale=SCALE, start=start, first=first, logits=does),
    )


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("phase", PHASES)
def test_a_layer_without_rotary_positions(backend: str, phase: str) -> None:
    start, stop = PHASES[phase]
    q, k, v = _inputs((4, 2), stop - start, stop, torch.float32)
    _check(
        backend, AttentionInputs(q, k, v, lampe.Encoding(lampe.Rope(())), scale=SCALE, start=start)
    )
