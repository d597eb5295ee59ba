"""``python -m napari_cropeq.cli``: the same as ``cropeq``."""

from __future__ import annotations

import sys

from napari_cropeq.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
