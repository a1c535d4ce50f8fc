"""The values of all tasks of a bank in one table, from which a mixed batch gathers its own."""

import torch
from torch import Tensor


class Table:
    """The floating-point values of all tasks, a row each, so that one look-up gathers a batch."""

    def __init__(
        self,
        base: dict[str, Tensor],
        tasks: dict[str, dict[str, Tensor]],
        entries: dict[str, dict[str, Tensor]],
    ) -> None:
        self.rows: dict[str, int] = {}
        self.checked: set[str] = set()  # kinds of batches that were held against an ordinary pass
        self.views: dict[str, dict[str, Tensor]] = {}
        whole = {  # a task of single entries is not mixed: its row holds the base
            task: {name: value for name, value in values.items() if name not in entries[task]}
            for task, values in tasks.items()
        }
        names = [name for values in whole.values() for name in values]
        self.shapes = {
            name: base[name].shape
            for name in dict.fromkeys(names)
            if base[name].is_floating_point()
        }
        # (T, P) for each type
        self.tables: dict[torch.dtype, Tensor] = {}
        self.places: dict[str, tuple[torch.dtype, int, int]] = {}
        widths: dict[torch.dtype, int] = {}
        for name, shape in self.shapes.items():
            dtype, size = base[name].dtype, shape.numel()
            start = widths.get(dtype, 0)
            widths[dtype] = start + size
            self.places[name] = dtype, start, start + size
        for dtype, width in widths.items():
            device = next(iter(base.values())).device
            self.tables[dtype] = torch.empty(len(tasks), width, dtype=dtype, device=device)
        for row, (task, values) in enumerate(tasks.items()):
            self.rows[task] = row
            self.views[task] = dict(values)
            for name, (dtype, start, stop) in self.places.items():
                view = self.tables[dtype][row, start:stop].view(self.shapes[name])
                view.copy_(whole[task].get(name, base[name]))
                if name in whole[task]:
                    self.views[task][name] = view

    def gather(self, tasks: list[str]) -> dict[str, Tensor]:
        """Name -> (N, ...), a row for each sample."""
        places = [self.rows[task] for task in tasks]
        chosen = {
            dtype: table[torch.tensor(places, device=table.device)]
            for dtype, table in self.tables.items()
        }
        return {
            name: chosen[dtype][:, start:stop].reshape(len(tasks), *self.shapes[name])
            for name, (dtype, start, stop) in self.places.items()
        }
