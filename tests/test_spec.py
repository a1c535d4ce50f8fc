"""RunSpec: canonical, round-trips, resolves defaults, refuses early with a helpful line."""

import dataclasses
import json
import math

import pytest

from gammabeta import InputError, RunSpec
from gammabeta.errors import in_full
from gammabeta.spec import CHOICES, FORMAT


def test_defaults_are_the_papers_recipe():
    spec = RunSpec()
    assert (spec.optimizer, spec.lr, spec.momentum, spec.weight_decay) == ("sgd", 0.1, 0.9, 1e-4)
    assert (spec.epochs, spec.batch_size, spec.drops, spec.drop_factor) == (
        160,
        128,
        (0.5, 0.75),
        0.1,
    )
    assert (spec.norm_init, spec.weight_init) == ("uniform", "kaiming_normal")
    assert (spec.flip, spec.crop_padding, spec.precision) == (True, 4, "fp32")


def test_the_id_of_the_default_spec_is_fixed():
    # A change here relabels every stored run: it needs a new FORMAT and a migration.
    assert RunSpec().id == "9b1b57728118"
    report = RunSpec(
        model="report_resnet20", optimizer="adam", schedule="cosine", norm_init="ones",
        subsample=10_000, flip=False,
    )  # fmt: skip
    assert report.id == "93ce1ffaa259"
    digits = RunSpec(
        model="cifar_resnet_110", trainable="bn+output", data="digits", schedule="constant",
        epochs=3, lr_by_role={"output": 0.01},
    )  # fmt: skip
    assert digits.id == "66b176c43f56"


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(),
        RunSpec(trainable="output + bn", optimizer="adam", lr=1, subsample=7),
        RunSpec(lr_by_role={"output": 0.01, "gamma": 1}, weight_decay_by_role={"gamma": 0}),
        RunSpec(schedule="cosine", data="digits", warmup_epochs=2, nesterov=True),
    ],
)
def test_json_loads_back_equal(spec):
    again = RunSpec.from_dict(json.loads(spec.to_json()))
    assert again == spec
    assert again.id == spec.id
    assert hash(again) == hash(spec)


@pytest.mark.parametrize("name", [item.name for item in dataclasses.fields(RunSpec)])
def test_every_field_is_part_of_the_identity(name):
    other = {
        "model": "cifar_resnet_20", "trainable": "gamma", "data": "synthetic", "epochs": 3,
        "batch_size": 64, "seed": 1, "optimizer": "adam", "lr": 0.2, "momentum": 0.8,
        "nesterov": True, "betas": (0.8, 0.9), "weight_decay": 0.0, "lr_by_role": {"beta": 1.0},
        "weight_decay_by_role": {"beta": 1.0}, "schedule": "cosine", "drops": (0.25,),
        "drop_factor": 0.5, "warmup_epochs": 1.0, "label_smoothing": 0.1,
        "weight_init": "binary", "norm_init": "ones", "statistics": "batch", "precision": "bf16",
        "flip": False, "crop_padding": 0, "subsample": 100, "random_labels": 0.5,
        "schedule_steps": 1000, "bias_init": "zeros", "brightness": 0.5, "normalisation": "none",
        "test_subsample": 100, "image_size": 128, "norm_shares": 2, "weights": "a" * 64,
        "validation": 0.1,
    }  # fmt: skip
    bases = {
        "betas": {"optimizer": "adam"},
        "schedule_steps": {"schedule": "cosine"},
        "image_size": {"data": "imagenet"},
    }
    base = RunSpec(**bases.get(name, {}))
    assert base.replace(**{name: other[name]}).id != base.id


def test_the_same_thing_written_differently_has_one_id():
    assert RunSpec(trainable="output+bn").id == RunSpec(trainable="bn + output").id
    assert RunSpec(trainable="beta+gamma").id == RunSpec(trainable="bn").id
    assert RunSpec(weight_decay=0).id == RunSpec(weight_decay=0.0).id
    assert RunSpec(lr=None).id == RunSpec(lr=0.1).id
    assert RunSpec(drops=[0.5, 0.75]).id == RunSpec().id


