import sys
from pathlib import Path

# The benchmarks' tiny guide and samples serve the tests too.
sys.path.insert(0, str(Path(__file__).parents[3]))
