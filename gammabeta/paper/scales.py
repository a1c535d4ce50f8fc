"""How much of a recipe is run: as published, shortened, or just enough to see that it works."""

from dataclasses import dataclass

from gammabeta.errors import InputError, suggest
from gammabeta.spec import RunSpec


@dataclass(frozen=True)
class Scale:
    """epochs, replicates, images: None is what the experiment itself says; an experiment may have
    fewer replicates, see `Experiment.seeds`. images: so many are
    trained on, and as many tested, in batches of at most a quarter of them."""

    name: str
    summary: str
    epochs: int | None = None
    replicates: int | None = None
    images: int | None = None

    def apply(self, spec: RunSpec) -> RunSpec:
        """A published recipe at this scale. Drops of the learning rate are shares of a run, and the
        warm-up and a schedule's own steps stay the same share of it. `ramp` has neither: it rises
        over its first `schedule.RAMP_EPOCHS` epochs however few there are."""
        if self.epochs is None:
            return spec
        share = self.epochs / spec.epochs
        short = spec.replace(epochs=self.epochs, warmup_epochs=spec.warmup_epochs * share)
        if spec.schedule_steps is not None:
            short = short.replace(schedule_steps=max(1, round(spec.schedule_steps * share)))
        if self.images is None:
            return short
        batch = min(spec.batch_size, self.images // 4)
        return short.replace(subsample=self.images, test_subsample=self.images, batch_size=batch)


SCALES = {
    scale.name: scale
    for scale in (
        Scale("paper", "the published recipe"),
        Scale(
            "short",
            "16 epochs, drops at the same shares of them",
            epochs=16,
            replicates=3,
        ),
        Scale("smoke", "one epoch of 512 images", epochs=1, replicates=1, images=512),
    )
}


def choose_scale(name: str) -> Scale:
    """The scale called `name`; raises InputError with the nearest one."""
    if name not in SCALES:
        raise InputError(f"unknown scale '{name}': {suggest(name, SCALES)}", "scale")
    return SCALES[name]
