"""Values of tensors that come and go."""

import gc

import torch

from l0prune.discovery.by_tensor import ByTensor


def test_tensors_are_told_apart_by_identity() -> None:
    known, x = ByTensor[int](), torch.ones(3)
    assert not known
    known[x] = 1
    assert (known.get(x), known.get(torch.ones(3)), known.get(x.view(3))) == (1, None, None)
    known[x] = 2
    assert (known.pop(x), known.get(x), known.pop(x)) == (2, None, None)


def test_a_tensor_in_the_place_of_one_that_is_gone_has_no_value() -> None:
    known, places = ByTensor[str](), set[int]()
    for _ in range(200):
        x = torch.ones(1)
        assert known.get(x) is None
        known[x] = "told"
        places.add(id(x))
        del x
    assert len(places) < 200


def test_values_of_tensors_that_are_gone_are_forgotten_and_others_stay() -> None:
    class Value:
        alive = 0

        def __init__(self) -> None:
            Value.alive += 1

        def __del__(self) -> None:
            Value.alive -= 1

    known = ByTensor[Value]()
    held = [torch.ones(1) for _ in range(300)]
    for x in held:
        known[x] = Value()
    for _ in range(10):
        gone = [torch.ones(1) for _ in range(500)]
        for x in gone:
            known[x] = Value()
        del gone, x
    gc.collect()
    assert all(known.get(x) is not None for x in held)
    assert Value.alive < 300 + 2500
