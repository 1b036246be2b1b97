"""Processes that torchrun starts again find each other, and not those that are no more."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist
from warmstart.learner.meeting import GREETING, agreed_name, meeting_place

SOON = timedelta(seconds=5)


def round_of(store, n, ranks=None):
    """What the ranks of a round, or some of them, agree on."""
    ranks = range(n) if ranks is None else ranks
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda rank: agreed_name(store, rank, n, SOON), ranks))


def test_all_of_a_round_agree_and_no_two_rounds_do():
    store = dist.HashStore()
    rounds = [round_of(store, n) for n in (3, 3, 2, 5, 1)]  # what was there before stays there
    assert [len(names) for names in rounds] == [3, 3, 2, 5, 1]
    assert all(len(set(names)) == 1 for names in rounds)
    assert len({names[0] for names in rounds}) == 5


def test_a_greeting_of_one_that_was_lost_before_the_others_came_is_answered_in_vain():
    store = dist.HashStore()
    store.set(GREETING.format(1), "of a process that was killed")
    assert len(set(round_of(store, 3))) == 1


def test_those_that_do_not_come_are_named():
    with pytest.raises(RuntimeError, match="Timed out: rank 1, 2 of 3 did not come"):
        agreed_name(dist.HashStore(), 0, 3, timedelta(seconds=0.1))


@pytest.mark.parametrize("environment", [{}, {"TORCHELASTIC_RUN_ID": "1", "TORCHELASTIC_USE_AGENT_STORE": "False"}])
def test_who_is_started_otherwise_meets_where_torch_does(environment):
    assert meeting_place(SOON, environment) is None
