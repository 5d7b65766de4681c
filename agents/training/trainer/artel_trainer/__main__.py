"""Entry point of `python -m artel_trainer`."""

import os
import sys

from artel_trainer.cli import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
