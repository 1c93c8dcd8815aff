"""Writes a Llama checkpoint as GGUF in f32, and lets llama.cpp quantize it: `to_gguf.py CHECKPOINT FOLDER`.

Runs in a python that has gguf, safetensors and llama-cpp-python. llama.cpp turns neighbouring elements of a head where
the checkpoint turns its two halves, so the rows of q and k are put in that order, as its own converter does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from safetensors.numpy import load_file

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
TYPES = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}


def name_of(ours: str) -> str:
    stem = ours.removesuffix(".weight")
    if stem in ENDS:
        return f"{ENDS[stem]}.weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.weight"


def turned(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a projection [heads * size, in], from halves to neighbours."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write(checkpoint: Path, out: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    count = config["vocab_size"]
    writer.add_token_list([f"w{number}".encode() for number in range(count)])
    writer.add_token_scores([0.0] * count)
    writer.add_token_types([gguf.TokenType.NORMAL] * count)
    for name, weight in load_file(checkpoint / "model.safetensors").items():
        if name.endswith("q_proj.weight"):
            weight = turned(weight, heads)
        if name.endswith("k_proj.weight"):
            weight = turned(weight, kv_heads)
        writer.add_tensor(name_of(name), np.ascontiguousarray(weight, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(checkpoint: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / f"{checkpoint.name}-f32.gguf"
    write(checkpoint, whole)
    for name, kind in TYPES.items():
        settings = llama_cpp.llama_model_quantize_default_params()
        settings.ftype, settings.nthread = kind, 1
        out = folder / f"{checkpoint.name}-{name}.gguf"
        if llama_cpp.llama_model_quantize(str(whole).encode(), str(out).encode(), settings):
            sys.exit(f"{out}: llama.cpp could not quantize it")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
