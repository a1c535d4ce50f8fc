"""What an experiment of the paper is: the runs it needs, and what is shown of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gammabeta.errors import InputError, about
from gammabeta.language import parse
from gammabeta.names import parse_name
from gammabeta.paper.scales import Scale
from gammabeta.spec import RunSpec


@dataclass(frozen=True)
class Experiment:
    """One table or figure.

    points: the published recipes, with seed 0: a point of the figure each. replicates: the most
    seeds that a point is given, at the paper's scale. axis: what the figure has on its horizontal
    axis: a field of RunSpec, "parameters" (how many train), "epochs", "threshold", or "" for a
    table. probes: what is measured on the finished runs, see `gammabeta.probe`.
    """

    name: str
    question: str
    caption: str
    source: str
    axis: str
    replicates: int
    probes: tuple[str, ...]
    points: tuple[RunSpec, ...]

    def seeds(self, scale: Scale, replicates: int | None = None) -> int:
        """How many seeds a point is to have: so many as are asked for, else those of the scale,
        but never more than at the paper's: a shorter recipe is to cost less."""
        if replicates is not None:
            return replicates
        return min(self.replicates, scale.replicates or self.replicates)

    def at(self, scale: Scale, replicates: int | None = None) -> list[RunSpec]:
        """The runs at a scale: seeds 0, 1, ... of each point, seed by seed, so that what is there
        after half of them is a whole figure already."""
        scaled = [scale.apply(point) for point in self.points]
        count = self.seeds(scale, replicates)
        found = [point.replace(seed=seed) for seed in range(count) for point in scaled]
        return list({spec.id: spec for spec in found}.values())

    def only(self, networks: Sequence[str] = (), subsets: Sequence[str] = ()) -> "Experiment":
        """With the points of these networks and subsets alone. Raises InputError for one that the
        experiment does not have."""
        with about("networks"):
            models = [str(parse_name(name)) for name in networks]
        with about("subsets"):
            texts = [str(parse(text)) for text in subsets]
        self._check("networks", models, [point.model for point in self.points])
        self._check("subsets", texts, [point.trainable for point in self.points])
        kept = tuple(
            point
            for point in self.points
            if (not models or point.model in models) and (not texts or point.trainable in texts)
        )
        if self.points and not kept:
            raise InputError(
                f"{self.name} has no point with {', '.join(texts)} on {', '.join(models)}: "
                "leave one of them out"
            )
        return replace(self, points=kept)

    def changed(self, change: Callable[[RunSpec], RunSpec]) -> "Experiment":
        """With every point changed."""
        return replace(self, points=tuple(map(change, self.points)))

    def _check(self, what: str, wanted: Sequence[str], known: Sequence[str]) -> None:
        """The message begins with no name: the command line takes the word `networks` there for
        its flag, and there is an experiment of that name."""
        has = ", ".join(dict.fromkeys(known))
        hint = f"it has {has}" if has else f"nothing trains in it, so leave {what} out"
        for name in wanted:
            if name not in known:
                raise InputError(f"the experiment {self.name} has no '{name}': {hint}", what)
