"""``python -m graphmoe`` is the command ``graphmoe``."""

from __future__ import annotations

import sys

from graphmoe.cli import main

if __name__ == "__main__":
    sys.exit(main())
