"""SamplingParams: defaults as vLLM's, and one-line errors."""

from __future__ import annotations

import pytest

from bough.engine.params import SamplingParams


def test_defaults_are_those_of_vllm() -> None:
    params = SamplingParams()
    assert (params.n, params.temperature, params.max_tokens) == (1, 1.0, 16)
    assert (params.top_p, params.top_k, params.min_p) == (1.0, 0, 0.0)
    assert params.stop_strings == () and not params.is_greedy


def test_one_stop_string_is_a_list_of_one() -> None:
    assert SamplingParams(stop="end").stop_strings == ("end",)
    assert SamplingParams(stop=["a", "b"]).stop_strings == ("a", "b")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", True),
        ("n", 1.5),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -2),
        ("top_k", 2.0),
        ("min_p", 1.5),
        ("repetition_penalty", 0),
        ("repetition_penalty", 1e-300),
        ("repetition_penalty", 1e300),
        ("max_tokens", 0),
        ("seed", -1),
        ("logprobs", -1),
        ("stop", [""]),
        ("stop", ["a", ""]),
        ("stop", 3),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", "7"),
        ("ignore_eos", "no"),
        ("skip_special_tokens", None),
    ],
)
def test_a_field_out_of_range_is_named_in_one_line(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must be .*, got .*$") as error:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
