"""`python -m starter`, which bin/init runs."""

import sys

from starter.cli import main

sys.exit(main())
