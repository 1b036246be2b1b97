import gc
import time
from dataclasses import dataclass

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset, WeightedRandomSampler
from torchvision.transforms import v2
from warmstart.data import Block, Dataset, DeviceLoader, ItemError, RegressionBlock, Transform
from warmstart.data.loaders import EpochSampler, make_loader
from warmstart.data.transforms import as_transforms

cpu = torch.device("cpu")


@dataclass
class Noise(Transform):
    def __call__(self, sample, rand):
        if rand is None:
            return sample
        value, noise = sample[0], rand.uniform(1)
        return (value + (noise.view(-1, *[1] * (value.ndim - 1)) if value.ndim else noise[0, 0]),)


def numbers(n=10, **kwargs):
    return Dataset(list(range(n)), [RegressionBlock()], [None], training=True, **kwargs)


def loader(dataset=None, bs=4, num_workers=0, batch_tfms=(), shuffle=True, **kwargs):
    dataset = numbers() if dataset is None else dataset
    dl = make_loader(dataset, bs, num_workers, cpu, shuffle, **kwargs)
    return DeviceLoader(dl, cpu, batch_tfms, dataset.blocks, training=True)


def epoch_of(dl, epoch=0):
    """The values of one epoch, batch by batch."""
    dl.set_epoch(epoch)
    return [batch[0].tolist() for batch in dl]


def flat(batches):
    return [value for batch in batches for value in batch]


# ---- the order of an epoch


def test_the_order_depends_on_seed_and_epoch_alone():
    orders = {(seed, epoch): epoch_of(loader(numbers(seed=seed)), epoch) for seed in (0, 1) for epoch in (0, 1)}
    for order in orders.values():
        assert sorted(flat(order)) == list(range(10))
    assert len({str(order) for order in orders.values()}) == 4
    torch.manual_seed(3)
    dl = loader(numbers(seed=1))
    assert [epoch_of(dl, epoch) for epoch in (1, 0, 1)] == [orders[1, 1], orders[1, 0], orders[1, 1]]


