"""YAML is read by the core schema of version 1.2, within bounds; faults name file and line."""

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lampe_eval.cards import read_card, shipped_folder
from lampe_eval.errors import UserError
from lampe_eval.suite import Suite
from lampe_eval.yaml_files import MAX_BYTES, MAX_DEPTH, parse_yaml, read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("yes", "no", "on", "off", "Yes", "y", "nan", "inf", "<<x")),
        *((word, word) for word in ("4:16", "1_000", "2020-01-02", "2020-13-45", "0b1", "1e", "=")),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("-5", -5),
        ("1e3", 1000.0),
        ("1e-5", 1e-5),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("'5'", "5"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_plain_values_are_of_the_core_schema(text: str, value: Any) -> None:
    assert parse_yaml(text).value == value
    assert type(parse_yaml(text).value) is type(value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"a: 1\na: 2\n", 2),
        (b"a: 1\n'a': 2\n", 2),
        (b"1: 1\n0x1: 2\n", 2),
        (b"a: 1\nb: {c: 1, c: 2}\n", 2),
        (b"a: 1\nb: &x [*x]\n", 2),
        (b"a: 1\nb: &x {<<: *x}\n", 2),
        (b"a: 1\nb: *y\n", 2),
        (b"a: 1\nb: !!int x\n", 2),
        (b"a: 1\nb: !!binary aGk=\n", 2),
        (b"a: 1\nb: !!python/object/apply:os.system [ls]\n", 2),
        (b"a: 1\nb: !mine x\n", 2),
        (b"a: 1\nb: " + b"[" * (MAX_DEPTH + 1), 2),
        (b"a: 1\nb: " + b"[" * 50_000, 2),
        (b"a: 1\nb: " + b"1" * 6000, 2),
        (b"a: 1\nb: 0x" + b"f" * 6000, 2),
        (b"a: 1\nb: 99999999999999999999\n", 2),
        (b"a: 1\nb: 1e999\n", 2),
        (b"a: 1\nb: x\0y\n", 2),
        (b"a: 1\n\tb: 1\n", 2),
        (b"a: 1\nb: \xff\n", 2),
        (b'a: 1\nb: "\\ud800"\n', 2),
        (b'a: 1\nb: "\\UFFFFFFFF"\n', 2),
        (b"a: 1\n? [b]\n: c\n", 2),
        (b"a: 1\n---\nb: 1\n", 2),
    ],
)
def test_faults_are_one_line_with_file_and_line(tmp_path: Path, text: bytes, line: int) -> None:
    path = tmp_path / "card.yaml"
    path.write_bytes(text)
    with pytest.raises(UserError, match=rf"card\.yaml:{line}: ") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12)]
    path = tmp_path / "card.yaml"
    path.write_text("\n".join(["l0: &l0 [x, x]", *levels]))
    with pytest.raises(UserError, match=r"card\.yaml:\d+: .*values"):
        read_yaml(path)


def test_a_byte_order_mark_is_read_away(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(path).value == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", "no such file"),
        ("folder", "a folder"),
        ("pipe", "a pipe"),
        ("/dev/null", "a device"),
        ("x" * 300, "too long"),
        ("file/below", "directory"),
        ("loop", "symbolic links"),
        ("large", "MiB"),
    ],
)
def test_what_is_no_file_is_said(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match=words):
        read_yaml(tmp_path / name)


@pytest.mark.parametrize(
    "value",
    [
        *("1e5", "12e4567", "yes", "0o17", "010", "1_000", "4:16", "2020-01-01", "", "~", "<<"),
        *("=", "-", 1e-5, 1e30, math.inf, 10**18, True, None, [], {}, "a: b", " x ", "a\nb"),
    ],
)
def test_what_is_written_is_read_back(value: Any) -> None:
    written = {"key": value, "again": [value, value], str(value): 1}
    assert parse_yaml(write_yaml(written)).value == written


def test_shipped_files_mean_the_same_in_both_versions() -> None:
    folders = [shipped_folder("configs"), shipped_folder("tasks")]
    files = [path for folder in folders for path in sorted(folder.rglob("*.yaml"))]
    assert len(files) > 50
    for path in files:
        old = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert repr(read_yaml(path).value) == repr(old), path


@pytest.mark.parametrize(
    "line",
    [
        *("limit: yes", "limit: true", "limit: '5'", "limit: 1_000", "limit: 1e3", "limit: 0"),
        *("limit: 99999999999", "seed: 2020-13-45", "seed: -1", "seed: .nan", "window: true"),
        *("lengths: 4:16", "lengths: [true]", "lengths: ''", "lengths: '4k,,8k'", "lengths: 17m"),
        *("haystack: ''", "output: ' '", "model: ''", "model: [pocket, '']", "bench: ','"),
        *("method: ''", "method: [lampe, '']", "dtype: ''", "device: ''", "plugin: ''"),
        *("address: ''", "devices: ','", "protocol: ''", "prompts: ''", "text: ''"),
        *("max-batch-tokens: 99999999999", "gpus-per-replica: 1000000000", "engine: yes"),
        *("model: {a: 1}", "method: 3", "haystack: [a]", "window: -1", "window: .inf"),
    ],
)
def test_wrong_values_of_a_suite_name_line_and_key(tmp_path: Path, line: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(f"about: x\n{line}\n")
    key = line.partition(":")[0].replace("-", "_")
    with pytest.raises(UserError, match=rf"suite\.yaml:2: key '{key}(\.\d+)?'") as caught:
        read_card(path, Suite)
    assert not re.search(r"Input should|unable to parse", str(caught.value))
