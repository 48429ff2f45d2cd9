"""What /proc/cpuinfo says of AES."""

import pytest

from swarmp2p.transport.overlay.aes import has_aes


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu pclmulqdq sse4_2 aes avx\n", True),
        ("processor\t: 0\nflags\t\t: fpu sse4_2 avx vaes\n", False),
        ("processor\t: 0\nflags\t\t: fpu aes\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd aes pmull sha1\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd crc32\n", False),
        ("model name\t: flags: aes pclmulqdq\n", False),
        ("", False),
    ],
)
def test_it_is_read_from_the_flags(cpuinfo: str, expected: bool) -> None:
    assert has_aes(cpuinfo) is expected
