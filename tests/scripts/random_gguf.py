"""Writes a small model of random weights as a GGUF file, for llama.cpp: large models' shapes in a few megabytes.

python random_gguf.py ARCHITECTURE OUT.gguf --vocabulary MODEL.gguf [--pieces N] [--layers N] [--width N] [--experts N]
                      [--window TOKENS] [--quant TYPE] [--seed N]

The tokenizer and the chat template are those of the model MODEL.gguf. The weights follow from the seed alone. With pieces, the
files are OUT-00001-of-0000N.gguf and so on; the path of each file is printed.
"""

import argparse
import logging
import math
import sys

import gguf
import numpy as np

# Attention kernels of GPUs are made for few sizes of a head; all of them have this one.
HEAD = 64
# Logits with this deviation are sure enough of the best token that another order of additions does not change it.
LOGIT_DEVIATION = 3.0
# The same where the output has the weights of the embedding: with more, the last token would be the best next one.
TIED_LOGIT_DEVIATION = 1.5
# What a layer of gemma3 adds, beside embeddings that are multiplied by the root of the width.
POST_NORM = 4.0
# Tokens such as the end of a text are never the best one, so that answers have the length that was asked for.
CONTROL_SCALE = 0.01
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9, "mxfp4": 38}


class Model:
    """Metadata and tensors of one architecture."""

    dense = True
    tied = True

    def __init__(self, options, vocabulary):
        self.options = options
        self.width = options.width
        self.heads = max(2, self.width // 32)
        self.kv_heads = self.heads // 2
        self.feed_forward = 2 * self.width
        self.vocabulary = vocabulary
        self.random = np.random.default_rng(options.seed)

    def metadata(self):
        """Keys below the architecture's name; whole numbers are unsigned."""
        keys = {
            "context_length": 8192,
            "embedding_length": self.width,
            "block_count": self.options.layers,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": HEAD,
            "attention.value_length": HEAD,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.dimension_count": HEAD,
            "rope.freq_base": 10000.0,
        }
        if not self.dense:
            keys |= {
                "expert_count": self.options.experts,
                "expert_used_count": 2,
                "expert_feed_forward_length": self.width,
            }
        return keys

    def tensors(self):
        """Yields name and values of each; matrices as rows of outputs."""
        yield "token_embd.weight", self.embedding(TIED_LOGIT_DEVIATION / math.sqrt(self.width) if self.tied else 1.0)
        yield "output_norm.weight", self.norm(self.width)
        if not self.tied:
            yield "output.weight", self.embedding(LOGIT_DEVIATION / math.sqrt(self.width))
        for layer in range(self.options.layers):
            for name, values in self.layer(layer):
                yield f"blk.{layer}.{name}", values

    def layer(self, layer):
        yield "attn_norm.weight", self.norm(self.width)
        yield from self.attention()
        yield "ffn_norm.weight", self.norm(self.width)
        yield from self.feed_forward_tensors(layer)

    def attention(self):
        for name, heads in [("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)]:
            yield f"attn_{name}.weight", self.matrix(heads * HEAD, self.width)
        yield "attn_output.weight", self.matrix(self.width, self.heads * HEAD)

    def feed_forward_tensors(self, _layer):
        yield "ffn_gate.weight", self.matrix(self.feed_forward, self.width)
        yield "ffn_up.weight", self.matrix(self.feed_forward, self.width)
        yield "ffn_down.weight", self.matrix(self.width, self.feed_forward)

    def expert_tensors(self, fused=False):
        experts = self.options.experts
        yield "ffn_gate_inp.weight", self.matrix(experts, self.width)
        if fused:
            yield "ffn_gate_up_exps.weight", self.matrix(experts, 2 * self.width, self.width)
        else:
            yield "ffn_gate_exps.weight", self.matrix(experts, self.width, self.width)
            yield "ffn_up_exps.weight", self.matrix(experts, self.width, self.width)
        yield "ffn_down_exps.weight", self.matrix(experts, self.width, self.width)

    def normal(self, shape, deviation):
        return self.random.standard_normal(shape, dtype=np.float32) * np.float32(deviation)

    def matrix(self, *shape):
        return self.normal(shape, 1 / math.sqrt(shape[-1]))

    def norm(self, size, mean=1.0):
        return mean + self.normal(size, 0.1)

    def bias(self, *shape):
        return self.normal(shape, 0.1)

    def embedding(self, deviation):
        values = self.normal((len(self.vocabulary.kinds), self.width), deviation)
        values[self.vocabulary.kinds != gguf.TokenType.NORMAL] *= CONTROL_SCALE
        return values


class Llama(Model):
    name = "llama"

    def metadata(self):
        return super().metadata() | {"vocab_size": len(self.vocabulary.kinds)}


class Qwen3(Model):
    name = "qwen3"

    def attention(self):
        yield from super().attention()
        yield "attn_q_norm.weight", self.norm(HEAD)
        yield "attn_k_norm.weight", self.norm(HEAD)


class Gemma3(Qwen3):
    name = "gemma3"

    def metadata(self):
        # Every sixth layer attends to everything, which llama.cpp knows of this architecture.
        return super().metadata() | {"attention.sliding_window": self.options.window, "rope.freq_base": 1000000.0}

    def layer(self, layer):
        yield from super().layer(layer)
        yield "post_attention_norm.weight", self.norm(self.width, POST_NORM)
        yield "post_ffw_norm.weight", self.norm(self.width, POST_NORM)


class Qwen3Moe(Qwen3):
    name = "qwen3moe"
    dense = False
    tied = False

    def feed_forward_tensors(self, _layer):
        yield from self.expert_tensors()


class HyV3(Qwen3):
    """Experts with fused gates, a shared expert, and a first layer without experts."""

    name = "hy_v3"
    dense = False
    tied = False

    def metadata(self):
        return super().metadata() | {"expert_shared_feed_forward_length": self.width, "expert_weights_norm": True}

    def feed_forward_tensors(self, layer):
        if layer == 0:
            yield from super().feed_forward_tensors(layer)
            return
        yield from self.expert_tensors(fused=True)
        yield "exp_probs_b", self.bias(self.options.experts)
        for name in ["gate", "up", "down"]:
            yield f"ffn_{name}_shexp.weight", self.matrix(self.width, self.width)


class GptOss(Model):
    """Attention sinks, biases everywhere, a sliding window in every second layer, and experts."""

    name = "gpt-oss"
    dense = False
    tied = False

    def metadata(self):
        return super().metadata() | {
            "attention.sliding_window": self.options.window,
            "rope.freq_base": 150000.0,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 2.0,
            "rope.scaling.original_context_length": 4096,
        }

    def layer(self, layer):
        yield "attn_norm.weight", self.norm(self.width)
        yield from self.attention()
        for name, heads in [("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)]:
            yield f"attn_{name}.bias", self.bias(heads * HEAD)
        yield "attn_output.bias", self.bias(self.width)
        yield "attn_sinks.weight", self.normal(self.heads, 1.0)
        yield "post_attention_norm.weight", self.norm(self.width)
        yield from self.expert_tensors()
        yield "ffn_gate_inp.bias", self.bias(self.options.experts)
        for name in ["gate", "up", "down"]:
            yield f"ffn_{name}_exps.bias", self.bias(self.options.experts, self.width)


MODELS = {model.name: model for model in [Llama, Qwen3, Gemma3, Qwen3Moe, HyV3, GptOss]}


class Vocabulary:
    """The tokenizer and the chat template of another model."""

    def __init__(self, path):
        fields = gguf.GGUFReader(path).fields.values()
        self.fields = [field for field in fields if field.name.startswith("tokenizer.")]
        self.kinds = np.array(next(f for f in self.fields if f.name == "tokenizer.ggml.token_type").contents())

    def write(self, writer):
        for field in self.fields:
            element = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], element)


def quantization(name, values, quant):
    """The type of a tensor: small ones stay exact, and of a model in MXFP4 all but the experts have eight bits."""
    if values.ndim < 2 or name.endswith(".bias") or "ffn_gate_inp" in name:
        return gguf.GGMLQuantizationType.F32
    if quant == "mxfp4" and "_exps" not in name:
        quant = "q8_0"
    return gguf.GGMLQuantizationType[quant.upper()]


def write(options):
    model = MODELS[options.architecture](options, Vocabulary(options.vocabulary))
    if options.quant == "mxfp4" and model.dense:
        sys.exit(f"{model.name} has no experts, which alone are written as mxfp4: take another --quant")
    tensors = list(model.tensors())
    per_piece = math.ceil(len(tensors) / options.pieces) if options.pieces > 1 else 0
    writer = gguf.GGUFWriter(options.out, model.name, split_max_tensors=per_piece)
    writer.add_name(f"random {model.name}")
    writer.add_file_type(FILE_TYPES[options.quant])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in model.metadata().items():
        add[type(value)](f"{model.name}.{key}", value)
    model.vocabulary.write(writer)
    for name, values in tensors:
        kind = quantization(name, values, options.quant)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    files = writer.format_shard_names(writer.path)
    writer.close()
    if len(files) != options.pieces:
        sys.exit(f"{len(tensors)} tensors make {len(files)} pieces of {per_piece}, not {options.pieces}")
    for file in files:
        print(file)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture", choices=MODELS)
    parser.add_argument("out", metavar="OUT.gguf")
    parser.add_argument("--vocabulary", required=True, metavar="MODEL.gguf", help="whose tokenizer and chat template")
    parser.add_argument("--pieces", type=int, default=1, help="how many files")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=128, help="a multiple of 64")
    parser.add_argument("--experts", type=int, default=8, help="of a layer, two of which are used")
    parser.add_argument("--window", type=int, default=128, help="tokens of a sliding window")
    parser.add_argument("--quant", choices=FILE_TYPES, default="q8_0", help="of matrices")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.width % 64 or options.width < 64:
        parser.error("--width is a multiple of 64: blocks of quantised weights have 32")
    if options.layers < 1 or options.experts < 2 or options.pieces < 1:
        parser.error("--layers and --pieces are at least 1, --experts at least 2")
    return options


if __name__ == "__main__":
    logging.getLogger("gguf").setLevel(logging.ERROR)
    write(arguments())
