"""Which tests stand for which file, where faults are planted (`mutants.py`)."""

from __future__ import annotations

UNIT = "tests/unit/test_"
TREE = "tests/properties/test_sg_tree.py"
FOLLOW = "tests/properties/test_sg_follow.py"


def _unit(*names: str) -> list[str]:
    return [f"{UNIT}{name}.py" for name in names]


LOSSES = _unit("edges_objectives", "rank_losses")
NLL = [f"{UNIT}pretrain.py::test_{name}" for name in (
    "plain_nll_is_its_formula", "blocked_cross_entropy_and_its_gradient_are_the_plain_ones", "blocks_hold_no_more_than_the_bound",
    "blocked_cross_entropy_with_products_of_bf16_is_near", "blocked_cross_entropy_of_no_positions",
)]  # fmt: skip
CONTRACT = "tests/contracts/test_contracts.py::Test"

GROUPS = {
    "objectives": {
        "objectives/contrastive.py": _unit("edges_objectives", "objectives"),
        "objectives/distil.py": _unit("edges_objectives"),
        "objectives/dual_reg.py": LOSSES,
        "objectives/flops.py": _unit("edges_objectives"),
        "objectives/listwise.py": LOSSES,
        "objectives/masked.py": NLL,
        "objectives/pairwise.py": LOSSES,
        "objectives/pointwise.py": LOSSES,
        "objectives/token_match.py": _unit("rank_losses"),
        "objectives/total.py": _unit("edges_objectives", "objectives"),
    },
    "mining": {
        "mining/cache.py": _unit("edges_samplers", "negative_cache"),
        "mining/corrector.py": _unit("corrector"),
        "mining/draws.py": _unit("edges_mining", "baseline_samplers"),
        "mining/dynnibal.py": _unit("dynnibal"),
        "mining/exhaustive.py": _unit("edges_samplers", "baseline_samplers"),
        "mining/given.py": [*_unit("edges_samplers"), f"{CONTRACT}Given"],
        "mining/mine.py": _unit("edges_mining", "mining"),
        "mining/nystrom.py": _unit("nystrom"),
        "mining/periodic.py": [*_unit("edges_samplers"), f"{CONTRACT}Periodic"],
        "mining/reading.py": _unit("edges_mining", "dynnibal"),
        "mining/sg_edit.py": _unit("kernels_small", "kernels_edit"),
        "mining/sg_follow.py": [*_unit("kernels_small"), FOLLOW],
        "mining/sg_kernels.py": _unit("kernels_small"),
        "mining/sg_tree.py": [*_unit("kernels_small"), TREE],
        "mining/simans.py": _unit("edges_samplers", "simans"),
        "mining/softmax_kernels.py": _unit("kernels_small"),
        "mining/softmax_tree.py": _unit("kernels_small", "softmax_tree"),
        "mining/stochastic.py": _unit("edges_samplers", "baseline_samplers"),
        "mining/uniform.py": [*_unit("edges_samplers"), f"{CONTRACT}Uniform"],
        "mining/warmup.py": _unit("edges_samplers", "dynnibal"),
    },
    "measures": {
        "evaluation/fidelity.py": _unit("edges_measures", "evaluation"),
        "evaluation/measures.py": _unit("edges_measures"),
        "evaluation/significance.py": _unit("edges_measures", "evaluation"),
    },
}
PLAIN = (
    "mining/sg_edit.py",
    "mining/sg_kernels.py",
    "mining/softmax_kernels.py",
)  # kernels: numba's compiler is switched off
