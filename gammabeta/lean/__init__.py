"""Training with frozen convolutions at one kept tensor a layer, for any network."""

from gammabeta.lean.convert import Conversion, convert, restore

__all__ = ["Conversion", "convert", "restore"]