def test_without_shuffling_items_come_in_order():
    dl = loader(shuffle=False)
    assert epoch_of(dl, 5) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(dl) == dl.n_batches == 3 and dl.bs == 4
    assert epoch_of(loader(shuffle=False, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_complete_pass_moves_on_to_the_next_epoch():
    dl = loader()
    orders = [epoch_of(dl, epoch) for epoch in range(3)]
    dl.set_epoch(0)
    assert [[batch[0].tolist() for batch in dl] for _ in range(3)] == orders
    dl.set_epoch(1)
    next(iter(dl))  # a pass that ends early does not
    assert [batch[0].tolist() for batch in dl] == orders[1]


def test_loading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    for num_workers in (0, 2):
        list(loader(num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), before)


# ---- a sampler of one's own


def test_a_sampler_replaces_shuffling_and_is_asked_anew_each_epoch():
    weights = [0.0] * 5 + [1.0] * 5
    dl = loader(order=WeightedRandomSampler(weights, num_samples=20))
    assert len(dl) == 5
    first, second = epoch_of(dl, 0), epoch_of(dl, 1)
    assert set(flat(first)) <= {5, 6, 7, 8, 9} and len(flat(first)) == 20
    torch.rand(7)
    assert epoch_of(dl, 0) == first != second


def test_a_list_of_positions_is_a_sampler():
    assert epoch_of(loader(order=[3, 1, 3])) == [[3, 1, 3]]


def test_a_distributed_sampler_learns_the_epoch():
    sampler = DistributedSampler(range(10), num_replicas=2, rank=0, shuffle=True, seed=3)
    dl = loader(order=sampler)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert flat(epoch_of(dl, epoch)) == list(sampler)


def test_a_generator_is_no_sampler():
    with pytest.raises(TypeError, match="asked anew each epoch, and a generator is used up by the first: pass a list"):
        EpochSampler(3, False, 0, iter_positions())


def iter_positions():
    yield 0


# ---- random numbers


@pytest.mark.parametrize("num_workers", [1, 2])
def test_samples_are_the_same_with_any_number_of_workers(num_workers):
    tfms = as_transforms([v2.GaussianNoise(), lambda value: value + torch.rand(1)])
    ds = Dataset(list(range(10)), [Block()], [lambda i: torch.full((1, 2, 2), float(i))], tfms, training=True, seed=1)
    alone, helped = loader(ds, batch_tfms=[Noise()]), loader(ds, num_workers=num_workers, batch_tfms=[Noise()])
    epochs = [epoch_of(alone, epoch) for epoch in range(2)]
    assert epochs[0] != epochs[1]
    assert [epoch_of(helped, epoch) for epoch in range(2)] == epochs


def test_an_item_is_augmented_the_same_in_any_batch():
    results = []
    for bs, num_workers in [(1, 0), (3, 0), (10, 2)]:
        ds = numbers(item_tfms=[Noise()])
        dl = loader(ds, bs, num_workers, [Noise()])
        results.append({int(value): value for value in flat(epoch_of(dl, 2))})
    assert results[0] == results[1] == results[2]


def test_item_and_batch_stage_draw_different_numbers():
    (item,) = flat(epoch_of(loader(numbers(1, item_tfms=[Noise()]))))
    (batch,) = flat(epoch_of(loader(numbers(1), batch_tfms=[Noise()])))
    assert item != batch and 0 < item < 1 and 0 < batch < 1


def test_batch_transforms_that_draw_globally_follow_from_the_first_item():
    dl = loader(batch_tfms=as_transforms(lambda value: value + torch.rand(value.shape)))
    first = epoch_of(dl, 0)
    torch.manual_seed(9)
    assert epoch_of(dl, 0) == first != epoch_of(dl, 1)


def test_validation_has_no_randomness():
    ds = numbers(item_tfms=[Noise()])
    ds.training = False
    dl = DeviceLoader(make_loader(ds, 4, 0, cpu), cpu, [Noise()], ds.blocks, training=False)
    assert flat(epoch_of(dl)) == list(range(10))


def test_the_first_batch_comes_without_workers_and_does_not_disturb_a_pass():
    dl = loader(num_workers=2)
    expected = epoch_of(dl, 0)
    dl.set_epoch(0)
    batches = iter(dl)
    assert next(batches)[0].tolist() == dl.first_batch()[0].tolist() == expected[0]
    assert [batch[0].tolist() for batch in batches] == expected[1:]
    assert loader(numbers(3), drop_last=True).first_batch() is None
    assert loader(numbers(0), shuffle=False).first_batch() is None


# ---- workers


def fails_on(*bad):
    def getter(item):
        if item in bad:
            raise ValueError("two\nlines")
        return item

    return getter


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_is_one_sentence_with_and_without_workers(num_workers):
    ds = Dataset(list(range(10)), [RegressionBlock()], [fails_on(7)])
    dl = DeviceLoader(make_loader(ds, 4, num_workers, cpu), cpu, blocks=ds.blocks)
    with pytest.raises(ItemError) as error:
        list(dl)
    assert str(error.value) == "get_x (getter) failed on item 7 of 10 (7): two\nlines; your function gets a int"
    assert error.value.__cause__ is None or num_workers == 0


def test_an_epoch_after_an_error_in_a_worker_is_complete():
    ds = Dataset(list(range(10)), [RegressionBlock()], [fails_on(7)], training=True)
    dl = loader(ds, num_workers=2, order=[0, 7, 1, 2, 3, 4])
    with pytest.raises(ItemError):
        list(dl)
    dl.dl.sampler.order = [5, 4, 3, 2, 1, 0]
    assert flat(epoch_of(dl)) == [5, 4, 3, 2, 1, 0]


def test_a_pass_that_is_left_early_does_not_spoil_the_next():
    dl = loader(num_workers=2, bs=1)
    for _ in dl:
        break
    assert sorted(flat(epoch_of(dl))) == list(range(10))


def test_a_second_pass_ends_the_first_where_they_share_workers():
    dl = loader(num_workers=1, bs=1)
    first, second = iter(dl), iter(dl)
    next(first), next(second)
    with pytest.raises(RuntimeError, match=r"Another pass over this loader has begun.*num_workers=0"):
        next(first)
    assert len(list(second)) == 9


def test_workers_end_at_once_where_their_loader_lies_in_a_reference_cycle():
    dl = loader(num_workers=2)
    list(dl)
    workers = dl.dl._iterator._workers
    dl.myself = dl
    del dl
    start = time.perf_counter()
    gc.collect()
    assert time.perf_counter() - start < 3  # torch alone takes 5 seconds for each
    assert not any(worker.is_alive() for worker in workers)


def test_two_passes_without_workers_go_side_by_side():
    dl = loader()
    assert all(torch.equal(a[0], b[0]) for a, b in zip(dl, dl, strict=True))


# ---- another batch size, fewer batches, the same ones


@pytest.mark.parametrize("num_workers", [0, 2])
def test_other_batches_hold_the_same_items_in_the_same_order_with_the_same_numbers(num_workers):
    dl = loader(numbers(item_tfms=[Noise()]), bs=4, num_workers=num_workers, batch_tfms=[Noise()])
    other = dl.with_bs(3)
    assert [len(batch) for batch in epoch_of(other, 1)] == [3, 3, 3, 1] and other.bs == 3 and dl.bs == 4
    assert flat(epoch_of(other, 2)) == flat(epoch_of(dl, 2))
    assert [flat(epoch_of(one.with_bs(5), 0)) for one in (dl, other)] == [flat(epoch_of(dl, 0))] * 2


def test_other_batches_are_dropped_sampled_and_limited_as_before():
    dl = loader(bs=2, order=[3, 1, 3, 2, 5], drop_last=True)
    dl.limit = 2
    assert epoch_of(dl) == [[3, 1], [3, 2]] and epoch_of(dl.with_bs(1)) == [[3], [1]]
    assert epoch_of(dl.with_bs(4)) == [[3, 1, 3, 2]]
    with pytest.raises(ValueError, match="bs=6: there are fewer items, and the loader drops an incomplete batch"):
        dl.with_bs(6)


def test_a_loader_of_ones_own_keeps_its_settings_with_another_batch_size():
    def double(samples):
        return torch.stack([x for (x,) in samples]) * 2

    own = DataLoader(
        TensorDataset(torch.arange(10)), 4, collate_fn=double, num_workers=1, prefetch_factor=3, timeout=60
    )
    other = DeviceLoader(own, cpu).with_bs(5)
    assert [batch.tolist() for batch in other] == [[0, 2, 4, 6, 8], [10, 12, 14, 16, 18]]
    assert (other.dl.num_workers, other.dl.prefetch_factor, other.dl.timeout) == (1, 3, 60)


def test_a_stream_comes_in_batches_of_another_size():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(7))

    assert [batch.tolist() for batch in DeviceLoader(DataLoader(Stream(), 2), cpu).with_bs(4)] == [
        [0, 1, 2, 3],
        [4, 5, 6],
    ]


@pytest.mark.parametrize("dl", [[torch.zeros(2)], DataLoader([0, 1, 2], batch_sampler=[[0, 1], [2]])])
def test_batches_that_no_batch_size_has_made_cannot_have_another(dl):
    with pytest.raises(TypeError, match=r"Only a DataLoader with a batch_size can have another: \w+ has its own"):
        DeviceLoader(dl, cpu).with_bs(2)


def test_a_limit_holds_for_a_replay_as_well():
    dl = loader()
    list(dl)
    dl.replay, dl.limit = [1, 2, 3], 2
    assert list(dl) == [1, 2] and len(dl) == 2 and dl.items is None
    dl.limit = None
    assert list(dl) == [1, 2, 3] and len(dl) == 3


def test_the_seed_is_the_datasets_where_it_has_one():
    assert loader(numbers(seed=5)).seed == 5
    assert DeviceLoader([1], cpu).seed is None and DeviceLoader(DataLoader([1]), cpu).seed is None


# ---- any loader


def test_any_re_iterable_of_batches_is_a_loader():
    x = torch.arange(6.0)
    for dl in ([(x, x)], ((x, x),), DataLoader(TensorDataset(x, x), batch_size=6)):
        wrapped = DeviceLoader(dl, cpu)
        assert len(wrapped) == 1 and wrapped.sampler is None
        (batch,) = wrapped
        assert torch.equal(batch[0], x)
        wrapped.set_epoch(3)  # nothing to tell


class Stream(IterableDataset):
    epoch = None

    def __iter__(self):
        return iter(torch.arange(5.0))

    def set_epoch(self, epoch):
        self.epoch = epoch


def test_a_stream_has_no_length_and_learns_the_epoch():
    stream = Stream()
    dl = DeviceLoader(DataLoader(stream, batch_size=2), cpu)
    assert dl.n_batches is None and dl.dataset is stream
    assert flat(batch.tolist() for batch in dl) == [0, 1, 2, 3, 4]
    dl.set_epoch(4)
    assert stream.epoch == 4


@pytest.mark.parametrize("dl, message", [
    (iter([1]), "list_iterator can be read only once, a loader is read every epoch"),
    (iter_positions(), "generator can be read only once"),
    (TensorDataset(torch.zeros(3)), r"TensorDataset gives samples, not batches: use DataBunch\.from_dsets"),
    (numbers(), "Dataset gives samples, not batches"),
    (3, "A loader is a DataLoader or anything else that gives batches when iterated, not 3"),
])  # fmt: skip
def test_what_is_no_loader_is_named(dl, message):
    with pytest.raises(TypeError, match=message):
        DeviceLoader(dl, cpu)


class RestartedLoader(DataLoader):
    """Its own iterator, which begins anew whenever it is asked for: Ray Train prepares such."""

    def __iter__(self):
        self.rest = super().__iter__()
        return self

    def __next__(self):
        return next(self.rest)


def test_a_loader_that_is_its_own_iterator_is_read_every_epoch():
    dl = DeviceLoader(RestartedLoader(TensorDataset(torch.arange(4)), 2), cpu)
    assert [[batch[0].tolist() for batch in dl] for _ in range(2)] == [[[0, 1], [2, 3]]] * 2


def test_a_batch_holds_at_least_one_item():
    with pytest.raises(ValueError, match="bs=0: a batch holds at least one item"):
        make_loader(numbers(), 0, 0, cpu)


def test_the_items_of_the_last_batch_are_known():
    dl = loader(shuffle=False)
    assert dl.items is None
    for batch in dl:
        assert dl.items == batch[0].tolist()


def test_batch_transforms_get_the_values_typed_and_give_plain_tensors():
    seen = []
    ds = Dataset([1.0], [RegressionBlock()], [None])
    dl = DeviceLoader(make_loader(ds, 1, 0, cpu), cpu, as_transforms(lambda v: seen.append(type(v)) or v), ds.blocks)
    (batch,) = dl
    assert seen == [torch.Tensor] and isinstance(batch, tuple) and type(batch[0]) is torch.Tensor
