"""``python -m videomae_fast`` is ``videomae-fast``; torchrun starts it this way."""

import sys

from videomae_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
