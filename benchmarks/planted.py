"""What judges are worth: ``python -m benchmarks.planted [--lake FOLDER]``.

Runs studies/planted.yaml into a lake of its own (or the one given; what is up to date there is not computed again) and prints how
its scorers rank true, nearly true and false explanations of latents whose meaning is known.
"""

import argparse
import os
import subprocess
import sys

from benchmarks.quickstart import ROOT
from latentlake.cli import main as latentlake


def main() -> int:
    """Run the study and print the tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", default=".cache/planted", help="folder of the lake (.cache/planted)")
    lake = parser.parse_args().lake
    study = {"LATENTLAKE_STUDY": str(ROOT / "studies" / "planted.yaml"), "LATENTLAKE_LAKE": lake}
    done = subprocess.run([sys.executable, "-m", "jobs.run"], env={**os.environ, **study}, check=False)
    return done.returncode or latentlake(["--lake", lake, "--study", "planted", "calibrate"])


if __name__ == "__main__":
    sys.exit(main())
