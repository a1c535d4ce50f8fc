"""The fused engine: a static program for the CIFAR ResNets that train gamma, beta or both, with or
without the classifier, by SGD. On a GPU its passes are Triton kernels, on a CPU compiled C++.

Members: engines made together by `make_members` take their steps together, in one program. Each
is an Engine like any other; a step runs when the last of them has asked for it.
"""

import importlib.util
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gammabeta.data import Dataset
from gammabeta.data.augment import EpochPlan
from gammabeta.engine import graphs
from gammabeta.engine.batches import TestTotals, Totals
from gammabeta.engine.stream import make_batches
from gammabeta.errors import InputError
from gammabeta.fused import direct
from gammabeta.fused.direct_program import DirectProgram
from gammabeta.fused.native_program import NativeProgram
from gammabeta.fused.plan import Plan, make_plan
from gammabeta.fused.program import Program
from gammabeta.models.cifar_resnet import CifarResNet
from gammabeta.passes import keep_freed_memory
from gammabeta.spec import RunSpec, differing
from gammabeta.subset import Subset, under

_TRAINABLE = ("bn", "gamma", "beta")  # each also with +output
# What members may differ in. The rest of their specs must be equal.
OWN = ("seed", "lr", "weight_decay", "lr_by_role", "weight_decay_by_role", "norm_init",
       "weight_init", "random_labels")  # fmt: skip


def why_not(spec: RunSpec, model: nn.Module, device: torch.device) -> str | None:
    """Why the fused engine cannot run this, or None."""
    if not isinstance(model, CifarResNet):
        return f"{spec.model} is no cifar_resnet"
    if spec.trainable.removesuffix("+output") not in _TRAINABLE:
        return f"it trains bn, gamma or beta, each perhaps with output, and not {spec.trainable}"
    if spec.optimizer != "sgd" or spec.statistics != "track":
        return "it knows only the optimizer sgd and the statistics policy track"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "on a GPU it needs triton"
    return None


