"""Memory of a device: the most that was taken, and giving back what nobody holds."""

import gc
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


class PeakMemory:
    """The most memory taken since this was made: by tensors on a GPU, else by this process, where Linux tells."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._known = device, True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            (PROCESS / "clear_refs").write_text("5")  # proc(5): resets the peak of the resident set
        except OSError:
            self._known = False

    def bytes(self) -> int | None:
        """None where nobody tells."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return _status("VmHWM") if self._known else None


def taken(device: torch.device) -> int | None:
    """What is taken now, of which ``Peak`` tells the most: by tensors on a GPU, else by this process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return _status("VmRSS")
    except OSError:
        return None


def tensors(device: torch.device) -> int:
    """Bytes of all tensors on a device that Python holds, each storage once."""
    every = (each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter))
    found = (each.untyped_storage() for each in every if each.device == device)
    return sum({storage.data_ptr(): storage.nbytes() for storage in found}.values())


def _status(field: str) -> int:
    """A figure of this process, in bytes; proc(5)."""
    status = dict(line.split(":", 1) for line in (PROCESS / "status").read_text().splitlines())
    return 1024 * int(status[field].split()[0])


def free() -> None:
    """Gives back what nobody holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is not enough memory, as each device says it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(
        error
    )
