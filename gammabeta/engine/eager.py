"""The reference engine: stock modules, autograd and torch.optim. Obvious and complete."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gammabeta.data import Dataset
from gammabeta.data.augment import EpochPlan
from gammabeta.engine.batches import TestTotals, Totals
from gammabeta.engine.stream import make_batches
from gammabeta.spec import RunSpec
from gammabeta.subset import Subset, under

if TYPE_CHECKING:
    from gammabeta.processes import Processes


class EagerEngine:
    """See interface.py for what it offers. channels_last; bf16 by autocast, so that
    gamma, beta and everything else that trains stay in fp32.

    processes: where several train the run together. Each takes its share of every batch; gradients,
    totals and, unless each normalises its share alone, the statistics of BatchNorm are summed.
    """

    name = "eager"

    def __init__(
        self,
        model: nn.Module,
        subset: Subset,
        spec: RunSpec,
        data: Dataset,
        device: torch.device,
        processes: "Processes | None" = None,
    ) -> None:
        self.spec, self.data, self.subset, self.device = spec, data, subset, device
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.leaves = subset.apply(self.model)
        self.optimizer = make_optimizer(spec, subset, self.leaves) if self.leaves else None
        self.batches = make_batches(data, spec, device)
        self.processes = processes
        self._totals = Totals(device, processes)
        self.prepare(processes if spec.norm_shares == 1 else None)

    def prepare(self, across: "Processes | None") -> None:
        """Change how the network computes. Its BatchNorms see the batch of all of `across`."""
        if across is not None:
            from gammabeta.engine.synced import synchronise

            synchronise(self.model, across)

    def begin_epoch(self, plan: EpochPlan) -> None:
        self.batches.begin_epoch(plan)
        self._totals.clear()
        self.model.train()

    def step(self, start: int, stop: int, factor: float) -> None:
        whole = stop - start
        if self.processes is not None:
            start, stop = self.processes.share(start, stop)
        self.set_rates(factor)
        self.learn(self.batches.drawn(start, stop), whole)

    def set_rates(self, factor: float) -> None:
        """Let the optimiser take its next step at `factor` times the full learning rates."""
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] = group["base_lr"] * factor

    def learn(self, drawn: Sequence[Tensor], whole: int) -> None:
        """Forward, backward and the optimiser on a batch (batches.py). whole: how many images it
        has, those of the other processes among them."""
        target = self.batches.labels_of(drawn)
        with torch.set_grad_enabled(self.optimizer is not None):
            logits = self._logits(self.batches.images_of(drawn))
            loss = F.cross_entropy(logits, target, label_smoothing=self.spec.label_smoothing)
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
            if self.processes is None:
                loss.backward()  # type: ignore[no-untyped-call]
            else:
                (loss * (len(target) / whole)).backward()  # type: ignore[no-untyped-call]
                self.processes.sum_gradients(self.leaves.values())
            self.optimizer.step()
        correct = (logits.detach().argmax(1) == target).sum()
        self._totals.add(loss, correct, len(target))

    def totals(self) -> tuple[float, float]:
        return self._totals.mean()

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        self.model.eval()
        if self.processes is None:
            return self._evaluated(0, 1)
        if self.spec.statistics == "track":
            self.processes.average_statistics(self.model)
        with self.processes.apart():  # each takes whole batches, not all of them as many
            return self._evaluated(self.processes.rank, self.processes.count)

    def _evaluated(self, first: int, stride: int) -> dict[str, float]:
        totals = TestTotals(self.device, self.processes)
        for images, labels in self.batches.test(first, stride):
            totals.add(self._logits(images), labels)
        return totals.metrics(self.data.num_classes)

    def state(self) -> dict[str, Tensor]:
        """On the CPU: "trained/NAME", "statistics/NAME", "optimizer/NAME/ENTRY"."""
        state = self.subset.state(self.model)
        for name, leaf in self.leaves.items():
            entries = self.optimizer.state.get(leaf, {}) if self.optimizer else {}
            for entry, value in entries.items():
                if isinstance(value, Tensor):
                    state[f"optimizer/{name}/{entry}"] = value.detach().clone()
        return {key: value.cpu().contiguous() for key, value in state.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.subset.load_state(self.model, state)
        if self.optimizer is None:
            return
        self.optimizer.state.clear()
        for key, value in under(state, "optimizer/").items():
            name, _, entry = key.rpartition("/")
            leaf = self.leaves[name]
            # Adam keeps its step count on the CPU; everything else lives where the leaf does.
            home = torch.device("cpu") if entry == "step" else leaf.device
            restored = value.to(home)
            if restored.shape == leaf.shape:
                restored = torch.empty_like(leaf).copy_(restored)
            self.optimizer.state[leaf][entry] = restored

    def close(self) -> None:
        self.batches.close()

    def _logits(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> fp32 logits (N, classes)."""
        with torch.autocast(self.device.type, torch.bfloat16, self.spec.precision == "bf16"):
            logits: Tensor = self.model(images)
        return logits.float()


def make_optimizer(
    spec: RunSpec, subset: Subset, leaves: Mapping[str, nn.Parameter], fused: bool = False
) -> torch.optim.Optimizer:
    """The optimiser of the spec over `leaves`, one group a role (with its own rate and decay).
    Each group keeps its full rate as "base_lr"; the schedule scales it. fused: SGD in one kernel,
    whose learning rates may be tensors."""
    rates, decays = dict(spec.lr_by_role), dict(spec.weight_decay_by_role)
    by_role: dict[str, list[nn.Parameter]] = {}
    for name, leaf in leaves.items():
        by_role.setdefault(subset.trained[name].role, []).append(leaf)
    groups = [
        {
            "params": parameters,
            "role": role,
            "lr": rates.get(role, spec.lr),
            "base_lr": rates.get(role, spec.lr),
            "weight_decay": decays.get(role, spec.weight_decay),
        }
        for role, parameters in by_role.items()
    ]
    if spec.optimizer == "sgd":
        return torch.optim.SGD(
            groups, momentum=spec.momentum, nesterov=spec.nesterov, fused=fused or None
        )
    adam = torch.optim.Adam if spec.optimizer == "adam" else torch.optim.AdamW
    return adam(groups, betas=(spec.betas[0], spec.betas[1]))
