"""Engines of tiny networks on little data."""

import numpy as np
import torch

from gammabeta import RunSpec, create_model, select
from gammabeta.data import Split, make_dataset
from gammabeta.engine.eager import EagerEngine
from gammabeta.engine.fused import FusedEngine, check_members, make_members, why_not
from gammabeta.engine.lean import LeanEngine
from gammabeta.train import plan_of

SMALL = RunSpec(model="cifar_resnet_8_4", data="synthetic", epochs=4, batch_size=16, flip=True)


def small_data(train=40, test=20, classes=10, seed=0):
    draw = np.random.default_rng(seed)

    def split(count):
        images = draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return Split(images, np.arange(count) % classes)

    return make_dataset(
        "synthetic", split(train), split(test), num_classes=classes, origin="random pixels"
    )


def make_engine(spec=SMALL, data=None, engine=EagerEngine):
    data = data or small_data()
    model = create_model(
        spec.model, num_classes=data.num_classes, seed=spec.seed, norm_init=spec.norm_init
    )
    subset = select(model, spec.trainable, seed=spec.seed, statistics=spec.statistics)
    return engine(model, subset, spec, data, torch.device("cpu"))


def fitting(spec):
    """The engines that take a spec."""
    model = create_model(spec.model)
    fused = why_not(spec, model, torch.device("cpu")) is None
    return [EagerEngine, LeanEngine, *([FusedEngine] if fused else [])]


def train_epoch(engine, epoch, factor=1.0):
    spec, count = engine.spec, len(engine.data.train.labels)
    engine.begin_epoch(plan_of(spec, epoch, count))
    for start in range(0, count, spec.batch_size):
        engine.step(start, min(start + spec.batch_size, count), factor)
    return engine.totals()


WIDE = SMALL.replace(
    model="cifar_resnet_8_16", norm_init="symmetric"
)  # the compiled passes take it


HEAD = WIDE.replace(trainable="bn+output")


def members(specs, data=None):
    engines = [make_engine(spec, data, FusedEngine) for spec in specs]
    check_members(specs, engines[0].model, torch.device("cpu"))
    make_members(engines)
    return engines
