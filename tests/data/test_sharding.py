import random
from itertools import zip_longest

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from warmstart.data import Block, DataBlock, DataBunch, IndexSplitter, RandomSplitter
from warmstart.data.loaders import DeviceLoader
from warmstart.data.sharding import Shard, deal

cpu = torch.device("cpu")
sizes = {"n_items": st.integers(0, 60), "bs": st.integers(1, 9), "n": st.integers(1, 5), "drop_last": st.booleans()}


def flat(batches):
    return [item for batch in batches for item in batch]


def own(pairs):
    """The batches that count."""
    return [list(batch) for batch, spare in pairs if not spare]


def in_turn(parts):
    """The batches of all processes, one of each at a time."""
    nothing = object()
    rounds = zip_longest(*parts, fillvalue=nothing)
    return [batch for dealt in rounds for batch in dealt if batch is not nothing]


def one_process(n_items, bs, drop_last):
    batches = [list(range(n_items))[start : start + bs] for start in range(0, n_items, bs)]
    return [batch for batch in batches if len(batch) == bs or not drop_last]


# ---- which batches a process gets


@given(**sizes, even=st.booleans())
def test_evaluation_deals_the_batches_of_one_process(n_items, bs, n, drop_last, even):
    shards = [Shard(rank, n, even=even) for rank in range(n)]
    parts = [list(shard.batches(range(n_items), bs, drop_last)) for shard in shards]
    assert in_turn([own(part) for part in parts]) == one_process(n_items, bs, drop_last)
    n_batches = len(one_process(n_items, bs, drop_last))
    assert [len(part) for part in parts] == [shard.count(n_batches) for shard in shards]
    if even:
        assert len({len(part) for part in parts}) == 1


@given(**sizes)
def test_a_round_of_training_holds_the_items_of_one_large_batch(n_items, bs, n, drop_last):
    parts = [list(Shard(rank, n, training=True).batches(range(n_items), bs, drop_last)) for rank in range(n)]
    assert len({len(part) for part in parts}) == 1
    rounds = [flat(batch for batch, spare in dealt if not spare) for dealt in zip(*parts, strict=True)]
    assert rounds == one_process(n_items, bs * n, drop_last)
    for dealt in zip(*parts, strict=True):
        sizes = [0 if spare else len(batch) for batch, spare in dealt]
        assert max(sizes) - min(sizes) <= 1 and max(sizes) <= bs
        assert all(len(batch) for batch, _ in dealt)


@given(st.integers(0, 20), st.integers(1, 5), st.booleans(), st.booleans())
def test_whole_batches_are_dealt_without_loss_or_doubling(n_batches, n, training, even):
    parts = [list(deal(range(n_batches), Shard(rank, n, training, even))) for rank in range(n)]
    assert in_turn([[batch for batch, spare in part if not spare] for part in parts]) == list(range(n_batches))
    assert [len(part) for part in parts] == [Shard(rank, n, training, even).count(n_batches) for rank in range(n)]
    if training or even:
        assert len({len(part) for part in parts}) <= 1


# ---- loaders of all kinds


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(23))


class ShuffledStream(IterableDataset):
    """Draws its order from the global generators."""

    def __iter__(self):
        order = list(range(23))
        random.shuffle(order)
        yield from (order[int(i)] for i in torch.randperm(23))


class ReadsBackwards(DataLoader):
    """A loader whose class has a way of its own to read."""

    def __iter__(self):
        return reversed(list(super().__iter__()))


def items(n=23):
    return list(range(n))


def from_block(shuffle=True, num_workers=0, **kwargs):
    block = DataBlock((Block, Block), splitter=IndexSplitter(range(23, 28)), get_x=float, get_y=float)
    kwargs = {"bs": 4, "drop_last": False, **kwargs}
    return block.databunch(list(range(28)), device="cpu", seed=1, shuffle=shuffle, num_workers=num_workers, **kwargs)


LOADERS = {
    "DataBlock": lambda: from_block().train_dl,
    "DataBlock with a sampler": lambda: from_block(sampler=list(range(22, -1, -1))).train_dl,
    "from_dsets": lambda: DataBunch.from_dsets(TensorDataset(torch.arange(24)), bs=4, device="cpu", seed=1).train_dl,
    "from_dsets, not shuffled": lambda: DataBunch.from_dsets(items(), items(), bs=4, device="cpu", seed=1).valid_dl,
    "shuffle": lambda: DataLoader(items(), 4, shuffle=True),
    "shuffle, own generator": lambda: DataLoader(items(), 4, shuffle=True, generator=torch.Generator()),
    "weighted": lambda: DataLoader(items(), 4, sampler=WeightedRandomSampler([1.0] * 23, 31)),
    "batch sampler": lambda: DataLoader(items(), batch_sampler=BatchSampler(RandomSampler(items()), 4, False)),
    "list of batches": lambda: [torch.arange(i, i + 4) for i in range(0, 23, 4)],
    "iterable": lambda: DataLoader(Stream(), 4),
    "shuffled iterable": lambda: DataLoader(ShuffledStream(), 4),
    "class of its own": lambda: ReadsBackwards(items(), 4),
}
each_loader = pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)


