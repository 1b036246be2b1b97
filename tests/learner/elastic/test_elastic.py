"""Runs of several processes, on several machines, of which some are lost: torchrun starts them again."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from warmstart.learner import Checkpoint, launch

from .namespaces import address, machines, why_not
from .train import N_ITEMS, train

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked, and their networks parted")

SCRIPT = Path(__file__).with_name("train.py")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
NOT_HERE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = 180  # seconds in which a run is over, on a busy machine too


class Run:
    """A run of `train.py` in `folder`: launchers that are started and waited for, and what came out."""

    def __init__(self, folder):
        self.folder = folder
        self.launchers = []

    def plan(self, epoch, batch, rank, incident):
        (self.folder / "incidents").mkdir(exist_ok=True)
        (self.folder / "incidents" / f"{epoch}-{batch}-{rank}-{incident}").touch()

    def start(self, *options, machine=(), **environment):
        """Start torchrun with such options, on a machine."""
        command = [*machine, sys.executable, "-m", "torch.distributed.run", *options, str(SCRIPT), str(self.folder)]
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_HERE}
        with (self.folder / f"printed-{len(self.launchers)}.txt").open("w") as file:
            launcher = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=inherited | ENVIRONMENT | environment
            )
        self.launchers.append(launcher)
        return launcher

    def under_srun(self, n):
        """The exit codes of `n` processes that go about it as if SLURM had started them."""

        def task(rank):
            os.environ.update(
                SLURM_JOB_ID=str(os.getppid()), SLURM_STEP_ID="0", SLURM_STEP_NUM_TASKS=str(n),
                SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), SLURM_STEP_NODELIST="localhost",
            )  # fmt: skip
            train(self.folder)

        tasks = [multiprocessing.get_context("fork").Process(target=task, args=(rank,)) for rank in range(n)]
        for process in tasks:
            process.start()
        for process in tasks:
            process.join(PATIENCE)
        return [process.exitcode for process in tasks]

    def wait(self, launcher):
        """The exit code of a launcher, which has to come to its end."""
        try:
            return launcher.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"It hangs.\n{self.printed()}") from None

    def printed(self):
        files = sorted(self.folder.glob("printed-*.txt"))
        return "\n".join(f"---- {file.name}\n{file.read_text()}" for file in files)

    def results(self):
        """What the ranks of the last round came to."""
        found = [torch.load(file) for file in sorted(self.folder.glob("result-*.pt"))]
        assert found, self.printed()
        return found

    def end(self):
        """Kill what is still there: all that has the folder in its command line."""
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if os.fsencode(self.folder) in (place / "cmdline").read_bytes():
                    os.kill(int(place.name), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        for launcher in self.launchers:
            launcher.wait(PATIENCE)


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    yield run
    run.end()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What each of `n` processes comes to that are left alone."""
    results = {}

    def result_of(n):
        if n not in results:
            results[n] = launch(train, [tmp_path_factory.mktemp("undisturbed")], n)
        return results[n]

    return result_of


def check_items(result):
    for items in result["items"]:
        assert sorted(items) == list(range(N_ITEMS))


# ---- one machine

ONE_MACHINE = ["--standalone", "--nproc-per-node", "2"]


def test_a_killed_process_is_started_again_and_all_end_as_if_nothing_had_been(run, undisturbed):
    run.plan(1, 5, 0, "kill")
    assert run.wait(run.start(*ONE_MACHINE, "--max-restarts", "1")) == 0, run.printed()
    assert "epoch 2 of 2, after batch 5." in run.printed()  # an epoch has 9 steps, and there is a checkpoint every 2
    assert run.results() == undisturbed(2)
    check_items(run.results()[0])


def test_a_run_that_torchrun_is_told_to_end_goes_on_by_the_same_command(run, undisturbed):
    run.plan(1, 2, 1, "end")
    assert run.wait(run.start(*ONE_MACHINE, "--max-restarts", "9")) == 1, run.printed()  # it is not started again
    assert "SIGTERM: the run is in" in run.printed()
    assert launch(train, [run.folder], 2) == undisturbed(2)


def test_of_processes_of_srun_all_leave_with_the_code_when_one_is_told(run, undisturbed):
    run.plan(1, 2, 1, "tell")
    assert run.under_srun(2) == [Checkpoint.EXIT_CODE] * 2
    assert launch(train, [run.folder], 2) == undisturbed(2)


# ---- several machines

REASON = why_not() if sys.platform == "linux" else "network namespaces are Linux's"
on_machines = pytest.mark.skipif(REASON is not None, reason=str(REASON))
RENDEZVOUS = "join_timeout=60,last_call_timeout=1,keep_alive_interval=1"


def start_on(run, machine, number, nodes):
    """Start torchrun on a machine, which meets the others at the first."""
    return run.start(
        *("--nnodes", nodes, "--nproc-per-node", "1", "--max-restarts", "3", "--local-addr", address(number)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{address(0)}:29400", "--rdzv-id", "test"),
        *("--rdzv-conf", f"is_host={int(number == 0)},{RENDEZVOUS}"),
        machine=machine,
        GLOO_SOCKET_IFNAME="eth0",  # the address of the machine's name is not that of this card
        TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",  # else a machine that comes later waits for ever, in torch 2.14
    )


@on_machines
def test_a_process_and_then_a_machine_are_lost_and_replaced(run, undisturbed):
    run.plan(0, 3, 1, "kill")
    run.plan(1, 3, 2, "lose")
    with machines(3) as found:
        first, second, third = (start_on(run, machine, number, "3") for number, machine in enumerate(found))
        assert run.wait(third) == -signal.SIGKILL, run.printed()
        replacement = start_on(run, found[2], 2, "3")
        assert [run.wait(launcher) for launcher in (first, second, replacement)] == [0, 0, 0], run.printed()
    # three gradients are added up in an order that DistributedDataParallel changes after its first step
    torch.testing.assert_close(run.results(), undisturbed(3), rtol=1e-5, atol=1e-6)
    check_items(run.results()[0])


@on_machines
def test_where_fewer_machines_may_do_those_that_are_left_go_on(run, undisturbed):
    run.plan(0, 3, 1, "unplug")
    with machines(3) as found:
        first, second, third = (start_on(run, machine, number, "2:3") for number, machine in enumerate(found))
        codes = [run.wait(launcher) for launcher in (first, second, third)]
    assert codes == [0, -signal.SIGKILL, 0], run.printed()
    results = run.results()
    assert len(results) == 2 and results[0] == results[1] and results[0]["n"] == 2
    check_items(results[0])  # each once in each epoch, those of the epoch that was shared out anew as well
    torch.testing.assert_close(results[0]["losses"][:2], undisturbed(3)[0]["losses"][:2])  # before it
