"""`python -m swarmp2p` is the `swarmp2p` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
