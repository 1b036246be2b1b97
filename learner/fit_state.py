"""All that a fit is between two of its steps, but for its place: as tensors and plain values that a file can hold."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..callbacks.nested import map_tensors
from ..data.randomness import generator_states, set_generator_states
from .weights import load_optimizer, load_weights

__all__ = ["fit_state", "random_states", "set_callbacks", "set_fit_state", "set_model", "set_random_states"]


def fit_state(learn: Any) -> dict[str, Any]:
    """Model, optimizer and callbacks of a fit, as `set_fit_state` takes them."""
    return {
        "model": learn.model.state_dict(),
        "buffers": _unsaved_buffers(learn.model),
        "trained": [name for name, p in learn.model.named_parameters() if p.requires_grad],
        "opt": learn.opt.state_dict(),
        "callbacks": [[type(cb).__name__, cb.state_dict()] for cb in learn.cbs],
    }


def set_fit_state(learn: Any, state: dict[str, Any], source: str) -> None:
    """Set model, optimizer and callbacks; `source` is the file that they come from."""
    set_model(learn, state, source)
    load_optimizer(learn.opt, state["opt"], Path(source))
    set_callbacks(learn, state)


def set_model(learn: Any, state: dict[str, Any], source: str) -> None:
    """Set weights, buffers, and which parameters train."""
    load_weights(learn.model, state["model"], source)
    for name, buffer in _unsaved_buffers(learn.model).items():
        buffer.copy_(state["buffers"][name])
    for name, p in learn.model.named_parameters():
        p.requires_grad_(name in state["trained"])


def set_callbacks(learn: Any, state: dict[str, Any]) -> None:
    """Hand every callback what one of its class had; of several, in their order."""
    states = map_tensors(partial(_to_device, device=learn.data.device), state["callbacks"])
    for cb in learn.cbs:
        of_its_class = next((pair for pair in states if pair[0] == type(cb).__name__), None)
        if of_its_class is not None:
            states.remove(of_its_class)
            if learn.ranks.rank == 0 or not cb.rank0_only:
                cb.load_state_dict(of_its_class[1])


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    fits = device.type != "mps" or tensor.dtype != torch.float64  # which Apple's GPUs have not
    return tensor.to(device) if fits else tensor


def _unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that are not part of the model's state dict."""
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}


def random_states(learn: Any) -> dict[str, Any]:
    """The states of the global random generators, and of those that the training loader has of its own."""
    loader = [generator.get_state() for generator in learn.data.train_dl.generators]
    return generator_states(learn.data.device) | {"loader": loader}


def set_random_states(learn: Any, states: dict[str, Any]) -> None:
    """Set them to what `random_states` gave."""
    set_generator_states(states, learn.data.device)
    for generator, state in zip(learn.data.train_dl.generators, states["loader"], strict=False):
        generator.set_state(state)
