"""Contenders for one training step side by side: times, memory, and how far from the floor."""

from gammabeta.bench.case import Case
from gammabeta.bench.contenders import BASE, CONTENDERS
from gammabeta.bench.floors import CONVOLUTIONS
from gammabeta.bench.request import choose_contenders, choose_precisions, make_case, possible
from gammabeta.bench.rounds import FEWEST, NO_TIME, measure
from gammabeta.bench.show import bench_lines, bench_table, faults

__all__ = [
    "BASE", "CONTENDERS", "CONVOLUTIONS", "FEWEST", "NO_TIME", "Case", "bench_lines",
    "bench_table", "choose_contenders", "choose_precisions", "faults", "make_case", "measure",
    "possible",
]  # fmt: skip
