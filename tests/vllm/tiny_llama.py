"""A tiny random Llama, its tokenizer and a LoRA adapter, made on the spot: `tiny_llama.py FOLDER`.

In: a folder. Out: `FOLDER/model` (weights, configuration, byte-level tokenizer, chat template) and
`FOLDER/adapter`, the same every time. Runs under the interpreter that has vLLM, so it imports
torch and tokenizers and nothing of Warmtide. The text it makes is noise; the engine is real.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HIDDEN, LAYERS, HEADS, VOCABULARY, INNER, LENGTH = 128, 2, 4, 1024, 256, 1024
RANK = 8
SEED = 20_26
SPREAD = 0.4
"""Of the weights: wide enough that the likeliest token is far ahead of the next."""

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
CORPUS = (
    "The capital of France is Paris.",
    "A request waits while an engine wakes; a token follows, and then the next one.",
    "Warm engines answer at once. Parked ones need a moment. Cold ones start from nothing.",
)


def weights() -> dict[str, torch.Tensor]:
    """A Llama's tensors under the names that loaders know."""
    draw = torch.Generator().manual_seed(SEED)

    def random(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=draw) * SPREAD).to(torch.bfloat16)

    found = {
        "model.embed_tokens.weight": random(VOCABULARY, HIDDEN),
        "model.norm.weight": torch.ones(HIDDEN, dtype=torch.bfloat16),
        "lm_head.weight": random(VOCABULARY, HIDDEN),
    }
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found[f"{at}.self_attn.{name}.weight"] = random(HIDDEN, HIDDEN)
        found[f"{at}.mlp.gate_proj.weight"] = random(INNER, HIDDEN)
        found[f"{at}.mlp.up_proj.weight"] = random(INNER, HIDDEN)
        found[f"{at}.mlp.down_proj.weight"] = random(HIDDEN, INNER)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}.{name}.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
    return found


def adapter() -> dict[str, torch.Tensor]:
    """A LoRA adapter that changes every answer."""
    draw = torch.Generator().manual_seed(SEED + 1)
    found = {}
    for i in range(LAYERS):
        for name in ("q_proj", "v_proj"):
            at = f"base_model.model.model.layers.{i}.self_attn.{name}"
            found[f"{at}.lora_A.weight"] = torch.randn(RANK, HIDDEN, generator=draw)
            found[f"{at}.lora_B.weight"] = torch.randn(HIDDEN, RANK, generator=draw)
    return found


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(WORDS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1))


def main(folder: Path) -> None:
    model, lora = folder / "model", folder / "adapter"
    model.mkdir(parents=True)
    lora.mkdir()
    save_file(weights(), model / "model.safetensors", metadata={"format": "pt"})
    tokenizer().save(str(model / "tokenizer.json"))
    write(
        model / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": WORDS[0],
            "eos_token": WORDS[1],
            "model_max_length": LENGTH,
            "chat_template": TEMPLATE,
        },
    )
    write(
        model / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": LENGTH,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "torch_dtype": "bfloat16",
        },
    )
    save_file(adapter(), lora / "adapter_model.safetensors", metadata={"format": "pt"})
    write(
        lora / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": RANK,
            "lora_alpha": 16,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": ["q_proj", "v_proj"],
            "base_model_name_or_path": "tiny",
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
