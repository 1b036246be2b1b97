"""What processes tell each other, and how they find each other: in a launch, under torchrun, under SLURM."""

import json
import multiprocessing
import os
import re
import runpy
import socket
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch.distributed import run as torchrun
from warmstart.data.workers import WORKER_LOST
from warmstart.learner import RankError, launch, rank0_first
from warmstart.learner import ranks as ranks_module
from warmstart.learner.ranks import Ranks, _first_host, _slurm, _use_own_device, join

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")


# ---- what they tell each other


def test_values_are_gathered_in_the_order_of_ranks():
    def work():
        ranks = join()
        value = {"rank": ranks.rank, "tensor": torch.full((ranks.rank,), 1.0), "text": "a" * ranks.rank}
        return ranks.gather(value), ranks.where(ranks.rank != 1), ranks.any(ranks.rank == 2), ranks.any(False)

    for gathered, where, some, none in launch(work, nprocs=3):
        assert [part["rank"] for part in gathered] == [0, 1, 2]
        assert [len(part["tensor"]) for part in gathered] == [0, 1, 2] and gathered[2]["text"] == "aa"
        assert where == [0, 2] and some and not none


def test_numbers_and_tensors_are_added_up_and_averaged():
    def work():
        ranks = join()
        mixed = [torch.full((2, 2), float(ranks.rank)), torch.tensor(3.0 * ranks.rank, dtype=torch.float64)]
        channels_last = torch.arange(8.0).view(1, 2, 2, 2).to(memory_format=torch.channels_last) * (ranks.rank + 1)
        ranks.average([*mixed, channels_last])
        weights = [torch.full((2, 3), float(ranks.rank)).t(), torch.tensor(ranks.rank)]
        ranks.copy_first(weights)
        return ranks.total(ranks.rank + 0.5), ranks.sum_tensor(torch.ones(2)), mixed, channels_last, weights

    for total, summed, mixed, channels_last, weights in launch(work, nprocs=3):
        assert total == 4.5 and summed.tolist() == [3, 3]
        assert torch.equal(mixed[0], torch.ones(2, 2)) and mixed[1].item() == 3
        assert torch.equal(channels_last, 2 * torch.arange(8.0).view(1, 2, 2, 2))
        assert torch.equal(weights[0], torch.zeros(3, 2)) and weights[1].item() == 0


def test_ranks_draw_numbers_of_their_own_for_a_while():
    def work():
        torch.manual_seed(0)
        ranks = join()
        ranks.part_random_numbers(torch.device("cpu"))
        own = torch.rand(4).tolist()
        ranks.join_random_numbers(torch.device("cpu"))
        return own, torch.rand(4).tolist()

    found = launch(work, nprocs=3)
    assert len({tuple(own) for own, _ in found}) == 3
    assert found[0][1] == found[1][1] == found[2][1] != found[0][0]


def test_tensors_travel_together_by_kind_but_not_too_many_at_once(monkeypatch):
    def work():
        ranks = join()
        sent = []
        monkeypatch.setattr(torch.distributed, "broadcast", lambda values, **kwargs: sent.append(values.numel()))
        monkeypatch.setattr(ranks_module, "AT_ONCE", 100)
        ranks.copy_first([torch.zeros(n) for n in (10, 20, 5, 7)] + [torch.zeros(3, dtype=torch.long)])
        return sent

    assert launch(work) == [[30, 12, 3]] * 2


def test_batches_come_in_the_order_of_one_process():
    def work():
        ranks = join()
        return ranks.in_turn(list(range(ranks.rank, 8, ranks.n))), ranks.in_turn([])

    assert launch(work, nprocs=3) == [(list(range(8)), [])] * 3


def test_what_the_first_makes_all_have():
    def work(folder):
        ranks = join()
        made = ranks.from_first(lambda: (Path(folder) / "made").write_text(str(ranks.rank)) and {"of": ranks.rank})
        try:
            ranks.from_first(lambda: 1 / 0)
        except (ZeroDivisionError, RankError) as error:
            return made, type(error).__name__, str(error)

    with tempfile.TemporaryDirectory() as folder:
        first, second = launch(work, [folder])
        assert (Path(folder) / "made").read_text() == "0"
    assert first == ({"of": 0}, "ZeroDivisionError", "division by zero")
    assert second[:2] == ({"of": 0}, "RankError") and "Rank 0 failed, and the others with it. ZeroDi" in second[2]


