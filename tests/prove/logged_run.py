"""The run entry, with what the engines answer written to the file that ENGINE_LOG names; it outlives a killed process."""

import logging
import os
import sys

from jobs.run import main

if __name__ == "__main__":
    log = logging.getLogger("latentlake.engines")
    log.setLevel(logging.DEBUG)
    log.addHandler(logging.FileHandler(os.environ["ENGINE_LOG"]))
    sys.exit(main())
