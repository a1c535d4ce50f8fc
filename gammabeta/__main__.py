"""`python -m gammabeta` is the command line."""

import sys

from gammabeta.cli import main

sys.exit(main())
