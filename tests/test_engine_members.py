"""Members of one program: as they would be alone, leaving, momentum, steps back."""

import pytest
import torch
from tiny_engines import HEAD, WIDE, make_engine, members, train_epoch

from gammabeta import create_model
from gammabeta.data.augment import epoch_plan
from gammabeta.engine.fused import FusedEngine, check_members, make_members
from gammabeta.errors import InputError


def epoch_together(engines, epoch):
    for engine in engines:
        engine.begin_epoch(epoch_plan(engine.spec.seed, epoch, 40, crop_padding=4, flip=True))
    for start in range(0, 40, 16):
        for engine in engines:
            engine.step(start, min(start + 16, 40), 1.0)
    return [engine.totals() for engine in engines]


@pytest.mark.parametrize("specs", [
    [WIDE, WIDE.replace(lr=0.01), WIDE.replace(weight_decay=0.1)],
    [WIDE, WIDE.replace(seed=1), WIDE.replace(seed=2, norm_init="ones")],
    [HEAD, HEAD.replace(lr_by_role={"output": 0.1})],
], ids=["one backbone", "replicates", "heads"])  # fmt: skip
def test_members_are_what_they_would_be_alone(specs):
    together = members(specs)
    totals = [epoch_together(together, epoch) for epoch in range(2)][-1]
    for spec, engine, total in zip(specs, together, totals, strict=True):
        alone = make_engine(spec, engine=FusedEngine)
        train_epoch(alone, 0)
        assert train_epoch(alone, 1)[0] == pytest.approx(total[0], rel=1e-5)
        assert alone.evaluate() == pytest.approx(engine.evaluate(), rel=1e-5)
        for key, value in alone.state().items():
            torch.testing.assert_close(engine.state()[key], value, rtol=1e-4, atol=1e-5)


def test_engines_that_become_members_keep_their_momentum():
    specs = [HEAD, HEAD.replace(lr=0.01), HEAD.replace(lr=0.02)]
    alone, other, fresh = (make_engine(spec, engine=FusedEngine) for spec in specs)
    train_epoch(alone, 0)
    other.load(alone.state())
    make_members([other, fresh])
    for key, value in alone.state().items():
        assert torch.equal(other.state()[key], value), key
    kept = [value for key, value in fresh.state().items() if key.startswith("optimizer/")]
    assert kept
    assert not any(value.any() for value in kept)


def test_a_member_that_leaves_does_not_hold_up_the_others():
    one, two = members([WIDE, WIDE.replace(lr=0.01)])
    for engine in (one, two):
        engine.begin_epoch(epoch_plan(0, 0, 40, crop_padding=4, flip=True))
    one.step(0, 16, 1.0)
    before = one.state()
    two.leave()
    assert any(not torch.equal(value, before[key]) for key, value in one.state().items()
               if key in before)  # fmt: skip
    one.step(16, 32, 1.0)
    assert one.totals()[0] > 0


def test_members_must_be_alike():
    model, cpu = create_model(WIDE.model), torch.device("cpu")
    with pytest.raises(InputError, match="cannot differ in batch_size"):
        check_members([WIDE, WIDE.replace(batch_size=8)], model, cpu)
    with pytest.raises(InputError, match="only the fused engine trains members"):
        check_members([WIDE.replace(trainable="all")] * 2, model, cpu)
