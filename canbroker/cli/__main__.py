"""``python -m canbroker.cli`` is ``canbroker``."""

import sys

from canbroker.cli import main

if __name__ == "__main__":
    sys.exit(main())