def test_a_wish_of_one_is_known_to_all_with_the_next_number():
    def work():
        ranks = join()
        if ranks.rank == 1:
            ranks.wish("stop")
        before = set(ranks.agreed)
        ranks.total(1)
        return before, ranks.agreed

    assert launch(work) == [(set(), {"stop"})] * 2


def test_one_process_alone_needs_no_group():
    ranks = Ranks()
    tensor = torch.ones(2)
    ranks.average([tensor])
    ranks.copy_first([tensor])
    assert ranks.gather("a") == ["a"] and ranks.in_turn([1, 2]) == [1, 2] and ranks.from_first(lambda: 3) == 3
    assert ranks.total(2.5) == 2.5 and ranks.any(True) and ranks.where(True) == [0]
    assert ranks.sum_tensor(tensor) is tensor and torch.equal(tensor, torch.ones(2))


def test_without_a_launcher_one_is_alone(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    assert (join().rank, join().n) == (0, 1) and not torch.distributed.is_initialized()


def test_rank_0_goes_first_and_an_error_is_one_on_all():
    def work(folder):
        folder, rank = Path(folder), join().rank

        def download():
            (folder / f"{rank}").write_text(" ".join(sorted(file.name for file in folder.iterdir())))
            return rank

        result = rank0_first(download)
        try:
            rank0_first(lambda: 1 / 0 if rank == 1 else rank)
        except (ZeroDivisionError, RankError) as error:
            return result, f"{type(error).__name__}: {error}"

    with tempfile.TemporaryDirectory() as folder:
        found = launch(work, [folder], 3)
        seen = [(Path(folder) / str(rank)).read_text() for rank in range(3)]
    assert [result for result, _ in found] == [0, 1, 2]
    assert seen[0] == "" and all(text.startswith("0") for text in seen[1:])
    assert found[1][1] == "ZeroDivisionError: division by zero"
    assert {found[0][1], found[2][1]} == {
        "RankError: Rank 1 failed, and the others with it. ZeroDivisionError: division by zero"
    }
    assert rank0_first(lambda: "alone") == "alone"


# ---- launch


def in_main(x):
    return x * 10 + join().rank


def test_launch_returns_what_each_rank_does():
    assert launch(in_main, [4], 3) == [40, 41, 42]
    assert launch(lambda: torch.get_num_threads()) == [1, 1]
    assert launch(lambda: (os.environ["LOCAL_RANK"], os.environ["LOCAL_WORLD_SIZE"]), nprocs=1) == [("0", "1")]


def test_a_result_that_cannot_be_sent_is_refused():
    with pytest.raises(
        RankError, match=r"(?s)What <lambda> returns has to be sent.* a generator cannot be: return num"
    ):
        launch(lambda: (i for i in range(3)))


def test_launch_leaves_this_process_as_it_was():
    before = dict(os.environ)
    launch(lambda: None)
    assert dict(os.environ) == before and not torch.distributed.is_initialized()


def test_a_rank_that_raises_is_named_with_its_traceback():
    def work():
        ranks = join()
        if ranks.rank == 1:
            raise KeyError("the tokenizer")
        ranks.gather(0)  # and it does not wait for ever

    start = time.perf_counter()
    with pytest.raises(RankError, match=r"(?s)Rank 1 of 2 failed; the others.*in work\n.*KeyError: 'the tokenizer'"):
        launch(work)
    assert time.perf_counter() - start < 10


def test_a_killed_rank_is_named():
    def work():
        if join().rank == 1:
            os.kill(os.getpid(), 9)
        join().gather(0)

    with pytest.raises(RankError, match="Rank 1 of 2 was ended by SIGKILL; the others have been ended"):
        launch(work)


def test_a_rank_that_leaves_is_named():
    def work():
        if join().rank == 0:
            os._exit(3)
        join().gather(0)

    with pytest.raises(RankError, match="Rank 0 of 2 ended with exit code 3"):
        launch(work)


@pytest.fixture
def short_roll_call(monkeypatch):
    monkeypatch.setattr(ranks_module, "ROLL_CALL", 1.0)


def test_those_that_are_left_name_the_lost_rank(tmp_path, short_roll_call):
    def work():
        ranks = join()
        if ranks.rank == 1:
            os.kill(os.getpid(), 9)
        try:
            ranks.gather(0)
        except RankError as error:
            (tmp_path / str(ranks.rank)).write_text(str(error))

    def survivors(rank):
        os.environ.update(
            RANK=str(rank), WORLD_SIZE="3", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
        work()

    port = free_port()
    run_forked(survivors, 3)
    for rank in (0, 2):
        assert "Rank 1 of 3 has ended or failed, so rank" in (tmp_path / str(rank)).read_text()


def test_of_ranks_that_wait_for_each_other_none_is_accused(tmp_path, short_roll_call):
    def work(rank):
        os.environ.update(
            RANK=str(rank), WORLD_SIZE="5", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
        ranks = join()
        ranks.gather(0)
        if rank == 1:
            os.kill(os.getpid(), 9)
        try:
            ranks.gather(0)  # in which each of five talks to some of the others alone
        except RankError as error:
            (tmp_path / str(rank)).write_text(str(error))

    port = free_port()
    run_forked(work, 5)
    first = (tmp_path / "0").read_text()
    assert re.match(r"Rank 1 of 5 has ended|One of ranks 1, [\d, ]+ of 5 has ended or failed", first), first
    assert all((tmp_path / str(rank)).exists() for rank in (2, 3, 4))


def test_a_rank_that_hangs_is_named_after_the_timeout(short_roll_call):
    def work():
        ranks = join(timeout=1)
        if ranks.rank == 1:
            time.sleep(30)
        try:
            ranks.gather(0)
        except RankError as error:
            raise ValueError(f"Seen by rank 0: {error}") from None

    with pytest.raises(RankError, match=r"Rank 1 of 2 did not come to where rank 0 waited for it. It hangs, does oth"):
        launch(work)


# ---- SLURM


def test_slurms_environment_says_who_one_is():
    environment = {
        "SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[03-06]",
    }  # fmt: skip
    found = _slurm(environment)
    assert found == {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu03", "MASTER_PORT": "20980"}
    assert _slurm(environment | {"SLURM_STEP_ID": "3"})["MASTER_PORT"] != found["MASTER_PORT"]
    assert _slurm(environment | {"SLURM_STEP_NUM_TASKS": "1"}) == {}
    in_a_batch_script = {"SLURM_JOB_ID": "1234", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
    assert _slurm(in_a_batch_script) == {} == _slurm({})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("localhost", "localhost"),
        ("node7", "node7"),
        ("node7,node9", "node7"),
        ("gpu[03-05,9],login", "gpu03"),
        ("gpu[3,7]", "gpu3"),
        ("rack[1-2]-gpu", "rack1-gpu"),
        ("a-b12,c[1-3]", "a-b12"),
    ],
)
def test_the_first_machine_is_the_meeting_point(nodes, first):
    assert _first_host(nodes) == first


def test_two_processes_of_slurm_meet():
    def work(rank, results):
        for name in LAUNCHERS:
            os.environ.pop(name, None)
        os.environ.update(
            SLURM_JOB_ID=str(os.getppid()), SLURM_STEP_ID="0", SLURM_STEP_NUM_TASKS="2", SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank), SLURM_STEP_NODELIST="localhost",
        )  # fmt: skip
        ranks = join(timeout=20)
        results.put((rank, ranks.rank, ranks.n, ranks.local_rank, ranks.total(rank + 1)))

    results = multiprocessing.get_context("fork").SimpleQueue()
    run_forked(work, 2, results)
    assert sorted(results.get() for _ in range(2)) == [(0, 0, 2, 0, 3), (1, 1, 2, 1, 3)]


def test_what_is_set_already_wins_over_slurm(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "2")
    monkeypatch.setenv("RANK", "0")  # of torchrun, within a task of srun
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join().n == 1


def test_each_process_uses_a_device_of_its_own(monkeypatch):
    used = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    _use_own_device(1)
    with pytest.raises(ValueError, match="This is process 2 on its machine, which has 2 GPUs, numbered from 0: start"):
        _use_own_device(2)
    monkeypatch.setenv("SLURM_PROCID", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # srun --gpus-per-task=1 shows no other
    _use_own_device(2)
    assert used == [1, 0]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def run_forked(work, n, *args):
    """Run `work(rank)` in n processes that have nothing but the environment in common."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank, *args)) for rank in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode is not None, "it hangs"


# ---- scripts

SCRIPT = """
import json, os, sys, torch
from torch import nn
from torch.utils.data import TensorDataset
from warmstart.data import DataBunch
from warmstart.learner import Learner, accuracy, set_seed

set_seed(0)
torch.set_num_threads(1)
x = torch.randn(61, 4)
dataset = TensorDataset(x, (x.sum(1) > 0).long())
data = DataBunch.from_dsets(dataset, dataset, bs=24 // int(os.environ.get("WORLD_SIZE", 1)), val_bs=7, device="cpu")
learn = Learner(data, nn.Linear(4, 2), nn.CrossEntropyLoss(), metrics=accuracy, lr=0.1).to_distributed(timeout=60)
with learn.no_bar():
    learn.fit_one_cycle(2)
preds, targs = learn.get_preds()
found = {"weights": learn.model.weight.tolist(), **learn.validate(), "preds": preds.tolist(), "targs": targs.tolist()}
with open(os.path.join(sys.argv[1], str(learn.ranks.rank)), "w") as file:
    json.dump(found, file)
"""


def run_script(folder, *commands):
    """What each rank found, and what was printed: by the script itself, or under torchrun with such arguments."""
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT)

    def run(number):
        with (folder / f"printed {number}").open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        for name in LAUNCHERS:
            os.environ.pop(name, None)
        os.environ["OMP_NUM_THREADS"] = "1"
        if commands[number] is None:
            sys.argv = [str(script), str(folder)]
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # pytest has put another in its place
            runpy.run_path(str(script), run_name="__main__")
            sys.stdout.flush()
        else:
            torchrun.main([*commands[number], str(script), str(folder)])

    run_forked(run, len(commands))
    printed = "".join(file.read_text() for file in folder.glob("printed *"))
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("[0-9]"))]
    assert found, printed
    return found, printed


def test_a_script_runs_unchanged_alone_under_torchrun_and_on_two_machines(tmp_path):
    port = str(free_port())
    (alone,), printed = run_script(tmp_path / "alone", None)
    assert len(re.findall(r"^ *[01] +\d", printed, re.MULTILINE)) == 2, printed
    machine = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port]
    several = {
        "torchrun": [["--standalone", "--nproc-per-node", "2"]],
        "machines": [[*machine, "--node-rank", "0"], [*machine, "--node-rank", "1"]],
    }
    for name, commands in several.items():
        found, printed_there = run_script(tmp_path / name, *commands)
        assert found[0] == found[1] and len(found) == 2
        assert found[0].keys() == alone.keys() and found[0]["targs"] == alone["targs"]
        assert found[0]["accuracy"] == alone["accuracy"]
        for key in ("weights", "preds", "valid_loss"):
            torch.testing.assert_close(torch.tensor(found[0][key]), torch.tensor(alone[key]), atol=1e-6, rtol=0)
        assert len(re.findall(r"^ *[01] +\d", printed_there, re.MULTILINE)) == 2, printed_there


def test_a_lost_worker_of_a_loader_is_not_taken_for_a_lost_rank():
    lost = RuntimeError(f"ConnectionResetError: [Errno 104] Connection reset by peer. {WORKER_LOST}")
    with pytest.raises(RuntimeError, match="ended from outside") as caught, Ranks(rank=1, n=2).watched():
        raise lost
    assert caught.value is lost