class FusedEngine:
    """See interface.py for what it offers. What trains and the statistics are views of the
    program's flat buffers, so the model is up to date after each step."""

    name = "fused"

    def __init__(
        self, model: nn.Module, subset: Subset, spec: RunSpec, data: Dataset, device: torch.device
    ) -> None:
        self.spec, self.data, self.subset, self.device = spec, data, subset, device
        self.model = model.to(device)
        self.leaves = subset.apply(self.model)
        self.batches = make_batches(data, spec, device)
        # Parameter name -> its place in values and in velocity.
        self.places: dict[str, tuple[Tensor, Tensor]] = {}
        self.team = _Team([self])

    def begin_epoch(self, plan: EpochPlan) -> None:
        self.batches.begin_epoch(plan)
        self.team.sums.clear(self.row)
        self.model.train()

    def step(self, start: int, stop: int, factor: float) -> None:
        self.team.ask(self, (start, stop, factor))

    def totals(self) -> tuple[float, float]:
        self.team.check()
        return self.team.sums.mean(self.row)

    def leave(self) -> None:
        """Take no more steps: the other members no longer wait for this one."""
        self.team.leave(self)

    def evaluate(self) -> dict[str, float]:
        self.model.eval()
        return self.team.evaluate(self)

    def state(self) -> dict[str, Tensor]:
        state = self.subset.state(self.model)
        if self.team.has_velocity:
            for name, velocity in self.velocity.items():
                state[f"optimizer/{name}/momentum_buffer"] = velocity.clone()
        return {key: value.cpu().contiguous() for key, value in state.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.subset.load_state(self.model, state)
        kept = under(state, "optimizer/")
        for name, velocity in self.velocity.items():
            velocity.copy_(kept.get(f"{name}/momentum_buffer", torch.zeros(())))
        self.team.loaded(bool(kept))

    def close(self) -> None:
        self.batches.close()

    @property
    def velocity(self) -> dict[str, Tensor]:
        """Views of the momentum of what trains, by parameter name."""
        return {name: self.places[name][1] for name in self.subset.trained}

    def move_in(self, team: "_Team", row: int) -> None:
        """Let the model's gammas, betas and statistics, and what trains of its classifier, live in
        row `row` of the team's flat buffers."""
        program, plan = team.program, team.program.plan
        self.team, self.row, before = team, row, self.places
        self.places = {}
        for kind, first in (("weight", 0), ("bias", plan.channels)):
            for layer in plan.layers:
                place = slice(first + layer.offset, first + layer.offset + layer.channels)
                self._move(f"{layer.norm}.{kind}", place, (layer.channels,))
        if program.head:
            weight = plan.classes * plan.features
            first = 2 * plan.channels
            shape = (plan.classes, plan.features)
            self._move(f"{plan.head}.weight", slice(first, first + weight), shape)
            self._move(f"{plan.head}.bias", slice(first + weight, None), (plan.classes,))
        for index, layer in enumerate(plan.layers):
            norm = self.model.get_submodule(layer.norm)
            homes = {
                "running_mean": program.running_mean[row, layer.place],
                "running_var": program.running_var[row, layer.place],
                "num_batches_tracked": team.batches_tracked[row, index],
            }
            for name, home in homes.items():
                home.copy_(norm._buffers[name])  # type: ignore[arg-type]
                norm._buffers[name] = home
        for name, (_, velocity) in before.items():  # of an earlier team
            self.places[name][1].copy_(velocity)

    def _move(self, name: str, place: slice, shape: tuple[int, ...]) -> None:
        team, parameter = self.team, self.model.get_parameter(name)
        homes = [each[self.row, place].view(shape) for each in (team.program.values, team.velocity)]
        homes[0].copy_(parameter.detach())
        parameter.data = homes[0]
        self.places[name] = (homes[0], homes[1])
        trained = self.subset.trained.get(name)
        if trained is not None:  # elsewhere rate and decay stay 0, and the value as it is
            rates, decays = dict(self.spec.lr_by_role), dict(self.spec.weight_decay_by_role)
            team.rate[self.row, place] = rates.get(trained.role, self.spec.lr)
            team.decay[self.row, place] = decays.get(trained.role, self.spec.weight_decay)


def check_members(specs: Sequence[RunSpec], model: nn.Module, device: torch.device) -> None:
    """Raise InputError where runs cannot be trained in step. model: of the first of them."""
    reason = why_not(specs[0], model, device)
    if reason is not None:
        raise InputError(f"only the fused engine trains members, and it cannot run this: {reason}")
    for spec in specs[1:]:
        for key in differing([specs[0], spec]):
            if key not in OWN:
                values = f"{getattr(specs[0], key)} and {getattr(spec, key)}"
                raise InputError(
                    f"members cannot differ in {key} ({values}): they may differ in "
                    f"{', '.join(OWN)}"
                )


def make_members(engines: Sequence[FusedEngine]) -> None:
    """Let engines take their steps together from now on; see `check_members` for which may. With
    the same seed and weight initialiser they share one backbone, one batch and the stem."""
    _Team(engines)


class _Team:
    """One program for some members, and the optimiser over its flat buffers."""

    def __init__(self, members: Sequence[FusedEngine]) -> None:
        self.members, self.spec, self.device = members, members[0].spec, members[0].device
        self.dtype = torch.bfloat16 if self.spec.precision == "bf16" else torch.float32
        self.shared = len({(each.spec.seed, each.spec.weight_init) for each in members}) == 1
        self.program = self._make_program()
        self.velocity, self.rate, self.decay = (
            torch.zeros_like(self.program.values) for _ in range(3)
        )
        self.batches_tracked = torch.zeros(
            len(members), len(self.program.plan.layers), dtype=torch.int64, device=self.device
        )
        self.has_velocity = False
        self._asked: dict[int, tuple[int, int, float]] = {}
        self._error: Exception | None = None
        self._left: set[int] = set()
        self._evaluated: list[dict[str, float]] = []
        for row, member in enumerate(members):
            # A member that is new has been in no team.
            self.has_velocity |= bool(member.places) and member.team.has_velocity
            member.move_in(self, row)
        self.sums = Totals(self.device, members=len(members))
        self._factor = torch.ones(1, device=self.device)
        self._last_factor = 1.0
        self._graph()
        if self.device.type == "cpu":
            keep_freed_memory()

    def _graph(self) -> None:
        self.learn: graphs.Learn = self._learn
        if graphs.are_usable(self.device):
            self.learn = graphs.GraphedSteps(self._learn)

    def ask(self, member: FusedEngine, step: tuple[int, int, float]) -> None:
        """A member wants to take a step; all do once the last has asked."""
        self._asked[member.row] = step
        self._step_if_all_asked()
        self.check()

    def check(self) -> None:
        """A step that failed failed for every member: none may go on as if it had been taken."""
        if self._error is not None:
            raise self._error

    def leave(self, member: FusedEngine) -> None:
        self._left.add(member.row)
        self._asked.pop(member.row, None)
        self._graph()  # it may have been this member's batch that the others share
        self._step_if_all_asked()

    def _step_if_all_asked(self) -> None:
        steps = set(self._asked.values())
        if self._error or not steps or len(self._asked) + len(self._left) < len(self.members):
            return
        if len(steps) > 1:
            raise RuntimeError(f"members asked for different steps: {sorted(steps)}")
        self._asked.clear()
        try:
            self._step(*steps.pop())
        except Exception as error:
            self._error = error

    @torch.no_grad()
    def _step(self, start: int, stop: int, factor: float) -> None:
        if factor != self._last_factor:
            self._last_factor = factor
            self._factor.fill_(factor)
        drawn = [each.batches.drawn(start, stop) for each in self._readers()]
        self.learn(*(part for each in drawn for part in each))
        self.loaded(has_velocity=self.spec.momentum > 0)

    def _readers(self) -> Sequence[FusedEngine]:
        """Whose images are used. The batch that members share is that of one who is still there:
        who left knows no later epoch."""
        if self.shared:
            return [each for each in self.members if each.row not in self._left][:1]
        return self.members

    def _learn(self, *parts: Tensor) -> None:
        """Forward, backward, the optimiser and the totals. parts: what each reader has drawn."""
        readers = self._readers()
        size = len(parts) // len(readers)
        drawn = [parts[first : first + size] for first in range(0, len(parts), size)]
        images = torch.stack(
            [
                self._nhwc(each.batches.images_of(its))
                for each, its in zip(readers, drawn, strict=True)
            ]
        )
        everyones = drawn * len(self.members) if self.shared else drawn
        labels = torch.stack(
            [each.batches.labels_of(its) for each, its in zip(self.members, everyones, strict=True)]
        )
        loss, correct = self.program.step(images, labels, self.spec.label_smoothing)
        self.program.optimise(
            self.velocity, self.rate, self.decay, self._factor, self.spec.momentum,
            self.spec.nesterov,
        )  # fmt: skip
        self.batches_tracked += 1
        self.sums.add(loss, correct, labels.shape[1])

    def loaded(self, has_velocity: bool) -> None:
        """The values are other ones now."""
        self.has_velocity = has_velocity
        self._evaluated = []

    @torch.no_grad()
    def evaluate(self, member: FusedEngine) -> dict[str, float]:
        """The first member that asks has all of them evaluated, in one pass over the test set."""
        if not self._evaluated or len(self.members) == 1:
            totals = [TestTotals(self.device) for _ in self.members]
            for images, labels in member.batches.test():
                for one, logits in zip(
                    totals, self.program.logits(self._nhwc(images)[None]), strict=True
                ):
                    one.add(logits.float(), labels)
            self._evaluated = [each.metrics(member.data.num_classes) for each in totals]
        return self._evaluated[member.row]

    def _nhwc(self, images: Tensor) -> Tensor:
        """(N, C, H, W), channels_last -> (N, H, W, C) in the program's type."""
        return images.permute(0, 2, 3, 1).to(self.dtype)

    def _make_program(self) -> Program:
        plan = make_plan(self.members[0].model)
        owners = [each.model for each in (self.members[:1] if self.shared else self.members)]

        def stacked(name: str) -> Tensor:
            return torch.stack([model.get_parameter(name).detach() for model in owners])

        return _program_class(plan, self.device, self.dtype)(
            plan,
            [stacked(f"{layer.conv}.weight") for layer in plan.layers],
            stacked(f"{plan.head}.weight"),
            stacked(f"{plan.head}.bias"),
            members=len(self.members),
            head=self.spec.trainable.endswith("+output"),
            dtype=self.dtype,
        )


def _program_class(plan: Plan, device: torch.device, dtype: torch.dtype) -> type[Program]:
    if device.type == "cpu":
        return DirectProgram if direct.takes(plan, dtype) else NativeProgram
    from gammabeta.fused.triton_program import TritonProgram

    return TritonProgram
