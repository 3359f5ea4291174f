"""`mmfe web` as a Space: the page of `mmfe_restore.web`, open to whoever may see the Space."""

from __future__ import annotations

import time

from mmfe_restore.web import serving

MEGAPIXELS = 12.0
"""A Space's two cores restore this in about half a minute."""


def main() -> None:
    """Serve until the Space is stopped."""
    with serving(["mmfe-small"], host="0.0.0.0", port=7860, max_megapixels=MEGAPIXELS):
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
