"""Learners of GANs: a generator and a critic that train against each other, by the loop that trains everything else.

data = DataBlock((NoiseBlock(100), ImageBlock("L")), get_items=get_image_files).databunch(path)
learn = GANLearner.wgan_gp(data, basic_generator(28, 1), basic_critic(28, 1, norm="layer"))
learn.fit(30, cbs=[EMA(0.999), GANSamples()])
learn.show_results()
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, RMSprop

from ...callbacks import Callback
from ...callbacks.lr_find import valley
from ...data import DataBunch
from ...data.items import take
from ...learner import Learner, trainable_params
from ...learner.stages import Callbacks, as_list
from ..image import ImageBlock, show_images
from ..transforms import Normalize
from .losses import ByClassifier, GANLoss, Wasserstein
from .noise import NoiseBlock
from .penalties import GradientPenalty
from .switcher import FixedGANSwitcher
from .system import ADAM, GAN, Rates, all_params

__all__ = ["GANLearner", "in_range"]

ADAM_WITHOUT_MOMENTUM = partial(Adam, betas=(0.0, 0.9))  # as WGAN-GP's
PLUS_MINUS_1 = (0.5,), (0.5,)  # mean and std that bring [0, 1] to [−1, 1]


class GANLearner(Learner):
    """A `Learner` whose model is a `GAN`: made by `from_models`, `wgan`, `wgan_gp` or `from_learners`.

    Data are (inputs of the generator, …, images); a `NoiseBlock` makes inputs that are noise. Where the generator ends
    with a Tanh, images come to its range, −1…1, unless the data has a `Normalize`. Each network has an optimizer and a
    learning rate of its own: `fit(n)` and `fit_one_cycle(n)` go by those, `fit(n, [1e-4, 4e-4])` by others, the
    generator's first. Columns of the history: `gen_loss` and `critic_loss` in training, `valid_loss` (the generator's)
    and `valid_critic_loss` in validation. `predict` and `get_preds` give what the generator makes.
    """

    @classmethod
    def from_models(cls, data: DataBunch, generator: nn.Module, critic: nn.Module, loss: GANLoss,
                    switcher: Callback | None = None,
                    penalty: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None, clip: float | None = None,
                    likeness: Callable[[Tensor, Tensor], Tensor] | None = None,
                    weights_gen: tuple[float, float] = (1.0, 1.0), opt_func: Callable = ADAM,
                    lr: Rates | tuple[Rates, Rates] = 2e-4, metrics: Any = None, cbs: Callbacks = None,
                    path: str | Path | None = None) -> "GANLearner":  # fmt: skip
        """From two networks and any of `losses.py`, such as `Hinge()`.

        Without a `switcher` both learn from every batch. `penalty` (a `GradientPenalty`), `clip`, `likeness`,
        `weights_gen`, `opt_func` and `lr` are the arguments of `GAN`. `metrics` compare made with real images: `FID`,
        `KID`, or any function `(made, real) -> scalar`. Raises ValueError for a penalty of a critic with BatchNorm.
        """
        gan = GAN(generator, critic, loss, penalty, clip, likeness, weights_gen, opt_func, lr, metrics=as_list(metrics))
        return cls._of(gan, in_range(data, generator), switcher, cbs, path)

    @classmethod
    def wgan(cls, data: DataBunch, generator: nn.Module, critic: nn.Module, switcher: Callback | None = None,
             clip: float | None = 0.01, opt_func: Callable = RMSprop, lr: Rates | tuple[Rates, Rates] = 1e-3,
             cbs: Callbacks = None, path: str | Path | None = None, metrics: Any = None) -> "GANLearner":  # fmt: skip
        """Wasserstein GAN: the critic's weights stay within ±`clip`, and it has 5 steps to one of the generator.

        Arjovsky et al. 2017, arXiv:1701.07875, whose learning rate is 5e-5: lower it where losses swing.
        """
        switcher = FixedGANSwitcher(n_crit=5) if switcher is None else switcher
        return cls.from_models(data, generator, critic, Wasserstein(), switcher, clip=clip, opt_func=opt_func, lr=lr,
                               metrics=metrics, cbs=cbs, path=path)  # fmt: skip

    @classmethod
    def wgan_gp(cls, data: DataBunch, generator: nn.Module, critic: nn.Module, switcher: Callback | None = None,
                weight: float = 10.0, opt_func: Callable = ADAM_WITHOUT_MOMENTUM,
                lr: Rates | tuple[Rates, Rates] = 1e-4, cbs: Callbacks = None, path: str | Path | None = None,
                metrics: Any = None) -> "GANLearner":  # fmt: skip
        """Wasserstein GAN whose critic is kept from being steep by a `GradientPenalty(weight)`, at 5 steps to one.

        Gulrajani et al. 2017, arXiv:1704.00028. The critic has no BatchNorm: `basic_critic(…, norm="layer")`.
        """
        switcher = FixedGANSwitcher(n_crit=5) if switcher is None else switcher
        return cls.from_models(data, generator, critic, Wasserstein(), switcher, GradientPenalty(weight),
                               opt_func=opt_func, lr=lr, metrics=metrics, cbs=cbs, path=path)  # fmt: skip

    @classmethod
    def from_learners(cls, gen_learn: Learner, critic_learn: Learner, switcher: Callback | None = None,
                      weights_gen: tuple[float, float] = (1.0, 1.0), cbs: Callbacks = None,
                      path: str | Path | None = None, metrics: Any = None) -> "GANLearner":  # fmt: skip
        """From a learner that makes images of images, and one that tells real from made ones; both trained before.

        They bring their networks, layer groups, learning rates and losses, and the first one the data and
        `opt_func`. The generator's loss is `weights_gen[0]` times the critic's opinion and `weights_gen[1]` times the
        loss that it was trained with. The critic's is the one it was trained with, class 1 being "real".
        """
        gan = GAN(
            gen_learn.model, critic_learn.model, ByClassifier(critic_learn.loss_func),
            likeness=gen_learn.loss_func, weights_gen=weights_gen, opt_func=gen_learn.opt_func,
            lr=(gen_learn.lr, critic_learn.lr), splitters=(_splitter(gen_learn), _splitter(critic_learn)),
            metrics=as_list(metrics),
        )  # fmt: skip
        return cls._of(gan, gen_learn.data, switcher, cbs, path or gen_learn.path)

    @classmethod
    def _of(cls, gan: GAN, data: DataBunch, switcher: Callback | None, cbs: Callbacks,
            path: str | Path | None) -> "GANLearner":  # fmt: skip
        if gan.penalty is not None and any(isinstance(m, _BatchNorm) for m in gan.critic.modules()):
            raise ValueError(
                "A gradient penalty is of each image by itself, and BatchNorm makes an image's score depend on the "
                "others: give the critic another norm, basic_critic(…, norm='layer')."
            )
        cbs = [*as_list(switcher), *as_list(cbs)]
        return cls(data, gan, splitter=GAN.layer_groups, cbs=cbs, path=path, train_bn=False)

    # ---- what it makes

    def sample(self, n: int = 16, seed: int = 0) -> Tensor:
        """`n` images that the generator makes, float32 `(n, c, h, w)` in [0, 1] on the CPU, of noise by `seed`.

        Where its inputs are no noise, of items of the validation set that `seed` picks. Raises ValueError for data
        without blocks, which do not say what images look like.
        """
        batches = [(*inputs, self.run_batch(inputs).float()) for inputs in self._inputs(n, seed)]
        images = [sample[-1] for batch in batches for sample in self.data.decode(batch)]
        return torch.stack(images).clamp(0, 1)

    def _inputs(self, n: int, seed: int) -> list[tuple]:
        """Batches of inputs for `n` images."""
        blocks, bs = self.data.blocks[: self.data.n_inp], self.data.bs or 64
        if not blocks:
            raise ValueError("These loaders came without blocks, which say how an image looks: use a DataBlock.")
        if isinstance(blocks[0], NoiseBlock) and len(blocks) == 1:
            return [(noise.to(self.data.device),) for noise in blocks[0].noise(n, seed).split(bs)]
        items = self.data.valid_ds.items
        if not len(items):
            raise ValueError("What it makes images of has to be given: learn.predict(item), or data, learn.data = ….")
        order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed)).tolist()
        return list(self.data.test_dl(take(items, [order[i % len(order)] for i in range(n)])))

    def show_results(self, max_n: int = 9) -> None:
        """Show images made of noise; where inputs are no noise, what is made of them beside what is real."""
        if not (self.data.blocks and isinstance(self.data.blocks[0], NoiseBlock)):
            return super().show_results(max_n)
        images = self.sample(max_n)
        if self.ranks.rank == 0:
            show_images([*images], nrows=max(1, int(max_n**0.5)))

    def lr_find(self, start_lr: float = 1e-7, end_lr: float = 10, num_it: int = 100, stop_div: bool = True,
                show_plot: bool = True, suggest_funcs: Callable | Sequence[Callable] = (valley,)) -> tuple:  # fmt: skip
        """Not for GANs: raises ValueError."""
        raise ValueError(
            "lr_find looks where a loss falls fastest, and those of a GAN play against each other: they do not fall as "
            "it learns. Begin with the rates of its recipe, and look at samples: cbs=GANSamples()."
        )


GAN.learner = GANLearner


def _splitter(learn: Learner) -> Callable:
    """How a learner parts its model, frozen parts included."""
    return all_params if learn.splitter is trainable_params else learn.splitter


def in_range(data: DataBunch, generator: nn.Module) -> DataBunch:
    """The data, its images in −1…1 where the generator ends with a Tanh, unless they are normalised already."""
    *_, last = generator.modules()
    block = data.blocks[-1] if data.blocks else None
    if not isinstance(last, nn.Tanh) or not isinstance(block, ImageBlock):
        return data
    mean, std = PLUS_MINUS_1
    scale = Normalize(mean * block.channels, std * block.channels, targets=True)
    of_inputs = isinstance(data.blocks[0], ImageBlock)  # which any Normalize acts on
    given = any(isinstance(tfm, Normalize) and (tfm.targets or of_inputs) for tfm in data.batch_tfms)
    return data if given else data.with_batch_tfms([*data.batch_tfms, scale])
