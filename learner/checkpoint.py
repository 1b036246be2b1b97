"""Fits that go on where they stopped: `Checkpoint` writes all that a fit is, and the same script run again reads it.

    learn.fit_one_cycle(10, cbs=Checkpoint("run"))

However the process ended – a reboot, `kill -9`, a full queue – running the script again continues to the same weights,
to the bit on the same machine. A run that is done is recognised and not repeated.
"""

import json
import re
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ..callbacks.core import Callback, CancelFit
from ..callbacks.nested import map_tensors
from ..data.randomness import generator_states, set_generator_states
from .differences import differences
from .environment import environment_changes
from .files import FileError, load_file, one_line, save_file
from .ranks import RankError
from .run_record import run_record, save_record
from .shards import load_parts, mesh_of, part_out, put_back, save_parts
from .weights import load_optimizer, load_weights

__all__ = ["Checkpoint"]

KIND = "warmstart checkpoint"
FORMAT = 1
PARTS = {"finished": bool, "records": str, "place": dict, "model": dict, "buffers": dict, "trained": list, "opt": dict,
         "callbacks": list, "random": list, "at_epoch": list, "parts": dict}  # fmt: skip
UNITS = {"s": 1, "min": 60, "h": 3600}
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # not all on Windows


class Checkpoint(Callback):
    """Writes the whole state of a fit into `folder`, and goes on from it when the same script is run again.

    That is: model, optimizer, scaler, averages and whatever else callbacks keep (`Callback.state_dict`), the recorder,
    the place in the epoch, the random states. It is written after each epoch, or each so many steps of the optimizer
    (`every=500`) or so often (`every="10min"`, also "30s" and "2h"), always between two steps, and when the fit ends;
    the last `keep` files stay. A fit that has ended is recognised: its results are loaded, and nothing is trained. Of a
    script with several fits, in one folder or each in its own, each goes on or is left out by its number.

    Next to them stands `run.json`, see `run_record`. Where the script's recipe or data have changed since, going on is
    refused with what differs, unless `allow_changes`. Where the last file is damaged, the one before it is used.

    SIGTERM and SIGUSR1 (as SLURM sends before it ends a job) write a checkpoint after the batch and leave with the exit
    code `Checkpoint.EXIT_CODE`, 75: "run me again". Of several processes rank 0 writes; another number of them than
    before can go on, though not to the same bits.

    Exact is what follows from the global random generators or from the data's seed. A loader of yours that shuffles by
    itself is read to its place again, and has to give the same then.
    """

    order = 95  # when all others have done their part
    orders = MappingProxyType({"before_fit": -1000})  # and here before the others begin anything
    real_runs_only = True
    EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h

    def __init__(self, folder: str | Path, every: str | int = "epoch", keep: int = 3, allow_changes: bool = False):
        self.steps, self.seconds = _interval(every)
        if keep < 1:
            raise ValueError(f"keep={keep}: the number of checkpoints to keep, at least 1.")
        self.folder, self.every, self.keep, self.allow_changes = Path(folder), every, keep, allow_changes
        self.records: list[dict] = []  # of all fits of this run, this one's last
        self.done = False  # whether this fit had been done before
        self.last_steps, self.last_time = 0, 0.0  # of the last file
        self.place: dict[str, int] = {}
        self.at_epoch: dict[str, Any] = {}  # random states when the epoch began
        self.at_end: dict[str, Any] = {}  # and when its training had ended, while it is validated
        self.handlers: dict[int, Any] = {}  # of signals, as they were
        self.received: int | None = None  # a signal

    # ---- a fit begins

    def before_fit(self, learn: Any) -> None:
        self.done, self.received, self.last_steps, self.last_time = False, None, 0, time.monotonic()
        learn.ranks.agreed.clear()
        record = run_record(learn, without=[self])
        found = self._newest(learn)
        number = learn.fits_done
        self.records = (found["records"] if found else [])[:number]
        if found and len(found["records"]) > number:
            self._compare(found["records"][number], record)
            self.done = len(found["records"]) > number + 1 or found["finished"]
            with _in_order(found):
                self._go_on(learn, found)
        self.records += [{}] * (number - len(self.records)) + [record]  # fits without a checkpoint have none
        if self.done:
            raise CancelFit
        learn.ranks.from_first(lambda: save_record({"fits": self.records}, self.folder / "run.json"))
        self._watch_signals(learn)

    def _newest(self, learn: Any) -> dict | None:
        """The content of the newest file that can be read; None where there is none. FileError where all are bad."""
        failures: list[str] = []
        for file in reversed(learn.ranks.from_first(self._files)):
            try:
                content = learn.ranks.from_first(lambda file=file: _read(file))
                if content["parts"]:
                    parted = load_parts(_parts_of(file), content["parts"], learn.ranks, mesh_of(learn.model))
                    content = put_back(content, parted)
            except (FileError, RankError) as error:
                failures.append(str(error))
                continue
            if failures:
                warnings.warn(f"{failures[0]} Going on from {file.name}, the one before.", stacklevel=2)
            return content | {"file": str(file)}
        if failures:
            raise FileError(f"No checkpoint in {self.folder} can be used; remove them to start afresh. {failures[0]}")
        return None

    def _files(self) -> list[Path]:
        """The checkpoints in the folder, oldest first."""
        files = [file for file in self.folder.glob("checkpoint-*.pt") if re.fullmatch(r"checkpoint-\d+", file.stem)]
        return sorted(files, key=_number)

    def _compare(self, before: dict, now: dict) -> None:
        """Raise ValueError where the run has another recipe or other data than it had."""
        if before and not self.allow_changes and (changes := differences(before, now)):
            raise ValueError(
                f"{self.folder} holds a run that differs from this one: {'; '.join(changes)}. Take another folder for "
                "a new run, put it back as it was, or go on all the same with Checkpoint(…, allow_changes=True)."
            )
        if before and (changes := environment_changes(before, now)):
            warnings.warn(f"The last digits of this run may change: {'; '.join(changes)}.", stacklevel=2)

    def _go_on(self, learn: Any, found: dict) -> None:
        place, n = found["place"], learn.ranks.n
        if self.done:
            _say(learn, f"{self.folder} holds the result of this fit, which was done before: nothing is trained.")
            self._restore(learn, found)
            return
        batches = place["batches"] * place["n_ranks"] // n
        if batches * n != place["batches"] * place["n_ranks"]:
            warnings.warn(f"Some items of this epoch come twice: it was begun by {place['n_ranks']} processes.",
                          stacklevel=2)  # fmt: skip
        where = f"epoch {place['epoch'] + 1} of {learn.n_epoch}" + (f", after batch {batches}" if batches else "")
        _say(learn, f"Going on from {found['file']}: {where}.")
        learn.first_epoch, learn.first_batch, learn.epochs_begun = place["epoch"], batches, place["epochs_begun"]
        learn.restore = lambda: self._restore(learn, found)
        self._restore_callbacks(learn, found)  # for what they do when the fit begins

    def _restore(self, learn: Any, found: dict) -> None:
        """Set all that the file holds."""
        with _in_order(found):
            self._set(learn, found)

    def _set(self, learn: Any, found: dict) -> None:
        place, device, rank = found["place"], learn.data.device, learn.ranks.rank
        load_weights(learn.model, found["model"], found["file"])
        for name, buffer in _unsaved_buffers(learn.model).items():
            buffer.copy_(found["buffers"][name])
        for name, p in learn.model.named_parameters():
            p.requires_grad_(name in found["trained"])
        if self.done:
            learn.epochs_begun = place["epochs_begun"]
            if len(found["records"]) > learn.fits_done + 1:
                return  # of a later fit, which will go on from all of it
        else:
            learn.train_iter, learn.n_steps = place["train_iter"], place["n_steps"]
            self.last_steps = learn.n_steps
        load_optimizer(learn.opt, found["opt"], Path(found["file"]))
        self._restore_callbacks(learn, found)
        now, begun = (found[name][rank % place["n_ranks"]] for name in ("random", "at_epoch"))
        if learn.first_batch:  # the loader has to be read to there, from the state that it began with
            self._set_random_states(learn, begun)
            learn.data.train_dl.when_begun = lambda: set_generator_states(now, device)
            self.at_epoch = begun
        else:
            self._set_random_states(learn, now)

    def _restore_callbacks(self, learn: Any, found: dict) -> None:
        """Hand every callback the state that one of its class had, in the same order."""
        to_device = partial(_to_device, device=learn.data.device)
        states = map_tensors(to_device, found["callbacks"])
        for cb in learn.cbs:
            of_its_class = next((pair for pair in states if pair[0] == type(cb).__name__), None)
            if of_its_class is not None:
                states.remove(of_its_class)
                if learn.ranks.rank == 0 or not cb.rank0_only:
                    cb.load_state_dict(of_its_class[1])

    # ---- when it is written

    def before_train(self, learn: Any) -> None:
        self.at_end = {}
        if not self.at_epoch:
            self.at_epoch = self._random_states(learn)

    def _random_states(self, learn: Any) -> dict[str, Any]:
        loader = [generator.get_state() for generator in learn.data.train_dl.generators]
        return generator_states(learn.data.device) | {"loader": loader}

    def _set_random_states(self, learn: Any, states: dict[str, Any]) -> None:
        set_generator_states(states, learn.data.device)
        for generator, state in zip(learn.data.train_dl.generators, states["loader"], strict=False):
            generator.set_state(state)

    def _note_place(self, learn: Any, epoch: int, batches: int, epochs_begun: int) -> None:
        self.place = {"epoch": epoch, "batches": batches, "epochs_begun": epochs_begun,
                      "train_iter": learn.train_iter, "n_steps": learn.n_steps}  # fmt: skip

    def after_batch(self, learn: Any) -> None:
        ranks = learn.ranks
        if learn.training:
            self._note_place(learn, learn.epoch, learn.iter + 1, learn.epochs_begun - 1)
            self.place["train_iter"] += 1  # which the loop counts when we have returned
            if self.seconds and time.monotonic() - self.last_time >= self.seconds:
                ranks.wish("save")
        due = "save" in ranks.agreed or (self.steps and learn.n_steps - self.last_steps >= self.steps)
        stop = "stop" in ranks.agreed
        if (stop or due) and (learn.training or self.at_end) and not _has_gradients(learn):
            self._write(learn)
            if stop:
                self._leave(learn)

    def after_train(self, learn: Any) -> None:
        self.at_end = self._random_states(learn)
        self._note_place(learn, learn.epoch, learn.n_iter or learn.iter + 1, learn.epochs_begun - 1)

    def after_validate(self, learn: Any) -> None:
        if learn.fitting:
            self.at_end = {}

    def after_epoch(self, learn: Any) -> None:
        self.at_epoch, self.at_end = {}, {}
        self._note_place(learn, learn.epoch + 1, 0, learn.epochs_begun)
        if self.every == "epoch" and learn.epoch + 1 < learn.n_epoch:
            self._write(learn)
        if "stop" in learn.ranks.agreed:
            self._write(learn)
            self._leave(learn)

    def after_fit(self, learn: Any) -> None:
        if not self.done:
            self._note_place(learn, learn.epoch, 0, learn.epochs_begun)
            self._write(learn, finished=True)
        self._unwatch_signals()

    def after_cancel_fit(self, learn: Any) -> None:
        self.at_epoch, self.at_end = {}, {}
        self._unwatch_signals()

    # ---- how

    def _write(self, learn: Any, finished: bool = False) -> None:
        """Write a new file, then remove those too many."""
        random = learn.ranks.gather((self.at_end or self._random_states(learn), self.at_epoch))
        learn.ranks.agreed.discard("save")
        self.last_steps, self.last_time = learn.n_steps, time.monotonic()

        content, parted = part_out(self._content(learn, random, finished))
        file = learn.ranks.from_first(self._next_file)
        content["parts"] = save_parts(parted, _parts_of(file), learn.ranks) if parted else {}
        learn.ranks.from_first(lambda: save_file(content, file))
        learn.ranks.from_first(self._remove_old)

    def _next_file(self) -> Path:
        files = self._files()
        return self.folder / f"checkpoint-{_number(files[-1]) + 1 if files else 1}.pt"

    def _remove_old(self) -> None:
        for file in self._files()[: -self.keep]:
            file.unlink()
            shutil.rmtree(_parts_of(file), ignore_errors=True)

    def _content(self, learn: Any, random: list, finished: bool) -> dict[str, Any]:
        return {
            "kind": KIND,
            "format": FORMAT,
            "finished": finished,
            "records": json.dumps(self.records),
            "place": self.place | {"n_ranks": learn.ranks.n},
            "model": learn.model.state_dict(),
            "buffers": _unsaved_buffers(learn.model),
            "trained": [name for name, p in learn.model.named_parameters() if p.requires_grad],
            "opt": learn.opt.state_dict(),
            "callbacks": [[type(cb).__name__, cb.state_dict()] for cb in learn.cbs],
            "random": [now for now, _ in random],
            "at_epoch": [begun for _, begun in random],
        }

    # ---- signals

    def _watch_signals(self, learn: Any) -> None:
        if threading.current_thread() is not threading.main_thread():  # which alone may
            return

        def receive(number: int, frame: FrameType | None) -> None:
            self.received = number
            learn.ranks.wish("stop")

        self.handlers = {number: signal.signal(number, receive) for number in SIGNALS}

    def _unwatch_signals(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def _leave(self, learn: Any) -> None:
        what = signal.Signals(self.received).name if self.received else "another process was told to stop"
        _say(learn, f"{what}: the run is in {self.folder}. Run the same script again to go on.")
        raise SystemExit(self.EXIT_CODE)


def _interval(every: str | int) -> tuple[int, float]:
    """(steps, seconds) between two files, 0 for what does not count. Raises ValueError for anything else."""
    if every == "epoch":
        return 0, 0.0
    if isinstance(every, int) and not isinstance(every, bool) and every > 0:
        return every, 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h)", every) if isinstance(every, str) else None
    if match is None or not float(match[1]):
        raise ValueError(f"every={every!r}: 'epoch', a number of steps, or a time such as '30s', '10min' or '2h'.")
    return 0, float(match[1]) * UNITS[match[2]]


