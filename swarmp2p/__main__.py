"""`python -m swarmp2p` is the `swarmp2p` command, and the command begins here."""

import sys

_INTERRUPTED = 130  # console.INTERRUPTED


def main() -> int:
    """The exit status. Reading the modules takes a good part of a second, in which Ctrl-C ends it as it does later."""
    try:
        from .cli import main as command

        return command()
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
