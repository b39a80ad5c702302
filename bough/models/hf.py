"""Bough's own families as transformers' Auto classes know them. Importing this registers them.

    import bough.models.hf
    model = AutoModelForCausalLM.from_pretrained("path/to/model")

The weights in a folder are named as everywhere else, so `load_model` reads what `save_pretrained`
writes. These models run whole sequences, to train and to compare with; they have no cache, and
generate by running everything again. To generate fast, give the folder to `bough.LLM`.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    initialization,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Concatenate, WeightConverter, WeightRenaming
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import can_return_tuple

from bough.expect import expect
from bough.layers.linear import FusedLinear, GroupedLinear
from bough.layers.rope import Rotary
from bough.models.config import read_config
from bough.models.decoder import Decoder
from bough.models.fields import Fields
from bough.models.weights import checkpoint_tensors


class BoughConfig(PreTrainedConfig):
    """What both families say of themselves, in the words of Hugging Face's configs."""

    vocab_size: int = 32000
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-6
    rope_parameters: dict[str, Any] | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    use_cache: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None


class BoughGTAConfig(BoughConfig):
    """Grouped-tied attention: `num_key_value_heads` states of `head_dim`."""

    model_type = "bough_gta"
    num_key_value_heads: int = 4
    head_dim: int = 64


class BoughGLAConfig(BoughConfig):
    """Grouped latent attention: `num_latent_heads` latents of `kv_lora_rank`; with one, MLA."""

    model_type = "bough_gla"
    num_latent_heads: int = 2
    kv_lora_rank: int = 128
    q_lora_rank: int | None = None
    qk_nope_head_dim: int = 64
    qk_rope_head_dim: int = 32
    v_head_dim: int = 64


class BoughForCausalLM(PreTrainedModel, GenerationMixin):
    """A `Decoder` behind transformers' interface."""

    config_class = BoughConfig
    base_model_prefix = "decoder"
    _no_split_modules = ["Block"]  # noqa: RUF012

    def __init__(self, config: BoughConfig) -> None:
        super().__init__(config)
        fields = Fields(config.to_dict(), "config.json")
        self.decoder = Decoder(read_config(fields, Fields({}, "")))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> CausalLMOutput:
        """Score the next token at every position of whole sequences.

        Args:
            input_ids: [batch_size, seq_len] int64.
            attention_mask: [batch_size, seq_len], 1 where there is a token; padding comes last.
            labels: [batch_size, seq_len] int64, the inputs themselves, -100 where none is scored.

        Returns:
            logits [batch_size, seq_len, vocab_size] float32, and with labels the mean loss in
            nats a token.

        Raises:
            ValueError: padding comes before a token.
        """
        if attention_mask is not None:
            is_last = bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all())
            expect(is_last, "attention_mask", "ones, then zeros", "zeros before ones")
        logits = self.decoder.logits(self.decoder.forward_sequences(input_ids))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size)
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Hand all tokens so far to `forward`, whatever else `generate` offers for caches.

        Raises:
            ValueError: prompts differ in length.
        """
        attention_mask = kwargs.get("attention_mask")
        is_full = attention_mask is None or bool(attention_mask.all())
        expect(is_full, "attention_mask", "ones, of prompts of one length", "zeros")
        return {"input_ids": input_ids}

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, **options: Any
    ) -> None:
        """Write config and weights, named as everywhere else; as `PreTrainedModel` does."""
        views = checkpoint_tensors(self.decoder).items()
        state = {name: tensor.detach().contiguous() for name, tensor in views}
        super().save_pretrained(save_directory, *args, **{"state_dict": state, **options})

    def get_input_embeddings(self) -> nn.Module:
        """The embedding, [vocab_size, hidden_size]."""
        return self.decoder.embed_tokens

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FusedLinear | GroupedLinear):
            initialization.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, Rotary):
            initialization.copy_(module.frequencies, module.compute_frequencies())


class BoughGTAForCausalLM(BoughForCausalLM):
    """`BoughForCausalLM` of tied attention."""

    config_class = BoughGTAConfig


class BoughGLAForCausalLM(BoughForCausalLM):
    """`BoughForCausalLM` of latent attention."""

    config_class = BoughGLAConfig


# Which stored projections lie stacked in which parameter; absent ones are passed over.
_STACKS = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.kv_proj", "self_attn.k_rope_proj"),
    "self_attn.qkv_a_proj": (
        "self_attn.q_proj",
        "self_attn.q_a_proj",
        "self_attn.kv_a_proj_with_mqa",
    ),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}


def _register(model_class: type[BoughForCausalLM], *stacks: str) -> None:
    """Make a family known to the Auto classes, and how its stored weights are stacked."""
    config_class = model_class.config_class
    AutoConfig.register(config_class.model_type, config_class)
    AutoModelForCausalLM.register(config_class, model_class)
    stacked = [
        WeightConverter(
            [f"{part}.weight" for part in _STACKS[stack]], f"{stack}.weight", [Concatenate(dim=0)]
        )
        for stack in stacks
    ]
    named = [
        WeightRenaming(r"^model\.", "decoder."),
        WeightRenaming(r"^lm_head\.", "decoder.lm_head."),
    ]
    register_checkpoint_conversion_mapping(config_class.model_type, [*named, *stacked])


_register(BoughGTAForCausalLM, "self_attn.qkv_proj", "mlp.gate_up_proj")
_register(BoughGLAForCausalLM, "self_attn.qkv_a_proj", "mlp.gate_up_proj")
