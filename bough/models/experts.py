"""The part of config.json that says which layers have experts, and how they are chosen."""

from __future__ import annotations

from bough.expect import expect
from bough.layers.moe import MoEShape
from bough.models.families import Family
from bough.models.fields import Fields

_METHODS = {"softmax": ("greedy", "group_limited_greedy"), "sigmoid": ("noaux_tc",)}


def read_experts(fields: Fields, family: Family) -> tuple[MoEShape | None, int]:
    """Read DeepSeek's keys for mixtures of experts.

    Returns:
        the mixture, None where every layer is dense; the number of dense layers before it.

    Raises:
        ValueError: a size is missing or cannot be divided, or the routing is of an unknown kind.
    """
    num_layers = fields.integer("num_hidden_layers")
    if family.experts is None or not fields.has("n_routed_experts"):
        return None, num_layers
    num_dense_layers = fields.integer("first_k_dense_replace", minimum=0)
    if num_dense_layers >= num_layers:
        return None, num_layers
    num_experts = fields.integer("n_routed_experts")
    num_groups, num_active_groups = _groups(fields, family.experts)
    frequency = fields.integer("moe_layer_freq", 1)
    expect(frequency == 1, f"{fields.source} moe_layer_freq", "1", frequency)
    scoring = fields.text("scoring_func", family.experts)
    expect(
        scoring == family.experts, f"{fields.source} scoring_func", repr(family.experts), scoring
    )
    is_normed = fields.flag("norm_topk_prob", False)
    if family.experts == "softmax":
        # Published code disagrees on what such weights are scaled by.
        expect(not is_normed, f"{fields.source} norm_topk_prob", "false", is_normed)
    shape = MoEShape(
        num_experts=num_experts,
        num_active=fields.integer("num_experts_per_tok"),
        expert_size=fields.integer("moe_intermediate_size"),
        num_shared=fields.integer("n_shared_experts", 0, minimum=0),
        num_groups=num_groups,
        num_active_groups=num_active_groups,
        scoring=family.experts,
        is_normed=is_normed,
        scaling=fields.number("routed_scaling_factor", 1.0),
    )
    return shape, num_dense_layers


def _groups(fields: Fields, scoring: str) -> tuple[int, int]:
    """How many groups the experts are cut into, and how many of them serve a token."""
    methods = _METHODS[scoring]
    method = fields.text("topk_method", methods[0])
    expectation = " or ".join(map(repr, methods))
    expect(method in methods, f"{fields.source} topk_method", expectation, repr(method))
    if method == "greedy":
        return 1, 1
    return fields.integer("n_group"), fields.integer("topk_group")
