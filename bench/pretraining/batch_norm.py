"""Batch norm over the batches of all devices, where torch's own does not run: on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lossbench import losses


def make_global(network: nn.Module, device: str) -> nn.Module:
    """A network whose batch norms have the statistics of all devices' batches.

    Args:
        network: its batch norms are replaced.
        device: "cuda", which has torch's ``SyncBatchNorm``, or "cpu".
    """
    if device == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return synced
    for name, child in network.named_children():
        setattr(network, name, _like(child) if isinstance(child, _BatchNorm) else child)
        make_global(child, device)
    return network


def _like(norm: _BatchNorm) -> "GlobalBatchNorm":
    settings = norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    made = GlobalBatchNorm(norm.num_features, *settings)
    state = norm.state_dict()
    made.to(next((each.dtype for each in state.values()), torch.float32)).load_state_dict(state)
    return made.train(norm.training)


class GlobalBatchNorm(_BatchNorm):
    """Batch norm of as many samples on every device; each exchanges its sums, in both passes."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape.

        Each feature has mean 0 and variance 1 over the samples of all devices, before scale and
        shift.
        """
        if not self.training:
            return super().forward(input)
        world = losses.World()
        others = [dim for dim in range(input.dim()) if dim != 1]
        count = world.size * input.numel() // input.shape[1]
        mean = world.sum_used_apart(input.sum(others, keepdim=True)) / count
        centred = input - mean
        variance = world.sum_used_apart(centred.square().sum(others, keepdim=True)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        normal = centred * (variance + self.eps).rsqrt()
        if not self.affine:
            return normal
        shape = [1, -1, *(1 for _ in others[1:])]
        return normal * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """For evaluation, as torch's does."""
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean.flatten(), self.momentum)
        self.running_var.lerp_(variance.flatten(), self.momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""
