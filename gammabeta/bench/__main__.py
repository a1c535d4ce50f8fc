"""One contender's peak memory, in a process that runs nothing else: see rounds.py."""

import json
import sys

from gammabeta.bench.rounds import print_peak

if __name__ == "__main__":
    print_peak(json.loads(sys.argv[1]))
