"""How much memory this process has had at most, as Linux counts it; `ru_maxrss` would begin with the parent's."""

from pathlib import Path


def peak_memory() -> int:
    """Peak resident set in kB since the start, or since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def forget_peak() -> None:
    """Begin to count anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
