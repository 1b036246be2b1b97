"""Fits that go on where they stopped: `Checkpoint` writes all that a fit is, and the same script run again reads it.

    learn.fit_one_cycle(10, cbs=Checkpoint("run"))

However the process ended – a reboot, `kill -9`, a full queue – running the script again continues to the same weights,
to the bit on the same machine. A run that is done is recognised and not repeated.

What is written is in `fit_state.py`, how in `checkpoint_folder.py`; here is when, and what happens when a fit begins.
"""

import re
import time
import warnings
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..callbacks.core import Callback, CancelFit
from ..data.randomness import set_generator_states
from .checkpoint_folder import CheckpointFolder, in_order
from .differences import differences
from .environment import environment_changes
from .fit_state import fit_state, random_states, set_callbacks, set_fit_state, set_model, set_random_states
from .run_record import run_record, save_record
from .stop_signals import StopSignals

__all__ = ["Checkpoint"]

UNITS = {"s": 1, "min": 60, "h": 3600}


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
    before can go on, though not to the same bits; with three or more the last digit may differ, as DDP adds up
    their gradients in another order in its first step.

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
        self.files, self.signals = CheckpointFolder(self.folder, keep), StopSignals()
        self.records: list[dict] = []  # of all fits of this run, this one's last
        self.done = False  # whether this fit had been done before
        self.last_steps, self.last_time = 0, 0.0  # of the last file
        self.place: dict[str, int] = {}  # of the next batch
        self.at_epoch: dict[str, Any] = {}  # random states when the epoch began
        self.at_end: dict[str, Any] = {}  # and when its training had ended, while it is validated

    # ---- a fit begins

    def before_fit(self, learn: Any) -> None:
        self.done, self.last_steps, self.last_time = False, 0, time.monotonic()
        learn.ranks.agreed.clear()
        record, number = learn.ranks.from_first(lambda: run_record(learn, without=[self])), learn.fits_done
        found = self.files.newest(learn.ranks, learn.model)
        self.records = found["records"][:number] if found else []
        if found and len(found["records"]) > number:
            with in_order(found["file"]):
                self._compare(found["records"][number], record)
                self.done = len(found["records"]) > number + 1 or found["finished"]
                self._take_result(learn, found) if self.done else self._go_on(learn, found)
        self.records += [{}] * (number - len(self.records)) + [record]  # fits without a checkpoint have none
        if self.done:
            raise CancelFit
        learn.ranks.from_first(lambda: save_record({"fits": self.records}, self.folder / "run.json"))
        self.signals.watch(lambda: learn.ranks.wish("stop"))

    def _compare(self, before: dict, now: dict) -> None:
        """Raise ValueError where the run has another recipe or other data than it had."""
        if before and not self.allow_changes and (changes := differences(before, now)):
            raise ValueError(
                f"{self.folder} holds a run that differs from this one: {'; '.join(changes)}. Take another folder for "
                "a new run, put it back as it was, or go on all the same with Checkpoint(…, allow_changes=True)."
            )
        if before and (changes := environment_changes(before, now)):
            warnings.warn(f"The last digits of this run may change: {'; '.join(changes)}.", stacklevel=2)

    def _take_result(self, learn: Any, found: dict) -> None:
        """Set what the fit ended with; or of a later fit, which will go on from all of the file, what it was at."""
        _say(learn, f"{self.folder} holds the result of this fit, which was done before: nothing is trained.")
        learn.epochs_begun = found["place"]["epochs_begun"]
        if len(found["records"]) > learn.fits_done + 1:
            set_model(learn, found, found["file"])
        else:
            set_fit_state(learn, found, found["file"])
            set_random_states(learn, _of_this_rank(found["random"], learn.ranks.rank))

    def _go_on(self, learn: Any, found: dict) -> None:
        place, n = found["place"], learn.ranks.n
        batches, rest = divmod(place["batches"] * place["n_ranks"] * place["bs"], n * (learn.data.bs or 1))
        if rest:
            warnings.warn(f"Some items of this epoch come twice: {place['n_ranks']} processes began it.", stacklevel=2)
        where = f"epoch {place['epoch'] + 1} of {learn.n_epoch}" + (f", after batch {batches}" if batches else "")
        _say(learn, f"Going on from {found['file']}: {where}.")
        learn.first_epoch, learn.first_batch, learn.epochs_begun = place["epoch"], batches, place["epochs_begun"]
        learn.restore = lambda: self._restore(learn, found)
        set_callbacks(learn, found)  # for what they do when the fit begins

    def _restore(self, learn: Any, found: dict) -> None:
        """Set all that the file holds."""
        with in_order(found["file"]):
            set_fit_state(learn, found, found["file"])
            learn.train_iter, learn.n_steps = found["place"]["train_iter"], found["place"]["n_steps"]
            self.last_steps = learn.n_steps
            now, begun = (_of_this_rank(found[name], learn.ranks.rank) for name in ("random", "at_epoch"))
            set_random_states(learn, begun if learn.first_batch else now)
            if learn.first_batch:  # the loader is read to there, from the state that it began with
                learn.data.train_dl.when_begun = lambda: set_generator_states(now, learn.data.device)
                self.at_epoch = begun

    # ---- it is written

    def before_train(self, learn: Any) -> None:
        self.at_epoch = self.at_epoch or random_states(learn)

    def after_batch(self, learn: Any) -> None:
        if learn.training:
            self._note_place(learn, learn.epoch, learn.iter + 1, learn.epochs_begun - 1, learn.train_iter + 1)
            if self.seconds and time.monotonic() - self.last_time >= self.seconds:
                learn.ranks.wish("save")
        due = "save" in learn.ranks.agreed or (self.steps and learn.n_steps - self.last_steps >= self.steps)
        if (learn.training or self.at_end) and not _has_gradients(learn):
            self._write_if(bool(due), learn)

    def after_train(self, learn: Any) -> None:
        self.at_end = random_states(learn)
        self._note_place(learn, learn.epoch, learn.n_iter or learn.iter + 1, learn.epochs_begun - 1, learn.train_iter)

    def after_validate(self, learn: Any) -> None:
        if learn.fitting:
            self.at_end = {}

    def after_epoch(self, learn: Any) -> None:
        self.at_epoch, self.at_end = {}, {}
        self._note_place(learn, learn.epoch + 1, 0, learn.epochs_begun, learn.train_iter)
        self._write_if(self.every == "epoch" and learn.epoch + 1 < learn.n_epoch, learn)

    def after_fit(self, learn: Any) -> None:
        if not self.done:
            self._note_place(learn, learn.n_epoch, 0, learn.epochs_begun, learn.train_iter)
            self._write(learn, finished=True)
        self.signals.unwatch()

    def after_cancel_fit(self, learn: Any) -> None:
        self.at_epoch, self.at_end = {}, {}
        self.signals.unwatch()

    def _note_place(self, learn: Any, epoch: int, batches: int, epochs_begun: int, train_iter: int) -> None:
        self.place = {"epoch": epoch, "batches": batches, "epochs_begun": epochs_begun, "train_iter": train_iter,
                      "n_steps": learn.n_steps, "n_ranks": learn.ranks.n, "bs": learn.data.bs or 1}  # fmt: skip

    def _write_if(self, due: bool, learn: Any) -> None:
        """Write where that is due or the process is to stop; and then do stop."""
        stop = "stop" in learn.ranks.agreed
        if due or stop:
            self._write(learn)
        if stop:
            why = self.signals.received or "Another process was told to stop"
            _say(learn, f"{why}: the run is in {self.folder}. Run the same script again to go on.")
            raise SystemExit(self.EXIT_CODE)

    def _write(self, learn: Any, finished: bool = False) -> None:
        learn.ranks.agreed.discard("save")
        self.last_steps, self.last_time = learn.n_steps, time.monotonic()
        random = learn.ranks.gather((self.at_end or random_states(learn), self.at_epoch))
        content = {
            "finished": finished,
            "place": self.place,
            "random": [now for now, _ in random],
            "at_epoch": [begun for _, begun in random],
            **fit_state(learn),
        }
        self.files.write(content, self.records, learn.ranks)


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


def _of_this_rank(values: list, rank: int) -> Any:
    """What belongs to a rank; where there were fewer of them, what another had."""
    return values[rank % len(values)]


def _has_gradients(learn: Any) -> bool:
    """Whether gradients are accumulating, which no file holds."""
    return learn.automatic and any(p.grad is not None for group in learn.opt.param_groups for p in group["params"])


def _say(learn: Any, sentence: str) -> None:
    if learn.ranks.rank == 0 and learn.progress.table:
        print(sentence, flush=True)
