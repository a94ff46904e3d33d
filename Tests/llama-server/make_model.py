#!/usr/bin/env python3
"""Writes tiny models with random weights, as GGUF: one of each kind of attention that a server can have.

make_model.py KIND OUT   with KIND one of: attention, other (the same layout with other weights), window, recurrent, hybrid, and
                         as they are named: oss (gpt-oss), llama4, qwen3next, granite (4, hybrid)

They say nothing of sense, but a token depends on every token before it, and no prefill takes longer than a blink. Needs nothing
but Python.
"""
import random
import struct
import sys
from array import array

FLOAT32 = 0
UINT32, INT32, FLOAT, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


class Model:
    """Keys and tensors of one file."""

    def __init__(self, architecture, seed):
        self.architecture = architecture
        self.random = random.Random(seed)
        self.keys = []
        self.tensors = []
        self.key("general.architecture", STRING, architecture)
        self.key("general.name", STRING, "tiny " + architecture)

    @staticmethod
    def string(text):
        data = text if isinstance(text, bytes) else text.encode()
        return struct.pack("<Q", len(data)) + data

    def scalar(self, kind, value):
        if kind == STRING:
            return self.string(value)
        return struct.pack({UINT32: "<I", INT32: "<i", FLOAT: "<f", BOOL: "<?"}[kind], value)

    def key(self, name, kind, value):
        self.keys.append(self.string(name) + struct.pack("<I", kind) + self.scalar(kind, value))

    def list(self, name, kind, values):
        data = b"".join(self.scalar(kind, value) for value in values)
        self.keys.append(self.string(name) + struct.pack("<IIQ", ARRAY, kind, len(values)) + data)

    def own(self, name, kind, value):
        self.key(f"{self.architecture}.{name}", kind, value)

    def weights(self, name, rows, columns, gain=1.0):
        scale = gain / columns**0.5
        count = rows * columns
        # In full precision: batches of another size then differ too little to turn one likeliest token into another.
        values = array("f", (self.random.gauss(0, scale) for _ in range(count)))
        self.tensors.append((name, (columns, rows), FLOAT32, values.tobytes()))

    def experts(self, name, rows, columns):
        self.floats(name, (EXPERTS, rows, columns), lambda: self.random.gauss(0, 1 / columns**0.5))

    def output(self, count):
        """Only characters that can be seen are ever the likeliest next token."""
        self.weights("output.weight", count, EMBEDDING, 3)
        name, shape, kind, data = self.tensors[-1]
        seen = range(260, 354)
        rows = [
            data[i * EMBEDDING * 4 : (i + 1) * EMBEDDING * 4] if i in seen else bytes(EMBEDDING * 4)
            for i in range(count)
        ]
        self.tensors[-1] = (name, shape, kind, b"".join(rows))

    def floats(self, name, shape, value=None):
        count = 1
        for size in shape:
            count *= size
        if callable(value):
            values = [value() for _ in range(count)]
        else:
            values = [1.0 if value is None else value] * count
        self.tensors.append((name, tuple(reversed(shape)), FLOAT32, array("f", values).tobytes()))

    def write(self, path):
        header = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.keys))
        header += b"".join(self.keys)
        offset = 0
        for name, shape, kind, data in self.tensors:
            header += self.string(name) + struct.pack("<I", len(shape))
            header += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)
            offset += -(-len(data) // 32) * 32
        with open(path, "wb") as file:
            file.write(header + b"\0" * (-len(header) % 32))
            for _, _, _, data in self.tensors:
                file.write(data + b"\0" * (-len(data) % 32))

    def vocabulary(self):
        """Bytes and some characters: each ASCII character is a token."""
        tokens = [b"<unk>", b"<s>", b"</s>"] + [f"<0x{i:02X}>".encode() for i in range(256)]
        kinds = [2, 3, 3] + [6] * 256
        tokens += ["\u2581".encode()] + [bytes([i]) for i in range(33, 127)]
        kinds += [1] * 95
        while len(tokens) % 32:
            tokens.append(f"<pad{len(tokens)}>".encode())
            kinds.append(5)
        self.key("tokenizer.ggml.model", STRING, "llama")
        self.list("tokenizer.ggml.tokens", STRING, tokens)
        self.list("tokenizer.ggml.scores", FLOAT, [0.0] * len(tokens))
        self.list("tokenizer.ggml.token_type", INT32, kinds)
        for name, value in (("bos", 1), ("eos", 2), ("unknown", 0)):
            self.key(f"tokenizer.ggml.{name}_token_id", UINT32, value)
        self.key("tokenizer.ggml.add_bos_token", BOOL, True)
        self.key(
            "tokenizer.chat_template",
            STRING,
            "{%- for m in messages -%}[{{ m.role }}]{{ m.content }}\n{% endfor -%}"
            "{%- if add_generation_prompt %}[assistant]{% endif -%}",
        )
        return len(tokens)


EMBEDDING, FEED, HEADS, KV_HEADS, HEAD, EXPERTS, EXPERT_FEED = 128, 256, 4, 2, 32, 4, 64


def common(model, layers, kv_heads=KV_HEADS):
    model.own("context_length", UINT32, 131072)
    model.own("embedding_length", UINT32, EMBEDDING)
    model.own("block_count", UINT32, layers)
    model.own("feed_forward_length", UINT32, FEED)
    model.own("attention.head_count", UINT32, HEADS)
    if isinstance(kv_heads, list):
        model.list(f"{model.architecture}.attention.head_count_kv", INT32, kv_heads)
    else:
        model.own("attention.head_count_kv", UINT32, kv_heads)
    model.own("attention.key_length", UINT32, HEAD)
    model.own("attention.value_length", UINT32, HEAD)
    model.own("rope.dimension_count", UINT32, HEAD)
    model.own("rope.freq_base", FLOAT, 10000.0)
    model.own("attention.layer_norm_rms_epsilon", FLOAT, 1e-5)
    size = model.vocabulary()
    model.own("vocab_size", UINT32, size)
    model.weights("token_embd.weight", size, EMBEDDING, EMBEDDING**0.5)
    return size


def attention(model, block):
    model.weights(f"{block}.attn_q.weight", HEADS * HEAD, EMBEDDING, 2)
    model.weights(f"{block}.attn_k.weight", KV_HEADS * HEAD, EMBEDDING, 2)
    model.weights(f"{block}.attn_v.weight", KV_HEADS * HEAD, EMBEDDING, 2)
    model.weights(f"{block}.attn_output.weight", EMBEDDING, HEADS * HEAD, 2)


def feed(model, block):
    model.floats(f"{block}.ffn_norm.weight", (EMBEDDING,))
    model.weights(f"{block}.ffn_gate.weight", FEED, EMBEDDING)
    model.weights(f"{block}.ffn_up.weight", FEED, EMBEDDING)
    model.weights(f"{block}.ffn_down.weight", EMBEDDING, FEED)


def make_attention(seed=1):
    model = Model("llama", seed)
    size = common(model, 3)
    model.floats("output_norm.weight", (EMBEDDING,))
    model.output(size)
    for index in range(3):
        block = f"blk.{index}"
        model.floats(f"{block}.attn_norm.weight", (EMBEDDING,))
        attention(model, block)
        feed(model, block)
    return model


def make_other():
    return make_attention(5)


def make_window():
    model = Model("gemma3", 2)
    model.own("attention.sliding_window", UINT32, 128)
    size = common(model, 6)
    model.output(size)
    model.floats("output_norm.weight", (EMBEDDING,))
    for index in range(6):
        block = f"blk.{index}"
        model.floats(f"{block}.attn_norm.weight", (EMBEDDING,))
        attention(model, block)
        for name in ("attn_q_norm", "attn_k_norm"):
            model.floats(f"{block}.{name}.weight", (HEAD,))
        model.floats(f"{block}.post_attention_norm.weight", (EMBEDDING,))
        feed(model, block)
        model.floats(f"{block}.post_ffw_norm.weight", (EMBEDDING,))
    return model


def make_hybrid():
    model = Model("lfm2", 3)
    kinds = [0, KV_HEADS, 0, KV_HEADS]
    model.own("shortconv.l_cache", UINT32, 3)
    size = common(model, 4, kinds)
    model.output(size)
    model.floats("token_embd_norm.weight", (EMBEDDING,))
    for index, kind in enumerate(kinds):
        block = f"blk.{index}"
        model.floats(f"{block}.attn_norm.weight", (EMBEDDING,))
        feed(model, block)
        if kind:
            attention(model, block)
            for name in ("attn_q_norm", "attn_k_norm"):
                model.floats(f"{block}.{name}.weight", (HEAD,))
        else:
            model.floats(
                f"{block}.shortconv.conv.weight",
                (EMBEDDING, 3),
                lambda: model.random.gauss(0, 1),
            )
            model.weights(f"{block}.shortconv.in_proj.weight", 3 * EMBEDDING, EMBEDDING, 1.5)
            model.weights(f"{block}.shortconv.out_proj.weight", EMBEDDING, EMBEDDING, 2)
    return model


def make_recurrent():
    model = Model("mamba", 4)
    inner, state, rank = 2 * EMBEDDING, 16, 8
    for name, value in (
        ("ssm.conv_kernel", 4),
        ("ssm.inner_size", inner),
        ("ssm.state_size", state),
        ("ssm.time_step_rank", rank),
    ):
        model.own(name, UINT32, value)
    size = common(model, 2, 0)
    model.floats("output_norm.weight", (EMBEDDING,))
    model.output(size)
    for index in range(2):
        block = f"blk.{index}"
        model.floats(f"{block}.attn_norm.weight", (EMBEDDING,))
        model.weights(f"{block}.ssm_in.weight", 2 * inner, EMBEDDING, 1.5)
        model.floats(
            f"{block}.ssm_conv1d.weight", (inner, 4), lambda: model.random.gauss(0, 0.5)
        )
        model.floats(f"{block}.ssm_conv1d.bias", (inner,), 0.0)
        model.weights(f"{block}.ssm_x.weight", rank + 2 * state, inner)
        model.weights(f"{block}.ssm_dt.weight", inner, rank)
        model.floats(f"{block}.ssm_dt.bias", (inner,), -2.0)
        model.floats(f"{block}.ssm_a", (inner, state), -0.3)
        model.floats(f"{block}.ssm_d", (inner,))
        model.weights(f"{block}.ssm_out.weight", EMBEDDING, inner, 2)
    return model


def mixture(model, used=2):
    """Says that it has experts."""
    model.own("expert_count", UINT32, EXPERTS)
    model.own("expert_used_count", UINT32, used)
    model.own("expert_feed_forward_length", UINT32, EXPERT_FEED)


def mixed(model, block, shared=False):
    """A layer's experts, and the one that all tokens share."""
    model.weights(f"{block}.ffn_gate_inp.weight", EXPERTS, EMBEDDING)
    model.experts(f"{block}.ffn_gate_exps.weight", EXPERT_FEED, EMBEDDING)
    model.experts(f"{block}.ffn_up_exps.weight", EXPERT_FEED, EMBEDDING)
    model.experts(f"{block}.ffn_down_exps.weight", EMBEDDING, EXPERT_FEED)
    if shared:
        model.weights(f"{block}.ffn_gate_shexp.weight", EXPERT_FEED, EMBEDDING)
        model.weights(f"{block}.ffn_up_shexp.weight", EXPERT_FEED, EMBEDDING)
        model.weights(f"{block}.ffn_down_shexp.weight", EMBEDDING, EXPERT_FEED)


def make_oss():
    """Each second layer has a window, with a sink; experts."""
    model = Model("gpt-oss", 6)
    mixture(model)
    model.own("attention.sliding_window", UINT32, 128)
    size = common(model, 4)
    model.floats("output_norm.weight", (EMBEDDING,))
    model.output(size)
    for index in range(4):
        block = f"blk.{index}"
        model.floats(f"{block}.attn_norm.weight", (EMBEDDING,))
        attention(model, block)
        for name, count in (("q", HEADS * HEAD), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD), ("output", EMBEDDING)):
            model.floats(f"{block}.attn_{name}.bias", (count,), lambda: model.random.gauss(0, 0.1))
        model.floats(f"{block}.attn_sinks.weight", (HEADS,), lambda: model.random.gauss(0, 1))
        model.floats(f"{block}.post_attention_norm.weight", (EMBEDDING,))
        mixed(model, block)
        model.floats(f"{block}.ffn_gate_inp.bias", (EXPERTS,), 0.0)
        for name, count in (("gate", EXPERT_FEED), ("up", EXPERT_FEED), ("down", EMBEDDING)):
            model.floats(f"{block}.ffn_{name}_exps.bias", (EXPERTS, count), 0.0)
    return model