def test_defaults_follow_what_decides_them():
    adam = RunSpec(optimizer="adam")
    assert (adam.lr, adam.momentum, adam.betas) == (0.001, 0.0, (0.9, 0.999))
    assert RunSpec().replace(optimizer="adam") == adam
    assert RunSpec().replace(optimizer="adam", lr=0.5).lr == 0.5
    assert RunSpec(data="digits").flip is False
    assert RunSpec(schedule="cosine").drops == ()
    restarts = RunSpec(schedule="cosine_restarts")
    assert restarts.schedule_steps == 1000
    assert restarts.replace(schedule="cosine").schedule_steps is None
    assert restarts.replace(schedule="step") == RunSpec()
    assert adam.replace(optimizer="sgd") == RunSpec()


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ({}, {}),
        ({"data": "digits", "epochs": 2, "lr": 0.1}, {"data": "digits", "epochs": 2}),
        ({"optimizer": "adam", "lr": 0.1}, {"optimizer": "adam", "lr": 0.1}),
        ({"schedule": "cosine", "flip": False}, {"schedule": "cosine", "flip": False}),
        ({"schedule": "cosine_restarts", "schedule_steps": 1000}, {"schedule": "cosine_restarts"}),
        (
            {"schedule": "linear_cosine", "schedule_steps": 9, "normalisation": "none"},
            {"schedule": "linear_cosine", "schedule_steps": 9, "normalisation": "none"},
        ),
        ({"lr_by_role": {"beta": 1}, "drops": (0.5,)}, {"lr_by_role": {"beta": 1}, "drops": [0.5]}),
    ],
)
def test_what_was_chosen_is_what_differs_from_the_defaults(values, chosen):
    spec = RunSpec(**values)
    assert spec.chosen() == chosen
    assert RunSpec.from_dict(spec.chosen()) == spec