def parts_of(make, n=3, training=True, even=False, seed=7):
    """The loaders of n processes, each of which makes its own."""
    loaders = []
    for rank in range(n):
        dl = make()
        dl = dl if isinstance(dl, DeviceLoader) else DeviceLoader(dl, cpu)
        loaders.append(dl.sharded(Shard(rank, n, training, even), seed))
    return loaders


def read(dl):
    """The items of each batch, and whether it is a spare one; as different processes have other random states."""
    torch.manual_seed(random.SystemRandom().getrandbits(32))
    random.seed()
    found = []
    for batch in dl:
        values = batch[0] if isinstance(batch, (list, tuple)) else batch
        found.append(([int(value) for value in values], dl.spare))
    return found


def read_all(loaders, epoch=0):
    for dl in loaders:
        dl.set_epoch(epoch)
    return [read(dl) for dl in loaders]


@each_loader
@pytest.mark.parametrize("training", [True, False])
def test_processes_share_any_loader_without_loss_or_doubling(make, training):
    alone = DeviceLoader(dl, cpu) if not isinstance(dl := make(), DeviceLoader) else dl
    expected = sorted(flat(batch for batch, _ in read(alone)))
    parts = read_all(parts_of(make, training=training))
    found = flat(batch for part in parts for batch, spare in part if not spare)
    if len(set(expected)) == len(expected):  # and nothing is drawn twice
        assert sorted(found) == expected
    assert len(found) == len(expected)
    if training:
        assert len({len(part) for part in parts}) == 1


@each_loader
def test_an_epoch_has_the_same_order_for_all_and_every_time(make):
    loaders = parts_of(make)
    first, again, other = read_all(loaders, 1), read_all(loaders, 1), read_all(parts_of(make), 1)
    assert first == again == other
    batches = in_turn([[batch for batch, _ in part] for part in read_all(parts_of(make, training=False), 1)])
    assert flat(own(pair for dealt in zip(*first, strict=True) for pair in dealt)) == flat(batches)


@pytest.mark.parametrize("name", ["shuffle", "weighted", "batch sampler", "shuffled iterable", "DataBlock"])
def test_each_epoch_and_each_seed_has_another_order(name):
    orders = [read_all(parts_of(LOADERS[name], seed=seed), epoch) for seed in (7, 8) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_round_of_our_loaders_is_a_batch_of_one_process(num_workers, shuffle):
    whole = from_block(shuffle, bs=12).train_dl
    for epoch in (0, 3):
        whole.set_epoch(epoch)
        expected = [batch for batch, _ in read(whole)]
        parts = read_all(parts_of(lambda: from_block(shuffle, num_workers).train_dl, seed=1), epoch)
        rounds = [flat(batch for batch, spare in dealt if not spare) for dealt in zip(*parts, strict=True)]
        assert rounds == expected


def test_evaluation_reads_the_batches_of_one_process_in_turn():
    whole = [batch for batch, _ in read(from_block(val_bs=2).valid_dl)]
    parts = read_all(parts_of(lambda: from_block(val_bs=2).valid_dl, n=2, training=False))
    assert in_turn([own(part) for part in parts]) == whole == [[23, 24], [25, 26], [27]]
    even = read_all(parts_of(lambda: from_block(val_bs=2).valid_dl, n=2, training=False, even=True))
    assert [len(part) for part in even] == [2, 2] and [own(part) for part in even] == [own(part) for part in parts]


def test_a_process_that_has_no_item_of_the_last_round_gets_a_spare_one():
    parts = read_all(parts_of(lambda: DataLoader(items(13), 4), n=3))
    assert [part[-1] for part in parts] == [([12], True), ([12], True), ([12], False)]


def test_a_loader_that_parts_its_items_itself_stays_as_it_is():
    for wrap in (lambda s: DataLoader(items(), 4, sampler=s),
                 lambda s: DataLoader(items(), batch_sampler=BatchSampler(s, 4, False)),
                 lambda s: from_block(sampler=s).train_dl):  # fmt: skip
        loaders = []
        for rank in range(2):
            dl = wrap(DistributedSampler(items(), num_replicas=2, rank=rank, shuffle=False))
            dl = dl if isinstance(dl, DeviceLoader) else DeviceLoader(dl, cpu)
            loaders.append(dl.sharded(Shard(rank, 2, training=True), 7))
        parts = [flat(batch for batch, _ in part) for part in read_all(loaders)]
        assert parts == [list(range(0, 23, 2)), [*range(1, 23, 2), 0]]


def test_a_batch_sampler_is_parted_before_anything_is_read():
    class Noting(list):
        seen = ()

        def __getitem__(self, i):
            self.seen = [*self.seen, i]
            return super().__getitem__(i)

    dataset = Noting(items())
    dl = DeviceLoader(DataLoader(dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 4, False)), cpu)
    part = dl.sharded(Shard(1, 3), 0)
    assert len(part) == 2 and own(read(part)) == [[4, 5, 6, 7], [16, 17, 18, 19]]
    assert sorted(dataset.seen) == [4, 5, 6, 7, 16, 17, 18, 19]


