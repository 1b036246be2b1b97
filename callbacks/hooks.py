"""Hooks: look at what goes through the layers of a model.

    with hook_output(model[2]) as hook:
        model(xb)
    hook.stored                                      # the output of model[2]

    class Means(HookCallback):                       # in training, for every layer that has parameters
        def hook(self, module, input, output): return output.mean()

    learn.fit(1, cbs=(means := Means())); means.hooks.stored

They are PyTorch's own hooks, kept together with what they found and removed for certain.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from .core import Callback
from .nested import map_tensors

__all__ = ["Hook", "HookCallback", "Hooks", "Modules", "hook_output", "hook_outputs"]

HookFunction = Callable[[nn.Module, Any, Any], Any]
Modules = nn.Module | Iterable[nn.Module] | Callable[[nn.Module], Iterable[nn.Module]] | None


class Hook:
    """Calls `func(module, input, output)` whenever `module` has run; what that returned last is in `stored`.

    `input` is the tuple of positional arguments. With `forward=False` it is called in the backward pass, with the
    gradients of input and output, both tuples (PyTorch's full backward hook: the module must not work in place). `func`
    gets tensors cut off from the graph, or with `detach=False` as they are; `cpu` copies what it returns to the CPU,
    which waits for the device. It cannot change the output. With `active = False` it pauses. As a context manager the
    hook removes itself; `stored` stays.
    """

    def __init__(self, module: nn.Module, func: HookFunction, forward: bool = True, *, detach: bool = True,
                 cpu: bool = False):  # fmt: skip
        _check_modules([module])
        self.module, self.func, self.detach, self.cpu = module, func, detach, cpu
        self.stored: Any = None
        self.active = True
        register = module.register_forward_hook if forward else module.register_full_backward_hook
        self._handle = register(self._call)

    def _call(self, module: nn.Module, input: Any, output: Any) -> None:
        if not self.active:
            return
        if self.detach:
            input, output = map_tensors(Tensor.detach, input), map_tensors(Tensor.detach, output)
        result = self.func(module, input, output)
        self.stored = map_tensors(Tensor.cpu, result) if self.cpu else result

    def remove(self) -> None:
        """Stop listening; may be called again."""
        self._handle.remove()

    def __enter__(self) -> "Hook":
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


class Hooks:
    """A `Hook` on each of `modules`: a sequence of them, and a context manager that removes them all."""

    def __init__(self, modules: Iterable[nn.Module], func: HookFunction, forward: bool = True, *, detach: bool = True,
                 cpu: bool = False):  # fmt: skip
        modules = list(modules)
        _check_modules(modules)  # all of them, before the first is changed
        self.hooks = [Hook(module, func, forward, detach=detach, cpu=cpu) for module in modules]

    def __len__(self) -> int:
        return len(self.hooks)

    def __getitem__(self, i: int) -> Hook:
        return self.hooks[i]

    def __iter__(self) -> Iterator[Hook]:
        return iter(self.hooks)

    @property
    def stored(self) -> list:
        """What each hook has stored."""
        return [hook.stored for hook in self.hooks]

    def remove(self) -> None:
        """Stop listening; may be called again."""
        for hook in self.hooks:
            hook.remove()

    def __enter__(self) -> "Hooks":
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def hook_output(module: nn.Module, detach: bool = True, cpu: bool = False, grad: bool = False) -> Hook:
    """A hook that stores the module's output, or with `grad` the tuple of gradients of its outputs."""
    return Hook(module, _output, not grad, detach=detach, cpu=cpu)


def hook_outputs(modules: Iterable[nn.Module], detach: bool = True, cpu: bool = False, grad: bool = False) -> Hooks:
    """`hook_output` of several modules."""
    return Hooks(modules, _output, not grad, detach=detach, cpu=cpu)


def _output(module: nn.Module, input: Any, output: Any) -> Any:
    return output


class HookCallback(Callback):
    """Calls its method `hook(module, input, output)` for layers of the model while it trains: override it.

    `modules`: a module, several, or a function that gets the model and returns them; by default all layers without
    children that have parameters. `every` n-th training batch is looked at, None: each. `names` holds the name of each
    module, `hooks` what `hook` returned last. The hooks are there during a fit only, however it ends. (What
    `torch.compile` has compiled before a fit does not call hooks: look at a model before it is compiled.)
    """

    def __init__(self, modules: Modules = None, every: int | None = None, *, forward: bool = True):
        if every is not None and every < 1:
            raise ValueError(f"every={every}: look at every n-th batch, n at least 1; None looks at each.")
        self.modules, self.every, self.forward = modules, every, forward
        self.names: dict[nn.Module, str] = {}
        self.hooks = Hooks([], self.hook)

    def hook(self, module: nn.Module, input: Any, output: Any) -> Any:
        """What to keep of a layer's work, in the hook's `stored`; here its output."""
        return output

    def before_fit(self, learn: Any) -> None:
        self.hooks.remove()
        self.names = _named(learn.model, self.modules)
        self.hooks = Hooks(self.names, self.hook, self.forward)
        self.listen(False)

    def before_batch(self, learn: Any) -> None:
        self.listen(learn.training and (self.every is None or learn.train_iter % self.every == 0))

    def after_batch(self, learn: Any) -> None:
        self.listen(False)

    def after_fit(self, learn: Any) -> None:
        self.hooks.remove()

    after_cancel_fit = after_fit

    def listen(self, active: bool) -> None:
        """Whether the hooks are called from now on."""
        for hook in self.hooks:
            hook.active = active


def _named(model: nn.Module, modules: Modules) -> dict[nn.Module, str]:
    """The modules to look at, each with its path in the model, or its class where it is not in there."""
    if modules is None:
        modules = _layers_with_params
    if isinstance(modules, nn.Module):
        modules = [modules]
    chosen = list(modules(model) if callable(modules) else modules)
    _check_modules(chosen)
    if not chosen:
        raise ValueError(f"There is no layer to look at in {type(model).__name__}: pass modules=[…].")
    paths = {module: path for path, module in model.named_modules()}
    return {module: paths.get(module) or type(module).__name__ for module in chosen}


def _layers_with_params(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if not list(m.children()) and list(m.parameters())]


def _check_modules(modules: Iterable[Any]) -> None:
    """Raise TypeError for what is no module."""
    for number, module in enumerate(modules):
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"A hook looks at a torch.nn.Module, and number {number} is {module!r}. A layer is reached as "
                "model[0], model.conv1 or model.get_submodule('layer1.0.conv1')."
            )
