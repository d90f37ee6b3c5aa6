"""The dimensions and switches of a GPT-2, as config.json gives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlgpt.errors import BadCheckpoint, UnsupportedModel
from xlgpt.model.json_object import read_object

ACTIVATIONS = ("gelu_new", "gelu", "relu")

# Keys that never change the arithmetic of inference: names, training, generation, labels of other heads.
HARMLESS = frozenset(
    """
    _commit_hash _name_or_path _num_labels architectures attn_pdrop bad_words_ids begin_suppress_tokens
    bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping embd_pdrop eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    gradient_checkpointing id2label initializer_range label2id length_penalty max_length min_length
    model_type n_ctx name_or_path no_repeat_ngram_size num_beam_groups num_beams num_labels
    num_return_sequences output_attentions output_hidden_states output_past output_scores pad_token_id
    prefix problem_type remove_invalid_values reorder_and_upcast_attn repetition_penalty resid_pdrop
    return_dict return_dict_in_generate sep_token_id summary_activation summary_first_dropout
    summary_proj_to_labels summary_type summary_use_proj suppress_tokens task_specific_params temperature
    tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p
    use_bfloat16 use_cache
    """.split()
)


@dataclass(frozen=True)
class GPT2Config:
    """A GPT-2 configuration; fields are the keys of the Hub's config.json and mean the same."""

    n_layer: int
    n_head: int
    n_embd: int
    n_positions: int
    vocab_size: int
    n_inner: int
    layer_norm_epsilon: float = 1e-5
    activation_function: str = "gelu_new"
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def unembedding(self) -> str:
        """The tensor [V, D] that logits are read with: the token embeddings, where the two are tied."""
        return "wte.weight" if self.tie_word_embeddings else "lm_head.weight"

    def attn_divisor(self, layer: int) -> float:
        """What a block's attention scores are divided by (Vaswani et al. 2017, and config.json's two switches)."""
        scale = self.d_head**0.5 if self.scale_attn_weights else 1.0
        return scale * (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale


def weight_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, by its name in the checkpoint (GPT2LMHeadModel's, without `transformer.`).

    A row of c_attn, c_fc or c_proj belongs to an input, a column to an output (the checkpoint's Conv1D).
    """
    d, inner = config.n_embd, config.n_inner
    block = {
        **_norm("ln_1", d),
        **_conv1d("attn.c_attn", d, 3 * d),
        **_conv1d("attn.c_proj", d, d),
        **_norm("ln_2", d),
        **_conv1d("mlp.c_fc", d, inner),
        **_conv1d("mlp.c_proj", inner, d),
    }
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (config.vocab_size, d), "wpe.weight": (config.n_positions, d)}
    shapes |= {f"h.{layer}.{name}": shape for layer in range(config.n_layer) for name, shape in block.items()}
    shapes |= _norm("ln_f", d)
    return shapes if config.tie_word_embeddings else shapes | {"lm_head.weight": (config.vocab_size, d)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _conv1d(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}


def read_config(path: Path) -> GPT2Config:
    """Read the Hub's config.json. Raises BadCheckpoint, UnsupportedModel."""
    return parse_config(read_object(path, BadCheckpoint), str(path))


def parse_config(raw: Mapping[str, Any], where: str) -> GPT2Config:
    """Turn config.json's content into a GPT2Config, refusing by name what would change the arithmetic."""
    if raw.get("model_type", "gpt2") != "gpt2":
        raise UnsupportedModel(f"{where} describes a model of type {raw['model_type']!r}; xlgpt builds GPT-2 only.")
    fields: dict[str, Any] = {
        key: _whole(raw, key, where) for key in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
    }
    fields["n_inner"] = 4 * fields["n_embd"] if raw.get("n_inner") is None else _whole(raw, "n_inner", where)
    for key, kind in _OPTIONAL.items():
        if key in raw:
            if not isinstance(raw[key], kind):
                raise BadCheckpoint(f"{where}: {key} is {raw[key]!r}, which is no {kind[-1].__name__}.")
            fields[key] = raw[key]
    for key, value in raw.items():
        if key not in fields and key not in HARMLESS and value not in (None, False, {}, []):
            raise UnsupportedModel(
                f"{where} sets {key} = {value!r}, which xlgpt does not know; it may change the arithmetic. "
                "Remove the line if you know that it does not."
            )
    config = GPT2Config(**fields)
    _validate(config, where)
    return config


_OPTIONAL: dict[str, tuple[type, ...]] = {
    "layer_norm_epsilon": (int, float),
    "activation_function": (str,),
    "scale_attn_weights": (bool,),
    "scale_attn_by_inverse_layer_idx": (bool,),
    "tie_word_embeddings": (bool,),
}


def _whole(raw: Mapping[str, Any], key: str, where: str) -> int:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadCheckpoint(f"{where}: {key} is {value!r}; it must be a whole number of at least 1.")
    return value


def _validate(config: GPT2Config, where: str) -> None:
    if config.n_embd % config.n_head:
        raise BadCheckpoint(f"{where}: n_embd {config.n_embd} is not a multiple of n_head {config.n_head}.")
    if config.activation_function not in ACTIVATIONS:
        raise UnsupportedModel(
            f"{where} sets activation_function = {config.activation_function!r}; xlgpt knows {', '.join(ACTIVATIONS)}."
        )
    if not 0 < config.layer_norm_epsilon < 1:
        raise BadCheckpoint(
            f"{where}: layer_norm_epsilon is {config.layer_norm_epsilon!r}; it must lie between 0 and 1."
        )