def test_reading_in_turn_leaves_the_global_generators_alone():
    dl, _ = parts_of(LOADERS["shuffled iterable"], n=2)
    before = torch.get_rng_state(), random.getstate()
    for _ in dl:
        pass
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]


# ---- lengths, limits, and what is left of an epoch


@each_loader
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("limit", [None, 1, 2, 9])
def test_a_loader_knows_its_length_where_it_can(make, training, limit):
    for dl in parts_of(make, training=training):
        dl.limit = limit
        n = len(read(dl))
        if not isinstance(getattr(dl.dl, "dataset", None), IterableDataset):
            assert len(dl) == dl.n_batches == n


@each_loader
@pytest.mark.parametrize(("training", "even"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_is_one_of_rounds_in_training_and_of_all_batches_in_evaluation(make, training, even, limit):
    n = 2
    whole = read_all(parts_of(make, n, training, even))
    loaders = parts_of(make, n, training, even)
    for dl in loaders:
        dl.limit = limit
    parts = read_all(loaders)
    if training:
        assert parts == [part[:limit] for part in whole]
    else:
        assert in_turn([own(part) for part in parts]) == in_turn([own(part) for part in whole])[:limit]
    if training or even:
        assert len({len(part) for part in parts}) == 1


@each_loader
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("begin", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("limit", [None, 2])
def test_a_pass_that_begins_later_gives_the_rest_of_the_epoch(make, n, begin, limit):
    if n == 1 and not isinstance(make(), DeviceLoader):
        make = only_ordered(make)
    loaders = parts_of(make, n)
    for dl in loaders:
        dl.limit = limit
    whole = read_all(loaders, 2)
    for dl in loaders:
        dl.begin = begin
    assert read_all(loaders, 2) == [part[begin:] for part in whole]
    assert read_all(loaders, 2) == whole


def only_ordered(make):
    """A loader in one process whose order is not its own affair: the sampler of torch draws it anew."""
    dl = make()
    if isinstance(dl, DataLoader) and not isinstance(dl.sampler, SequentialSampler):
        return lambda: [torch.tensor(batch) for batch, _ in read(DeviceLoader(DataLoader(items(), 4), cpu))]
    return LOADERS["list of batches"] if isinstance(getattr(dl, "dataset", None), ShuffledStream) else make


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_read_the_rest_of_an_epoch_and_then_whole_ones(num_workers):
    for dl in parts_of(lambda: from_block(num_workers=num_workers).train_dl, 2):
        whole = read_all([dl], 1)
        for begin, limit in [(1, None), (2, 2), (1, 2)]:
            dl.begin, dl.limit = begin, limit
            assert read_all([dl], 1) == [part[begin:limit] for part in whole]
        dl.limit = None
        assert read_all([dl], 1) == whole


def test_other_batch_sizes_are_parted_from_the_same_order():
    loaders = [dl.with_bs(2) for dl in parts_of(lambda: from_block().train_dl, 2, seed=1)]
    whole = from_block(bs=4).train_dl
    for dl in (*loaders, whole):
        dl.set_epoch(1)
    parts = [read(dl) for dl in loaders]
    rounds = [flat(batch for batch, spare in dealt if not spare) for dealt in zip(*parts, strict=True)]
    assert rounds == [batch for batch, _ in read(whole)]
    assert len(loaders[0]) == len(parts[0]) == 6


def test_a_databunch_parts_all_its_loaders():
    data = from_block()
    part = data.sharded(1, 2, [5, 6])
    assert part.train_dl.shard == Shard(1, 2, training=True) and part.valid_dl.shard == Shard(1, 2)
    assert data.train_dl.shard == Shard() and part.train_ds is data.train_ds and part.vocab == data.vocab


def test_augmentation_is_that_of_one_process():
    block = DataBlock(
        (Block, Block), splitter=RandomSplitter(0.2, seed=0), get_x=float, get_y=float,
        item_tfms=lambda value: value + random.random(), 
    )  # fmt: skip

    def make():
        return block.databunch(list(range(20)), bs=4, device="cpu", seed=3, drop_last=False).train_dl

    def epoch_of(n):
        loaders = parts_of(make, n, seed=3)
        for dl in loaders:
            dl.set_epoch(4)
        return sorted(value for dl in loaders for batch in dl for value in batch[0].tolist())

    assert epoch_of(1) == epoch_of(3)
    assert len(set(epoch_of(3))) == 16
