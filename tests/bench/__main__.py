"""`make bench`."""

import sys

from tests.bench.simple_job import main

sys.exit(main())
