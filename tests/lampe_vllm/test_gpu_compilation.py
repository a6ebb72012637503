"""The paged decode kernel compiles for GPUs, which need not be there.

The tests that run the kernel in Triton's interpreter check neither types nor sizes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

# Run in a process of its own, because other tests import the kernels for the interpreter. 163 KiB
# is the shared memory that a program may use at compute capability 8.0; 9.0 has more.
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lampe.attention.triton_backend import DECODE_TILE
from lampe_vllm.gpu import kernels

TYPES = {
    **dict.fromkeys(("query", "key", "value", "sinks"), "*bf16"),
    **dict.fromkeys(("out", "lse"), "*fp32"),
    "block_table": "*i32", "regions": "*i64", "scale": "fp32",
}
PLAIN = dict(BEGIN=0, IS_HALF_LAYOUT=True, BQ=16, BK=DECODE_TILE.keys, SLOTS=16, SPLIT_KEYS=512)
# Strides that vLLM's caches and queries have are multiples of 16, which makes loads wide.
ALIGNED = [
    "query", "stride_q_n", "stride_q_h", "key", "stride_k_g", "stride_k_t", "k_rows_per_block",
    "value", "stride_v_g", "stride_v_t", "v_rows_per_block", "block_table", "regions", "out", "lse",
]
kernel = kernels.paged_decode
for capability in (80, 90):
    for name, constants in {
        "64": dict(PLAIN, D=64, BD=64, P=32, SOFTCAP=0.0, USE_SINKS=False),
        "128": dict(PLAIN, D=128, BD=128, P=64, SOFTCAP=0.0, USE_SINKS=False),
        "80": dict(
            PLAIN, D=80, BD=128, P=20, IS_HALF_LAYOUT=False, SOFTCAP=30.0, USE_SINKS=True, SLOTS=32
        ),
    }.items():
        types = {**TYPES, **dict.fromkeys(constants, "constexpr")}
        signature = {argument: types.get(argument, "i32") for argument in kernel.arg_names}
        position = kernel.arg_names.index
        source = ASTSource(
            kernel,
            signature,
            constexprs={(position(each),): value for each, value in constants.items()},
            attrs={(position(each),): [["tt.divisibility", 16]] for each in ALIGNED},
        )
        binary = triton.compile(
            source,
            target=GPUTarget("cuda", capability, 32),
            options=dict(num_warps=DECODE_TILE.warps, num_stages=DECODE_TILE.stages),
        )
        assert binary.asm["cubin"]
        assert binary.metadata.shared <= 163 * 1024, (name, binary.metadata.shared)
        print(capability, name)
"""


def test_the_kernel_compiles_for_compute_capabilities_8_and_9(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    compiled = [f"{capability} {name}" for capability in (80, 90) for name in ("64", "128", "80")]
    assert run.stdout.splitlines() == compiled, run.stderr
