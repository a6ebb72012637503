"""The server of ``lampe-eval serve``: concurrent requests, and requests that are too long."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lampe_eval.pocket import WEIGHTS
from tests.vllm.answers import expected_answers, load, random_prompts

pytestmark = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vllm is not installed in this Python: make test-vllm"
)

ROOT = Path(__file__).parents[2]
PATIENCE = 1800
"""Seconds in which a server starts on a machine that is busy."""
LENGTHS = (60, 200, 256, 257, 300, 400, 500, 600, 700, 800)


def environment(folder: Path) -> dict[str, str]:
    """Return variables under which vLLM finds the plug-in, installed or not."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    if not any(point.name == "lampe" for point in entry_points(group="vllm.general_plugins")):
        information = folder / "lampe_checkout-0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: lampe-checkout\nVersion: 0\n"
        )
        lines = "[vllm.general_plugins]\nlampe = lampe_vllm.plugin:register\n"
        (information / "entry_points.txt").write_text(lines)
        paths.append(str(folder))
    others = {key: value for key, value in os.environ.items() if not key.startswith("VLLM_ENABLE")}
    return {**others, "PYTHONPATH": os.pathsep.join(paths), "VLLM_NO_USAGE_STATS": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "pocket", "--method", "lampe", "--max-length", "1k", "--"]
    words += ["--port", str(port), "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"]
    words += ["--kv-cache-memory-bytes", str(128 << 20), "--served-model-name", "pocket"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lampe_eval", *words],
            env=environment(folder), cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5)
            break
        except OSError:
            time.sleep(1)
    else:
        pytest.fail((folder / "log").read_text()[-3000:])
    yield address
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def complete(address: str, prompt: list[int], tokens: int) -> dict[str, Any]:
    """Return the server's answer to a request."""
    request = {
        "model": "pocket", "prompt": prompt, "max_tokens": tokens, "min_tokens": tokens,
        "temperature": 0, "ignore_eos": True, "return_token_ids": True,
    }  # fmt: skip
    body = json.dumps(request).encode()
    headers = {"Content-Type": "application/json"}
    call = urllib.request.Request(f"{address}/v1/completions", body, headers)
    with urllib.request.urlopen(call, timeout=PATIENCE) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def test_concurrent_requests_have_their_own_answers(server: str) -> None:
    prompts = random_prompts(LENGTHS, 745)
    with ThreadPoolExecutor(len(prompts)) as threads:
        answers = list(threads.map(lambda prompt: complete(server, prompt, 12), prompts))
    expected = expected_answers(load(WEIGHTS), "lampe", {}, prompts, 12)
    assert [a["choices"][0]["token_ids"] for a in answers] == [tokens for tokens, _ in expected]


@pytest.mark.parametrize(("length", "tokens"), [(1100, 4), (1020, 50)])
def test_a_request_that_is_too_long_is_refused(server: str, length: int, tokens: int) -> None:
    (prompt,) = random_prompts([length], 745)
    with pytest.raises(urllib.error.HTTPError) as refused:
        complete(server, prompt, tokens)
    assert refused.value.code == 400
    assert complete(server, prompt[:100], 2)["choices"]
