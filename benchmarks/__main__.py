"""``python -m benchmarks``. Processes that are started import nothing of what is imported here."""

import sys

from benchmarks.run import main

if __name__ == "__main__":
    sys.exit(main())
