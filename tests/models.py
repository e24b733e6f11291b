"""Small models with random weights, in directories as Hugging Face leaves them: real architectures, a real tokenizer."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPTNeoXConfig, LlamaConfig, PreTrainedTokenizerFast

BOS, EOS = 0, 1
SIZE = 300
TEXTS = [
    "The river runs down from the mountain to the sea.",
    "A city by the sea, a church on an island: Ünïcödé 日本.",
    "Number theory is a part of mathematics; 1, 2, 3.",
]
_SHAPE: dict[str, Any] = {
    "num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": SIZE,
    "max_position_embeddings": 128, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**_SHAPE, num_key_value_heads=2),
    "pythia": lambda: GPTNeoXConfig(**_SHAPE),
    "gemma3": lambda: Gemma3TextConfig(**_SHAPE, num_key_value_heads=2, head_dim=16, sliding_window=16),
}


def tokenizer(size: int = SIZE) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of so many tokens, trained on a few sentences."""
    bytes_alone = Tokenizer(models.BPE())
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_alone.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    bytes_alone.train_from_iterator(TEXTS * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bytes_alone, bos_token="<s>", eos_token="</s>")


def write_model(folder: Path, family: str = "llama", seed: int = 0) -> Path:
    """A model of a family, with weights that make its states worth looking at."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(FAMILIES[family](), dtype=torch.float32)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2:
                weights.mul_(5)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
