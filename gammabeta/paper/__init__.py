"""The paper and the report as data: recipes, scales, and what was published."""

from gammabeta.paper.experiment import Experiment
from gammabeta.paper.experiments import experiments
from gammabeta.paper.published import PUBLISHED, published_accuracy
from gammabeta.paper.scales import SCALES, Scale, choose_scale

__all__ = [
    "PUBLISHED", "SCALES", "Experiment", "Scale", "choose_scale", "experiments",
    "published_accuracy",
]  # fmt: skip
