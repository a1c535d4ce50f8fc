"""Measurements on a trained run, kept beside it: `analyze` makes them, `read` reads them again.

gammas.py, clamp.py, activity.py and maps.py say exactly what each measures.
"""

from gammabeta.probe.make import PROBES, analyze

__all__ = ["PROBES", "analyze"]
