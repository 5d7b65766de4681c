"""Writes all-MiniLM-L6-v2, given as a directory with safetensors and a vocabulary, as an F16 GGUF for llama.cpp."""

import json
import struct
import sys
from pathlib import Path

import gguf
import numpy as np

LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
EMBEDDINGS = {
    "word_embeddings": "token_embd",
    "position_embeddings": "position_embd",
    "token_type_embeddings": "token_types",
    "LayerNorm": "token_embd_norm",
}


def tensors(path):
    """Yields name and array of each tensor: a length, a JSON header, then the data."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    for name, info in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        kind = {"F32": np.float32, "F16": np.float16, "I64": np.int64}[info["dtype"]]
        begin, end = (8 + length + at for at in info["data_offsets"])
        yield name, np.frombuffer(data[begin:end], kind).reshape(info["shape"])


def name_in_gguf(name):
    """The name that llama.cpp gives the tensor, or None for what it does not use."""
    stem, _, kind = name.removeprefix("bert.").rpartition(".")
    if stem.startswith("embeddings.") and stem.removeprefix("embeddings.") in EMBEDDINGS:
        return f"{EMBEDDINGS[stem.removeprefix('embeddings.')]}.{kind}"
    if stem.startswith("encoder.layer."):
        number, _, part = stem.removeprefix("encoder.layer.").partition(".")
        return f"blk.{number}.{LAYER[part]}.{kind}"
    return None


def token(text):
    """llama.cpp's WordPiece marks what begins a word, where BERT marks what goes on."""
    if text.startswith("[") and text.endswith("]"):
        return text
    return text[2:] if text.startswith("##") else "\u2581" + text


def main(source, target):
    config = json.loads((source / "config.json").read_text())
    vocabulary = (source / "vocab.txt").read_text(encoding="utf-8").splitlines()
    special = {text: number for number, text in enumerate(vocabulary) if text.startswith("[") and text.endswith("]")}
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("bert-bge")
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_token_list([token(text) for text in vocabulary])
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if text in special else kinds.NORMAL for text in vocabulary])
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_eos_token_id(special["[SEP]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_mask_token_id(special["[MASK]"])
    for name, array in tensors(source / "model.safetensors"):
        target_name = name_in_gguf(name)
        if target_name is None:
            continue
        small = array.ndim == 1 or target_name in ("position_embd.weight", "token_types.weight")
        writer.add_tensor(target_name, array.astype(np.float32 if small else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main(Path(sys.argv[1]), sys.argv[2])
