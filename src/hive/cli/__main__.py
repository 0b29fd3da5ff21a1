"""Run the command `hive` for `python -m hive.cli`."""

import sys

from hive.cli import main

sys.exit(main())