def make_llama4():
    """Three of four layers see the chunk of 8,192 tokens that a token is in; experts in each second layer."""
    model = Model("llama4", 7)
    mixture(model, used=1)
    model.own("interleave_moe_layer_step", UINT32, 2)
    size = common(model, 4)
    model.floats("output_norm.weight", (EMBEDDING,))
    model.output(size)
    for index in range(4):
        block = f"blk.{index}"
        model.floats(f"{block}.attn_norm.weight", (EMBEDDING,))
        attention(model, block)
        if index % 2:
            model.floats(f"{block}.ffn_norm.weight", (EMBEDDING,))
            mixed(model, block, shared=True)
        else:
            feed(model, block)
    return model


def make_qwen3next():
    """Three of four layers are gated delta nets; experts."""
    model = Model("qwen3next", 8)
    mixture(model)
    state, groups, ranks = 32, 2, 4
    keys, values = state * groups, state * ranks
    for name, value in (
        ("ssm.conv_kernel", 4),
        ("ssm.inner_size", values),
        ("ssm.state_size", state),
        ("ssm.time_step_rank", ranks),
        ("ssm.group_count", groups),
        ("expert_shared_feed_forward_length", EXPERT_FEED),
    ):
        model.own(name, UINT32, value)
    size = common(model, 4)
    model.floats("output_norm.weight", (EMBEDDING,))
    model.output(size)
    for index in range(4):
        block = f"blk.{index}"
        model.floats(f"{block}.attn_norm.weight", (EMBEDDING,))
        model.floats(f"{block}.post_attention_norm.weight", (EMBEDDING,))
        if index == 3:
            model.weights(f"{block}.attn_q.weight", 2 * HEADS * HEAD, EMBEDDING, 2)
            model.weights(f"{block}.attn_k.weight", KV_HEADS * HEAD, EMBEDDING, 2)
            model.weights(f"{block}.attn_v.weight", KV_HEADS * HEAD, EMBEDDING, 2)
            model.weights(f"{block}.attn_output.weight", EMBEDDING, HEADS * HEAD, 2)
            for name in ("attn_q_norm", "attn_k_norm"):
                model.floats(f"{block}.{name}.weight", (HEAD,))
        else:
            model.weights(f"{block}.attn_qkv.weight", 2 * keys + values, EMBEDDING, 1.5)
            model.weights(f"{block}.attn_gate.weight", values, EMBEDDING, 1.5)
            model.floats(f"{block}.ssm_conv1d.weight", (2 * keys + values, 4), lambda: model.random.gauss(0, 0.5))
            model.floats(f"{block}.ssm_dt.bias", (ranks,), -2.0)
            model.floats(f"{block}.ssm_a", (ranks,), -0.3)
            model.weights(f"{block}.ssm_ba.weight", 2 * ranks, EMBEDDING)
            model.floats(f"{block}.ssm_norm.weight", (state,))
            model.weights(f"{block}.ssm_out.weight", EMBEDDING, values, 2)
        mixed(model, block, shared=True)
        model.floats(f"{block}.ffn_gate_inp_shexp.weight", (EMBEDDING,), 0.1)
    return model


