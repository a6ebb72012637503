"""Files are written whole with the rights that the umask gives, and hashes are those of sha256."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lampe_eval.file_io import (
    sha256_of_bytes,
    sha256_of_files,
    sha256_of_text,
    short_sha256_of_json,
    write_atomically,
)


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("027", 0o640)])
def test_a_file_has_the_rights_that_the_umask_gives(tmp_path: Path, umask: str, mode: int) -> None:
    code = (
        "import sys; from pathlib import Path; from lampe_eval.file_io import write_atomically; "
        "write_atomically(Path(sys.argv[1]), 'x')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    subprocess.run(command, check=True, umask=int(umask, 8))
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_writing_does_not_touch_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(mask: int) -> int:
        raise AssertionError("other threads would create files with another umask")

    monkeypatch.setattr(os, "umask", refuse)
    write_atomically(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "x"


def test_hashes_of_text_bytes_and_files_agree(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("ü".encode())
    digest = sha256_of_text("ü")
    assert digest == sha256_of_bytes("ü".encode()) == sha256_of_files([tmp_path / "file"])
    # from `printf 'ü' | sha256sum`
    assert digest == "607474ca475a9724d7360aba71a56d5df77e61350e3f724cfa1f46e857e2d85f"


def test_a_short_hash_depends_on_every_value_and_on_the_order_of_keys() -> None:
    values = [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}, None]
    hashes = {short_sha256_of_json(value) for value in values}
    assert len(hashes) == len(values)
    assert {len(digest) for digest in hashes} == {8}
