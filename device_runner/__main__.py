"""`python -m device_runner`."""

import sys

from device_runner.cli import main

sys.exit(main())
