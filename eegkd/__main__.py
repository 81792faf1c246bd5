"""`python -m eegkd`: the same program as `eegkd`."""

import sys

from eegkd.cli import main

if __name__ == "__main__":
    sys.exit(main())
