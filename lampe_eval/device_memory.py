"""Memory of a device: how much was in use at most, and freeing what is unused."""

import errno
import gc
import os
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


class PeakMemory:
    """Most memory in use since this object was created: by tensors on a GPU, else by this process.

    On a CPU only Linux reports it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_known = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            # proc(5): writing 5 resets the peak of the resident set. The figure of getrusage cannot
            # be reset, and that of a child process begins at its parent's.
            (PROCESS / "clear_refs").write_text("5")
        except OSError:
            self._is_known = False

    def bytes(self) -> int | None:
        """Return the peak in bytes; None where the system does not report it."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return _process_bytes("VmHWM") if self._is_known else None


def total_bytes(device: torch.device) -> int:
    """Return the memory of a GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def bytes_in_use(device: torch.device) -> int | None:
    """Return the bytes in use now; None where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return _process_bytes("VmRSS")
    except OSError:
        return None


def tensor_bytes(device: torch.device) -> int:
    """Return the bytes of all tensors on a device that Python references, each storage once."""
    sizes: dict[int, int] = {}
    for item in gc.get_objects():
        # type(), because isinstance() would call __class__ of proxies among all objects
        if type(item) in (torch.Tensor, torch.nn.Parameter) and item.device == device:
            storage = item.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def free_unused() -> None:
    """Collect garbage and return cached memory to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means too little memory."""
    if isinstance(error, OSError):  # a file that is mapped into memory
        return error.errno == errno.ENOMEM
    # torch's allocator for CPU tensors raises a plain RuntimeError.
    is_memory_error = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_memory_error or "DefaultCPUAllocator" in str(error)


def _process_bytes(field: str) -> int:
    """Return a size of this process in bytes; proc(5) gives it in units of 1024."""
    for line in (PROCESS / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return 1024 * int(value.split()[0])
    raise OSError(f"{PROCESS / 'status'} has no field {field}")
