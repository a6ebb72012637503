"""Triton's kernels are compiled for a GPU that need not be there: the interpreter does not check types or sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lampe
from lampe.attention.triton_backend import prefill_tile

pytest.importorskip("triton")

COMPILE = """
import importlib.util
import json
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

spec = importlib.util.spec_from_file_location("kernels", sys.argv[1])
kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)

KEYS = dict(D=80, DP=128, P=40, BEGIN=0, HALF=False)
VALUES = dict(E=64, EP=64, SOFTCAP=30.0)
SIZES = {
    "turn": dict(KEYS, N=32),
    "prefill": dict(KEYS, **VALUES, M=32, N=32, S=3, SINKS=True),
    "decode": dict(KEYS, **VALUES, M=16, N=32, S=3, SPLIT=64),
    "both": dict(E=80, EP=128, M=64),
}
FLOATS = dict.fromkeys((
    "cos", "sin", "q_cos", "q_sin", "k_cos", "k_sin", "lse", "one_lse", "other_lse",
), "*fp32")
INDICES = dict.fromkeys(("low", "high", "rotation"), "*i32")
HALVES = dict.fromkeys(("x", "query", "key", "keys", "value", "sinks", "out", "one", "other"), "*bf16")
def built(name, sizes, **options):
    kernel = getattr(kernels, name)
    types = {"scale": "fp32", **FLOATS, **INDICES, **HALVES, **dict.fromkeys(sizes, "constexpr")}
    if name == "decode":
        types["out"] = "*fp32"
    signature = {each: types.get(each, "i32") for each in kernel.arg_names}
    constants = {(kernel.arg_names.index(each),): size for each, size in sizes.items()}
    source = ASTSource(kernel, signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)

for name, sizes in SIZES.items():
    assert built(name, sizes).asm["cubin"]
    print(name)
for dim, (queries, keys, warps, stages) in json.loads(sys.argv[2]).items():
    dims = dict(D=int(dim), DP=int(dim), P=int(dim) // 2, E=int(dim), EP=int(dim))
    sizes = dict(SIZES["prefill"], **dims, M=queries, N=keys, SOFTCAP=0.0, SINKS=False)
    shared = built("prefill", sizes, num_warps=warps, num_stages=stages).metadata.shared
    assert shared <= 163 * 1024, (dim, shared)
    print(dim)
"""
DIMS = (64, 128, 256)


def test_the_kernels_compile_for_compute_capability_8(tmp_path: Path) -> None:
    source = Path(lampe.attention.__file__).with_name("kernels.py")
    tiles = {dim: prefill_tile(dim, torch.bfloat16) for dim in DIMS}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE, str(source), json.dumps(tiles)],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == ["turn", "prefill", "decode", "both", *map(str, DIMS)], run.stderr
