"""Where things lie in the repository, for tests wherever they lie."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "src" / "genpercept" / "training" / "recipes"
GOLDEN = ROOT / "tests" / "golden"  # answers of public implementations, and tiny checkpoints in their layouts
SD_TINY = GOLDEN / "sd-tiny"  # a Stable Diffusion base of a few hundred kB
REFERENCE = ROOT.parent / "shared" / "reference"  # public split lists and real samples, beside a checkout or absent