def _read(file: Path) -> dict:
    """The content of a checkpoint. Raises FileError for any other file, and where a part of it is not as it should."""
    content = load_file(file)
    if not isinstance(content, dict) or (content.get("kind"), content.get("format")) != (KIND, FORMAT):
        raise FileError(f"{file} is not a checkpoint that this version can read.")
    if wrong := [name for name, kind in PARTS.items() if not isinstance(content.get(name), kind)]:
        raise FileError(f"{file} is damaged: {', '.join(wrong)} are not as a checkpoint has them.")
    try:
        return content | {"records": json.loads(content["records"])}
    except (ValueError, RecursionError):
        raise FileError(f"{file} is damaged: its record of the run is no JSON.") from None


@contextmanager
def _in_order(found: dict) -> Iterator[None]:
    """Inside, what a checkpoint holds is used: where it is not what it should be, a FileError says so."""
    try:
        yield
    except ValueError:  # among them those of another architecture, which say it better
        raise
    except Exception as error:  # it can be wrong in any way
        raise FileError(f"{found['file']} holds what no checkpoint of this fit does: {one_line(error, 300)}") from error


def _parts_of(file: Path) -> Path:
    """The folder of a checkpoint's parted tensors, where it has such."""
    return file.with_suffix(".parts")


def _number(file: Path) -> int:
    return int(file.stem.removeprefix("checkpoint-"))


def _has_gradients(learn: Any) -> bool:
    """Whether gradients are accumulating, which no file holds."""
    return learn.automatic and any(p.grad is not None for group in learn.opt.param_groups for p in group["params"])


def _unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that are not part of the model's state dict."""
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    fits = device.type != "mps" or tensor.dtype != torch.float64  # which Apple's GPUs have not
    return tensor.to(device) if fits else tensor


def _say(learn: Any, sentence: str) -> None:
    if learn.ranks.rank == 0 and learn.progress.table:
        print(sentence, flush=True)
