"""Triton kernels compile for a GPU, which need not be there.

The tests that run the kernels in Triton's interpreter check neither types nor sizes.
"""

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

# Run in a process of its own, because other tests import the kernels for the interpreter. 163 KiB
# is the shared memory that a program may use at compute capability 8.0.
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

KEYS = dict(D=80, BD=128, P=40, BEGIN=0, IS_HALF_LAYOUT=False)
VALUES = dict(E=64, BE=64, SOFTCAP=30.0)
CONSTANTS = {
    "rotate_keys": dict(KEYS, BK=32),
    "prefill": dict(KEYS, **VALUES, BQ=32, BK=32, S=3, USE_SINKS=True),
    "decode": dict(KEYS, **VALUES, BQ=16, BK=32, S=3, SPLIT_KEYS=64),
    "merge_two": dict(E=80, BE=128, BQ=64),
}
FLOAT32 = dict.fromkeys((
    "cos", "sin", "query_cos", "query_sin", "key_cos", "key_sin", "lse", "x_lse", "y_lse",
), "*fp32")
INT32 = dict.fromkeys(("first_key", "last_key", "missing", "map_of_region"), "*i32")
BFLOAT16 = dict.fromkeys(
    ("query", "key", "keys", "value", "sinks", "out", "x_out", "y_out"), "*bf16"
)

def compiled(name, constants, **options):
    kernel = getattr(kernels, name)
    types = {"scale": "fp32", **FLOAT32, **INT32, **BFLOAT16}
    types.update(dict.fromkeys(constants, "constexpr"))
    if name == "decode":
        types["out"] = "*fp32"
    signature = {argument: types.get(argument, "i32") for argument in kernel.arg_names}
    constexprs = {(kernel.arg_names.index(each),): value for each, value in constants.items()}
    source = ASTSource(kernel, signature, constexprs=constexprs)
    return triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)

for name, constants in CONSTANTS.items():
    assert compiled(name, constants).asm["cubin"]
    print(name)
for dim, (queries, keys, warps, stages) in json.loads(sys.argv[2]).items():
    dims = dict(D=int(dim), BD=int(dim), P=int(dim) // 2, E=int(dim), BE=int(dim))
    sizes = dict(BQ=queries, BK=keys, SOFTCAP=0.0, USE_SINKS=False)
    constants = dict(CONSTANTS["prefill"], **dims, **sizes)
    shared = compiled("prefill", constants, num_warps=warps, num_stages=stages).metadata.shared
    assert shared <= 163 * 1024, (dim, shared)
    print(dim)
"""
DIMS = (64, 128, 256)


def test_the_kernels_compile_for_compute_capability_8(tmp_path: Path) -> None:
    source = Path(lampe.attention.__file__).with_name("triton_kernels.py")
    tiles = {dim: prefill_tile(dim, torch.bfloat16) for dim in DIMS}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE, str(source), json.dumps(tiles)],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    compiled = ["rotate_keys", "prefill", "decode", "merge_two", *map(str, DIMS)]
    assert run.stdout.split() == compiled, run.stderr
