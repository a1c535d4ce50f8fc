"""How much of a recipe is run: as published, shortened, or just enough to see that it works."""

from dataclasses import dataclass

from gammabeta.errors import InputError, suggest
from gammabeta.spec import RunSpec


@dataclass(frozen=True)
class Scale:
    """epochs, replicates, subsample: None is what the experiment itself says."""

    name: str
    summary: str
    epochs: int | None = None
    replicates: int | None = None
    subsample: int | None = None

    def apply(self, spec: RunSpec) -> RunSpec:
        """A published recipe at this scale. Drops of the learning rate are shares of a run, and the
        warm-up stays the same share of it."""
        if self.epochs is None:
            return spec
        warmup = spec.warmup_epochs * self.epochs / spec.epochs
        short = spec.replace(epochs=self.epochs, warmup_epochs=warmup)
        return short if self.subsample is None else short.replace(subsample=self.subsample)


SCALES = {
    scale.name: scale
    for scale in (
        Scale("paper", "the published recipe"),
        Scale("short", "16 epochs, drops after 8 and 12, 3 replicates", epochs=16, replicates=3),
        Scale("smoke", "one epoch of 512 images, to try", epochs=1, replicates=1, subsample=512),
    )
}


def choose_scale(name: str) -> Scale:
    """The scale called `name`; raises InputError with the nearest one."""
    if name not in SCALES:
        raise InputError(f"unknown scale '{name}': {suggest(name, SCALES)}", "scale")
    return SCALES[name]
