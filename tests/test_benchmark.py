"""The benchmark: counting work, taking turns, and missing peers."""

import sys
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from omni import OmniModel
from omni.errors import ConfigError
from scripts import benchmark, benchmark_sides


def test_training_flop_agrees_with_torch_counting():
    torch.manual_seed(0)
    config = benchmark_sides.our_config(width=64, depth=2)
    model = OmniModel(config)
    batch = benchmark_sides.large_batch(config)
    with FlopCounterMode(display=False) as counter:
        benchmark_sides.our_step(model, lambda: batch)()
    counted = counter.get_flop_counts()["Global"]
    products = sum(flop for op, flop in counted.items() if "mm" in str(op))
    pairs = int(benchmark_sides.dense_mask(batch.attention).sum())
    attention = 12 * config.num_layers * config.num_heads * config.head_dim * pairs
    assert benchmark_sides.training_flop(config, batch) - attention == pytest.approx(
        products, rel=0.05
    )  # AdaLN is left out


def test_large_batch_has_the_stated_tokens_and_no_padding():
    batch = benchmark_sides.large_batch(benchmark_sides.our_config(width=64, depth=1))
    assert batch.num_tokens == batch.ids.numel() == benchmark_sides.LARGE_TOKENS


def _short(device: str) -> benchmark_sides.Variants:
    return {"quick": lambda: time.sleep(0.02), "slow": lambda: time.sleep(0.2)}


def _long(device: str) -> benchmark_sides.Variants:
    return {"only": lambda: time.sleep(0.1)}


def _unusable(device: str) -> benchmark_sides.Variants:
    raise ConfigError("the peer needs something")


def test_measure_takes_the_fastest_variant_and_compares_rates():
    row = benchmark.Row(_short, _long, "naps/s", lambda: (1, 1), "naps")
    figure, chosen = benchmark.measure(row, rounds=3)
    assert chosen == ("quick", "only")
    assert figure.ratio == pytest.approx(5, rel=0.5) and figure.unit == "naps/s" and figure.peak_memory_mb > 1


def test_a_side_that_cannot_run_is_an_error():
    row = benchmark.Row(_short, _unusable, "naps/s", lambda: (1, 1), "naps")
    with pytest.raises(ConfigError, match="the peer needs something"):
        benchmark.measure(row, rounds=1)


def test_a_missing_peer_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transfusion_pytorch", None)
    with pytest.raises(ConfigError, match=r"omni-transfusion\[bench\]"):
        benchmark_sides.peer_model()


def test_page_and_arguments_name_every_row():
    figure = benchmark.Figure(2.0, 1.0, 2.0, "tokens/s", 100.0)
    results = dict.fromkeys(benchmark.ROWS, figure)
    text = benchmark.page(results, dict.fromkeys(results, ("a", "b")), rounds=3, clock="wall")
    for name in benchmark.ROWS:
        assert f"| `{name}` | 2 | 1 | 2.00 | tokens/s | 100 | a; b |" in text
        assert benchmark.parse_arguments(["--only", name]).only == [name]
