"""The reference engine: stock modules, autograd and torch.optim. Obvious and complete."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gammabeta.data import Dataset, Split
from gammabeta.data.augment import EpochPlan, augment, normalise
from gammabeta.spec import RunSpec
from gammabeta.subset import Subset, under

EVALUATION_BATCH = 128  # images at once, at least


class EagerEngine:
    """See interface.py for what it offers. channels_last; bf16 by autocast, so that
    gamma, beta and everything else that trains stay in fp32."""

    name = "eager"

    def __init__(
        self, model: nn.Module, subset: Subset, spec: RunSpec, data: Dataset, device: torch.device
    ) -> None:
        self.spec, self.data, self.subset, self.device = spec, data, subset, device
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.leaves = subset.apply(self.model)
        self.optimizer = make_optimizer(spec, subset, self.leaves) if self.leaves else None
        self._train = _on_device(data.train, device)
        self._test = _on_device(data.test, device)

    def begin_epoch(self, plan: EpochPlan) -> None:
        self._order = torch.from_numpy(plan.order).to(self.device)
        self._shift = torch.from_numpy(plan.shift).to(self.device)
        self._flip = torch.from_numpy(plan.flip).to(self.device)
        self._loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._seen = 0
        self.model.train()

    def step(self, start: int, stop: int, factor: float) -> None:
        images, labels = self._train
        index = self._order[start:stop]
        batch = augment(
            images[index], self._shift[index], self._flip[index], self.spec.crop_padding
        )
        target = labels[index]
        with torch.set_grad_enabled(self.optimizer is not None):
            logits = self._logits(batch)
            loss = F.cross_entropy(logits, target, label_smoothing=self.spec.label_smoothing)
        if self.optimizer is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        self._loss += loss.detach().double() * len(index)
        self._correct += (logits.detach().argmax(1) == target).sum()
        self._seen += len(index)

    def totals(self) -> tuple[float, float]:
        return float(self._loss) / self._seen, int(self._correct) / self._seen

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        self.model.eval()
        images, labels = self._test
        loss, correct, top5 = 0.0, 0, 0
        # Under the policy "batch" an image's logits depend on its batch: then it is a training one.
        size = self.spec.batch_size
        if self.spec.statistics != "batch":
            size = max(size, EVALUATION_BATCH)
        for start in range(0, len(labels), size):
            batch = slice(start, start + size)
            logits, target = self._logits(images[batch]), labels[batch]
            loss += float(F.cross_entropy(logits, target, reduction="sum").double())
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices == target[:, None]
            correct += int(best[:, 0].sum())
            top5 += int(best.sum())
        count = len(labels)
        metrics = {"test_loss": loss / count, "test_accuracy": correct / count}
        if self.data.num_classes > 10:
            metrics["test_top5"] = top5 / count
        return metrics

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

    def _logits(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, C) -> fp32 logits (N, classes)."""
        batch = normalise(images, self.data.mean, self.data.std)
        with torch.autocast(self.device.type, torch.bfloat16, self.spec.precision == "bf16"):
            logits: Tensor = self.model(batch)
        return logits.float()


def make_optimizer(
    spec: RunSpec, subset: Subset, leaves: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser of the spec over `leaves`, one group a role (with its own rate and decay).
    Each group keeps its full rate as "base_lr"; the schedule scales it."""
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
        return torch.optim.SGD(groups, momentum=spec.momentum, nesterov=spec.nesterov)
    adam = torch.optim.Adam if spec.optimizer == "adam" else torch.optim.AdamW
    return adam(groups, betas=(spec.betas[0], spec.betas[1]))


def _on_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device)
