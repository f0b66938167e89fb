"""Training in bfloat16 with float32 master weights: Muon for the matrices of the layers, AdamW for everything else."""

from __future__ import annotations

import torch
from torch import nn

MUON_FACTOR = 2.0


class Trainer:
    """Holds the master weights and both optimisers of a set of bfloat16 modules."""

    def __init__(self, modules: dict[str, nn.Module], rate: float, factors: dict[str, float] | None = None) -> None:
        """`factors` multiply the rate of the modules they name."""
        factors = factors or {}
        self.low: dict[str, nn.Parameter] = {}
        for prefix, module in modules.items():
            for name, weight in module.named_parameters():
                self.low[f"{prefix}.{name}"] = weight
        self.high = {name: nn.Parameter(weight.detach().float().clone()) for name, weight in self.low.items()}
        for module in modules.values():
            module.to(torch.bfloat16)
        groups: dict[bool, list[dict]] = {True: [], False: []}
        for prefix in modules:
            mine = {n: w for n, w in self.high.items() if n.startswith(f"{prefix}.")}
            matrix = {n: (w.ndim == 2 and "layers." in n) or "modality" in n for n, w in mine.items()}
            for kind, group in groups.items():
                chosen = [w for n, w in mine.items() if matrix[n] == kind]
                if chosen:
                    group.append({"params": chosen, "factor": factors.get(prefix, 1.0)})
        self.rate = rate
        self.muon = torch.optim.Muon(
            groups[True], lr=MUON_FACTOR * rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
        )
        self.adam = torch.optim.AdamW(groups[False], lr=rate, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, scale: float, only: tuple[str, ...] = ()) -> float:
        """Apply the gradients, `only` of the modules named if any, at `scale` times the rate; return their norm."""
        for name, weight in self.low.items():
            left = weight.grad is None or (only and not name.startswith(only))
            self.high[name].grad = None if left else weight.grad.float()
            weight.grad = None
        norm = nn.utils.clip_grad_norm_(self.high.values(), 1.0)
        for optimiser, factor in ((self.muon, MUON_FACTOR), (self.adam, 1.0)):
            for group in optimiser.param_groups:
                group["lr"] = self.rate * scale * factor * group["factor"]
            optimiser.step()
        self.push()
        return float(norm)

    @torch.no_grad()
    def push(self) -> None:
        """Copy the master weights into the bfloat16 modules."""
        for name, weight in self.low.items():
            weight.copy_(self.high[name])

    def state(self) -> dict:
        """Return everything needed to go on."""
        return {
            "weights": {n: w.detach() for n, w in self.high.items()},
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
        }

    def load(self, state: dict, optimisers: bool = True) -> None:
        """Go on from a saved state; weights that are missing or do not fit keep their fresh values."""
        with torch.no_grad():
            for name, weight in state["weights"].items():
                if name in self.high and self.high[name].shape == weight.shape:
                    self.high[name].copy_(weight)
        if optimisers:
            self.muon.load_state_dict(state["muon"])
            self.adam.load_state_dict(state["adam"])
        self.push()
