"""CycleGAN: images of one kind turned into another and back, learned from two heaps of images that are no pairs.

data = DataBlock((ImageBlock, ImageBlock), get_items=get_image_files, get_y=RandomImage(path / "zebras"),
                 item_tfms=Resize(128)).databunch(path / "horses", bs=1)
learn = CycleGANLearner.from_models(data)
learn.fit_flat_cos(40, pct_start=0.5)
learn.show_results()                                    # horses, as zebras, and back; zebras, as horses, and back
learn.predict(photo)                                    # the horse on it as a zebra

Zhu et al. 2017, "Unpaired image-to-image translation using cycle-consistent adversarial networks", arXiv:1703.10593.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...callbacks.evaluating import evaluating
from ...data import DataBunch
from ...learner import Learner
from ...learner.stages import Callbacks, as_list
from ..image import ImageBlock, show_images
from .cycle_nets import patch_critic, resnet_generator
from .learner import in_range
from .losses import GANLoss, LeastSquares
from .system import ADAM, Rates
from .unpaired import ImageBuffer

__all__ = ["CycleGAN", "CycleGANLearner"]

NAMES = ("A", "as B", "and back", "B", "as A", "and back")


class CycleGAN(nn.Module):
    """Trains `to_b` and `to_a`, which turn images of one kind into the other, against a critic of each kind.

    A batch is (images of kind A, images of kind B), which have nothing to do with each other. The generators' loss is
    the critics' opinion, plus `cycle_weight` times how far (mean absolute difference) an image is from itself when it
    has been there and back, plus `identity_weight` times how far an image is changed that is of the wanted kind already
    (0 saves the time). Both generators share an optimizer, and so do both critics, which are shown made images from
    an `ImageBuffer` each. Called as any model, it turns A into B.
    """

    automatic_optimization = False
    learner: ClassVar[type]  # what an exported file is loaded as

    def __init__(self, to_b: nn.Module, to_a: nn.Module, critic_a: nn.Module, critic_b: nn.Module,
                 loss: GANLoss | None = None, cycle_weight: float = 10.0, identity_weight: float = 5.0,
                 buffer_size: int = 50, opt_func: Callable = ADAM,
                 lr: Rates | tuple[Rates, Rates] = 2e-4):  # fmt: skip
        super().__init__()
        self.to_b, self.to_a, self.critic_a, self.critic_b = to_b, to_a, critic_a, critic_b
        self.loss = LeastSquares() if loss is None else loss
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.buffers_of_made = ImageBuffer(buffer_size), ImageBuffer(buffer_size)
        self.opt_func, self.lr = opt_func, lr

    def forward(self, a: Tensor) -> Tensor:
        return self.to_b(a)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        a, b = batch
        opt_generators, opt_critics = self.optimizers()  # type: ignore[operator]  # lent by the learner
        with self._turn_of(opt_generators) as trains:
            losses, fake_a, fake_b = self._generators(a, b)
            self.log("cycle_loss", losses["cycle"])  # type: ignore[operator]
            self._step("gen_loss", _sum(losses), opt_generators, trains)
        with self._turn_of(opt_critics) as trains:
            shown_a, shown_b = (keep(fake) for keep, fake in zip(self.buffers_of_made, (fake_a, fake_b), strict=True))
            self._step("critic_loss", self._critics(a, b, shown_a, shown_b), opt_critics, trains)

    def _generators(self, a: Tensor, b: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The parts of the generators' loss by name, and the images made of either kind."""
        fake_b, fake_a = self.to_b(a), self.to_a(b)
        back = F.l1_loss(self.to_a(fake_b), a) + F.l1_loss(self.to_b(fake_a), b)
        losses = {
            "critics' opinion": self.loss.generator(self.critic_b(fake_b)) + self.loss.generator(self.critic_a(fake_a)),
            "cycle": self.cycle_weight * back,
        }
        if self.identity_weight:
            changed = F.l1_loss(self.to_b(b), b) + F.l1_loss(self.to_a(a), a)
            losses["identity"] = self.identity_weight * changed
        return losses, fake_a, fake_b

    def _critics(self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor) -> Tensor:
        of_a = self.loss.critic(self.critic_a(a), self.critic_a(fake_a))
        return of_a + self.loss.critic(self.critic_b(b), self.critic_b(fake_b))

    @contextmanager
    def _turn_of(self, opt: Any) -> Iterator[bool]:
        """Inside, only what `opt` steps gets gradients. Tells whether there is any, or all of it is frozen."""
        trains = any(p.requires_grad for group in opt.param_groups for p in group["params"])
        self.toggle_optimizer(opt)  # type: ignore[operator]
        try:
            with torch.set_grad_enabled(trains):
                yield trains
        finally:
            self.untoggle_optimizer(opt)  # type: ignore[operator]

    def _step(self, name: str, loss: Tensor, opt: Any, trains: bool) -> None:
        self.log(name, loss)  # type: ignore[operator]
        if trains:
            opt.zero_grad()
            self.manual_backward(loss)  # type: ignore[operator]
            opt.step()
            opt.zero_grad()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        a, b = batch
        losses, fake_a, fake_b = self._generators(a, b)
        self.log("valid_critic_loss", self._critics(a, b, fake_a, fake_b))  # type: ignore[operator]
        self.log("valid_cycle_loss", losses["cycle"])  # type: ignore[operator]
        return _sum(losses)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """The generators' parameters, and the critics'."""
        pairs = (self.to_b, self.to_a), (self.critic_a, self.critic_b)
        return [list(chain.from_iterable(network.parameters() for network in pair)) for pair in pairs]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for the generators, one for the critics."""
        rates = self.lr if isinstance(self.lr, tuple) else (self.lr, self.lr)
        return [self.opt_func(params, lr=lr) for params, lr in zip(self.layer_groups(), rates, strict=True)]


def _sum(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([*losses.values()]).sum()


class CycleGANLearner(Learner):
    """A `Learner` whose model is a `CycleGAN`: made by `from_models`.

    Columns of the history: `gen_loss` (of which `cycle_loss` is part) and `critic_loss` in training; `valid_loss` (the
    generators'), `valid_cycle_loss` and `valid_critic_loss` in validation.
    """

    @classmethod
    def from_models(cls, data: DataBunch, to_b: nn.Module | None = None, to_a: nn.Module | None = None,
                    critic_a: nn.Module | None = None, critic_b: nn.Module | None = None,
                    loss: GANLoss | None = None, cycle_weight: float = 10.0, identity_weight: float = 5.0,
                    buffer_size: int = 50, opt_func: Callable = ADAM, lr: Rates | tuple[Rates, Rates] = 2e-4,
                    cbs: Callbacks = None, path: str | Path | None = None) -> "CycleGANLearner":  # fmt: skip
        """For data of two `ImageBlock`s, the second of which any image of kind B comes to, see `RandomImage`.

        Networks that are not given are `resnet_generator()` and `patch_critic()` for the channels of the images, which
        are brought to −1…1 for them. The other arguments are those of `CycleGAN`.

        Raises ValueError for data that are not of two images.
        """
        images = [block for block in data.blocks if isinstance(block, ImageBlock)]
        if len(images) != 2 or len(data.blocks) != 2:
            names = [type(block).__name__ for block in data.blocks]
            raise ValueError(
                f"CycleGAN learns from two heaps of images, and this data has {names}: "
                "DataBlock((ImageBlock, ImageBlock), get_items=get_image_files, get_y=RandomImage(folder))."
            )
        n_a, n_b = (block.channels for block in images)
        if (to_b is None or to_a is None) and n_a != n_b:
            raise ValueError(
                f"Images of {n_a} and of {n_b} channels: pass to_b and to_a, or give both blocks one mode."
            )
        model = CycleGAN(
            resnet_generator(n_a) if to_b is None else to_b, resnet_generator(n_b) if to_a is None else to_a,
            patch_critic(n_a) if critic_a is None else critic_a, patch_critic(n_b) if critic_b is None else critic_b,
            loss, cycle_weight, identity_weight, buffer_size, opt_func, lr,
        )  # fmt: skip
        cbs = [*model.buffers_of_made, *as_list(cbs)]
        return cls(in_range(data, model.to_b), model, splitter=CycleGAN.layer_groups, cbs=cbs, path=path)

    def show_results(self, max_n: int = 4) -> None:
        """Show images of kind A, turned into B, and turned back; beside them some of B, as A, and back."""
        if self.data.valid_dl is None:
            raise ValueError("show_results needs a validation set.")
        a, b = (images[:max_n] for images in self.data.valid_dl.first_batch())
        model: Any = self.model.to(self.data.device)
        with evaluating(model), torch.no_grad():
            as_b, as_a = model.to_b(a), model.to_a(b)
            made = [(a, b), (as_b, as_a), (model.to_a(as_b), model.to_b(as_a))]
        if self.ranks.rank == 0:
            rows = zip(*(self.data.decode(pair) for pair in made), strict=True)
            images = [sample[side] for row in rows for side in (0, 1) for sample in row]
            titles = [*NAMES, *[""] * (len(images) - len(NAMES))]
            show_images(images, nrows=len(a), titles=titles)


CycleGAN.learner = CycleGANLearner
