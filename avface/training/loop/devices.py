"""What computes: one device, or several through Lightning Fabric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from avface.errors import AvfaceError
from avface.training.loop.config import Device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


class Devices(Protocol):
    """The part of Lightning Fabric that the trainer uses."""

    @property
    def device(self) -> torch.device:
        """Device of this process."""

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes files and reports."""

    def setup(self, module: nn.Module, optimizer: Optimizer) -> Any:
        """Module and optimiser on the device, wrapped for several processes."""

    def backward(self, tensor: Tensor) -> None:
        """Gradients of a loss."""

    def clip_gradients(self, module: Any, optimizer: Any, *, max_norm: float) -> Any:
        """Clip the norm of the gradients."""

    def broadcast(self, obj: Any) -> Any:
        """The object of the first process, in all of them."""

    def barrier(self) -> None:
        """Wait for all processes."""


class SingleDevice:
    """One device in one process."""

    is_global_zero = True

    def __init__(self, device: Device) -> None:
        self.device = torch.device(device)

    def setup(self, module: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Both as they are, the module on the device."""
        return module.to(self.device), optimizer

    def backward(self, tensor: Tensor) -> None:
        """Gradients of a loss."""
        tensor.backward()

    def clip_gradients(self, module: nn.Module, optimizer: Optimizer, *, max_norm: float) -> None:
        """Clip the norm of the gradients."""
        nn.utils.clip_grad_norm_(module.parameters(), max_norm)

    def broadcast(self, obj: Any) -> Any:
        """The object."""
        return obj

    def barrier(self) -> None:
        """Return at once."""


def launch_fabric(device: Device, devices: int, nodes: int, precision: Precision) -> Fabric:
    """Start Lightning Fabric with its processes; under torchrun, join those that it has started.

    Raises:
        AvfaceError: if it isn't installed.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError:
        raise AvfaceError(
            "training needs lightning-fabric; install it with: pip install 'avface[train]'"
        ) from None
    fabric = Fabric(
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        precision=precision,
        strategy=DDPStrategy(find_unused_parameters=True) if devices * nodes > 1 else "auto",
    )
    fabric.launch()
    return fabric
