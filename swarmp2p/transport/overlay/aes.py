"""Whether this machine has AES instructions: without them AES-GCM is slower than ChaCha20-Poly1305, and not of
constant time everywhere."""

from pathlib import Path


def has_aes(cpuinfo: str) -> bool:
    """What Linux's /proc/cpuinfo says: `flags` on x86, `Features` on Arm; AES and carry-less multiplication."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            words = value.split()
            return "aes" in words and ("pclmulqdq" in words or "pmull" in words)
    return False


def machine_has_aes() -> bool:
    """Of this machine; False where it cannot be told."""
    try:
        return has_aes(Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        return False