WRONG = [
    ({"model": 3}, "model must be a text"),
    ({"trainable": "bm"}, "did you mean bn"),
    ({"data": "cifar11"}, "did you mean cifar10"),
    ({"epochs": -1}, "at least 1"),
    ({"epochs": 0}, "at least 1"),
    ({"epochs": 1.5}, "whole number"),
    ({"epochs": True}, "whole number"),
    ({"epochs": "3"}, "whole number"),
    ({"batch_size": 0}, "at least 1"),
    ({"seed": -1}, "at least 0"),
    ({"lr": math.nan}, "finite"),
    ({"lr": math.inf}, "finite"),
    ({"lr": -0.1}, "at least 0"),
    ({"momentum": 1.0}, "below 1"),
    ({"weight_decay": -1}, "at least 0"),
    ({"optimizer": "adm"}, "did you mean adam"),
    ({"schedule": "steps"}, "did you mean step"),
    ({"drops": (0.75, 0.5)}, "must rise"),
    ({"drops": (80, 120)}, "between 0 and 1"),
    ({"drops": 0.5}, "list of numbers"),
    ({"schedule": "cosine", "drops": (0.5,)}, "drops belongs to the step schedule"),
    ({"optimizer": "adam", "momentum": 0.9}, "momentum belongs to sgd"),
    ({"betas": (0.9, 0.99)}, "betas belongs to adam"),
    ({"schedule": "cosine", "drop_factor": 0.5}, "drop_factor belongs to the step schedule"),
    ({"optimizer": "adam", "nesterov": True}, "nesterov belongs to sgd"),
    ({"optimizer": "adam", "betas": (0.9,)}, "two numbers"),
    ({"nesterov": True, "momentum": 0}, "momentum above 0"),
    ({"label_smoothing": 1.0}, "below 1"),
    ({"random_labels": 1.5}, "at most 1"),
    ({"subsample": 0}, "1 or more"),
    ({"test_subsample": 0}, "1 or more"),
    ({"schedule": "cosine", "schedule_steps": 0}, "1 or more"),
    ({"schedule_steps": 1000}, "schedule_steps belongs to the cosines: leave it out with step"),
    ({"schedule": "ramp", "schedule_steps": 9}, "leave it out with ramp"),
    ({"brightness": 1.5}, "at most 1"),
    ({"brightness": -0.5}, "at least 0"),
    ({"normalisation": "cifar"}, "known: imagenet, none"),
    ({"bias_init": "zero"}, "did you mean zeros"),
    ({"warmup_epochs": 160}, "below 160"),
    ({"precision": "fp16"}, "did you mean"),
    ({"statistics": "freeze"}, "did you mean frozen"),
    ({"weight_init": "kaiming"}, "did you mean kaiming_"),
    ({"norm_init": "one"}, "did you mean ones"),
    ({"lr_by_role": {"gama": 1.0}}, "did you mean gamma"),
    ({"lr_by_role": {"gamma": -1.0}}, "0 or more"),
    ({"lr_by_role": 3}, "must map roles"),
    ({"flip": "yes"}, "true or false"),
    ({"learning_rate": 0.1}, "no field 'learning_rate'"),
    ({"format": 2}, "format 2"),
    ({"format": True}, "format True"),
    ({"model": "cifar_resnet_15"}, "did you mean cifar_resnet_14"),
    ({"lr": 10**400}, "finite"),
    ({"seed": 10**400}, "whole number"),
    ({"lr_by_role": {"beta": 10**400}}, "finite"),
    ([], "JSON object"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_wrong_values_are_refused_with_one_helpful_line(values, message):
    with pytest.raises(InputError) as caught:
        RunSpec.from_dict(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)  # Python has no flags
    fields = {item.name for item in dataclasses.fields(RunSpec)}
    known = isinstance(values, dict) and values.keys() <= fields
    assert caught.value.about in (values if known else [None])


def test_every_choice_can_be_made():
    for name, choices in CHOICES.items():
        for choice in choices:
            spec = RunSpec(**{name: choice})
            assert getattr(spec, name) == choice
            assert RunSpec.from_dict(spec.to_dict()) == spec
    assert RunSpec().to_dict()["format"] == FORMAT


def test_imagenet_brings_its_own_images():
    spec = RunSpec(data="imagenet")
    assert (spec.image_size, spec.crop_padding, spec.flip) == (224, 0, True)
    small = spec.replace(image_size=128)
    assert small.to_dict()["image_size"] == 128
    assert RunSpec.from_dict(small.to_dict()) == small
    assert RunSpec.from_dict({**small.chosen(), "data": "imagenet"}) == small
    assert len({spec.id, small.id, RunSpec().id}) == 3
    assert small.replace(data="cifar10") == RunSpec()
    assert RunSpec().replace(data="imagenet") == spec
    assert "image_size" not in RunSpec().to_dict()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 64}, "image_size belongs to imagenet: leave it out with cifar10"),
        ({"data": "imagenet", "image_size": 0}, "image_size is 0: write 8 or more"),
        ({"data": "imagenet", "image_size": 5000}, "at most 4096"),
        ({"data": "imagenet", "crop_padding": 4}, "crop_padding belongs to images of one size"),
    ],
)
def test_image_sizes_that_do_not_fit_the_data(values, message):
    with pytest.raises(InputError, match=message):
        RunSpec(**values)


@pytest.mark.parametrize(
    ("number", "text"),
    [(10**6 + 1, "1000001"), (1e6, "1000000"), (-1.0, "-1"), (100, "100"), (0.1234567, "0.1234567"),
     (1e-5, "0.00001"), (2.5e15, "2500000000000000"), (0.0, "0"), (1e300, "1e+300"),
     (2**63, "9223372036854775808"), (math.nan, "nan"), (-math.inf, "-inf")],
)  # fmt: skip
def test_numbers_in_messages_are_never_rounded(number, text):
    assert in_full(number) == text
    assert float(text) == number or math.isnan(number)