def make_granite():
    """Mamba 2 in three of four layers, attention in the others."""
    model = Model("granitehybrid", 9)
    kinds = [0, KV_HEADS, 0, 0]
    inner, state, ranks, groups = 2 * EMBEDDING, 16, 8, 1
    for name, value in (
        ("ssm.conv_kernel", 4),
        ("ssm.inner_size", inner),
        ("ssm.state_size", state),
        ("ssm.time_step_rank", ranks),
        ("ssm.group_count", groups),
    ):
        model.own(name, UINT32, value)
    size = common(model, 4, kinds)
    model.floats("output_norm.weight", (EMBEDDING,))
    model.output(size)
    for index, kind in enumerate(kinds):
        block = f"blk.{index}"
        model.floats(f"{block}.attn_norm.weight", (EMBEDDING,))
        feed(model, block)
        if kind:
            attention(model, block)
        else:
            wide = inner + 2 * groups * state
            model.weights(f"{block}.ssm_in.weight", 2 * inner + 2 * groups * state + ranks, EMBEDDING, 1.5)
            model.floats(f"{block}.ssm_conv1d.weight", (wide, 4), lambda: model.random.gauss(0, 0.5))
            model.floats(f"{block}.ssm_conv1d.bias", (wide,), 0.0)
            model.floats(f"{block}.ssm_dt.bias", (ranks,), -2.0)
            model.floats(f"{block}.ssm_a", (ranks, 1), -0.3)
            model.floats(f"{block}.ssm_d", (ranks, 1))
            model.floats(f"{block}.ssm_norm.weight", (groups, inner // groups))
            model.weights(f"{block}.ssm_out.weight", EMBEDDING, inner, 2)
    return model


if __name__ == "__main__":
    kinds = {name[5:]: value for name, value in globals().items() if name.startswith("make_")}
    kinds[sys.argv[1]]().write(sys.argv[2])
