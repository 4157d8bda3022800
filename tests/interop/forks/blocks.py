"""Forks whose blocks, attention, MLP or drop path compute something else under the same names."""

from __future__ import annotations

from tests.interop.forks.sources import Fork, also, fork

# Lines of tests/support/stand_ins.py
ATTEND = "x = x + self.drop_path(one * self.attn(self.norm1(x)))"
FEED = "return x + self.drop_path(two * self.mlp(self.norm2(x)))"
FED = "return x + self.mlp(self.norm2(x))"
BLOCK_END = "        self.gamma_1 = self.gamma_2 = None\n"
ATTENTION_END = "        self.proj = nn.Linear(width, width)\n"
SPLIT = "        q, k, v = parts\n"
WEIGHTS = "self.attn_drop((q * self.scale @ k.mT).softmax(-1))"
PROJECT = "self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))"
MLP_END = "        self.drop = nn.Dropout(drop)\n"
MLP = "return self.drop(self.fc2(self.act(self.fc1(x))))"
SHAPE = "shape = (len(x), *[1] * (x.ndim - 1))"
SCALED = "return x * x.new_empty(shape).bernoulli_(keep).div_(keep)"
ADAPTER = (
    "        self.adapter = nn.Sequential(nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, width))\n"
)


def adapted(how: str, **changed) -> Fork:
    return fork((BLOCK_END, BLOCK_END + ADAPTER), (FEED, how), **changed)


SEQUENTIAL = "h = self.mlp(self.norm2(x)); return x + h + self.adapter(h)"
PARALLEL = "return x + self.mlp(self.norm2(x)) + 0.1 * self.adapter(x)"
LEARNED_BIAS = "(q * self.scale @ k.mT + self.bias_table[:, :n, :n])"
ROTATED = (
    SPLIT + "        angle = torch.arange(n, device=x.device)[:, None] * 0.3\n"
    "        def turn(z):\n"
    "            a, b2 = z.chunk(2, -1)\n"
    "            return torch.cat([a * angle.cos() - b2 * angle.sin(),"
    " a * angle.sin() + b2 * angle.cos()], -1)\n"
    "        q, k = turn(q), turn(k)\n"
)
TABLE = "        self.bias_table = nn.Parameter(torch.zeros(num_heads, 16, 16))\n"

BLOCKS: dict[str, Fork] = {
    "adapter, sequential": adapted(SEQUENTIAL),
    "adapter, parallel": adapted(PARALLEL),
    "adapter, sequential, begins as zero": adapted(
        SEQUENTIAL, zero=("adapter.2.weight", "adapter.2.bias")
    ),
    "adapter, parallel, begins as zero": adapted(
        PARALLEL, zero=("adapter.2.weight", "adapter.2.bias")
    ),
    "adapter that is never called": adapted(FEED),
    "post-norm": fork(
        (ATTEND, "x = self.norm1(x + self.drop_path(one * self.attn(x)))"),
        (FEED, "return self.norm2(x + self.drop_path(two * self.mlp(x)))"),
    ),
    "sandwich norm": fork(
        also(BLOCK_END, "self.norm3 = nn.LayerNorm(width, eps=1e-6)"),
        (FEED, "return x + self.norm3(self.mlp(self.norm2(x)))"),
    ),
    "norm at the block's end": fork((FEED, "return self.norm1(x + self.mlp(self.norm2(x)))")),
    "one norm for both branches": fork((FEED, FEED.replace("norm2", "norm1"))),
    "norms swapped": fork((ATTEND, ATTEND.replace("norm1", "norm2"))),
    "scaled residual": fork((FEED, "return 0.5 * x + self.mlp(self.norm2(x))")),
    "scaled branch": fork((ATTEND, "x = x + 0.5 * self.attn(self.norm1(x))")),
    "branches in parallel": fork(
        (ATTEND, "h = self.attn(self.norm1(x))"), (FEED, "return x + h + self.mlp(self.norm2(x))")
    ),
    "mlp before attention": fork(
        (ATTEND, "x = x + self.drop_path(two * self.mlp(self.norm2(x)))"),
        (FEED, "return x + self.drop_path(one * self.attn(self.norm1(x)))"),
    ),
    "LayerScale under another name": fork(
        also(BLOCK_END, "self.scale = nn.Parameter(0.7 * torch.ones(width))"),
        (FEED, "return x + self.scale * self.mlp(self.norm2(x))"),
    ),
    "LayerScale on the input": fork(
        (ATTEND, "x = one * x + self.attn(self.norm1(x))"), settings={"init_values": 0.5}
    ),
    "a gate that begins as zero": fork(
        also(BLOCK_END, "self.gate = nn.Parameter(torch.zeros(1))"),
        (FEED, "return x + self.mlp(self.norm2(x)) + self.gate * x.tanh()"),
        zero=("gate",),
    ),
    "a block left out at random": fork(
        (
            ATTEND,
            "if self.training and torch.rand(()) < 0.5:\n            return x\n        " + ATTEND,
        )
    ),
    "dropout on the residual": fork(
        (FEED, "return x + nn.functional.dropout(self.mlp(self.norm2(x)), 0.2, self.training)")
    ),
    "clamped values": fork((FEED, "return (x + self.mlp(self.norm2(x))).clamp(-0.5, 0.5)")),
    "clamped at what fp16 holds": fork(
        (FEED, "return (x + self.mlp(self.norm2(x))).clamp(-65504, 65504)")
    ),
    "residual without gradient": fork((FEED, "return x.detach() + self.mlp(self.norm2(x))")),
    "first branch without gradient": fork((ATTEND, "x = x + self.attn(self.norm1(x)).detach()")),
    "other for larger batches": fork((FEED, f"{FED} * (1 + (len(x) > 2))")),
    "other for longer sequences": fork((FEED, f"{FED} * (1 + (x.shape[1] > 6))")),
    "other while training": fork((FEED, f"{FED} * (1 + self.training)")),
    "other without gradients": fork((FEED, f"{FED} * (1 + (not x.requires_grad))")),
    "other from the second call on": fork(
        also(BLOCK_END, "self.calls = 0"),
        (ATTEND, "self.calls += 1\n        " + ATTEND),
        (FEED, f"{FED} * self.calls"),
    ),
    "other for large values": fork((FEED, f"{FED} * (1 + (x.amax() > 3))")),
    "one block that differs": fork(
        also(BLOCK_END, "self.power = 1"),
        (FEED, f"{FED} * self.power"),
        (
            "self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Identity()",
            "self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Identity()\n"
            "        self.blocks[1].power = 2",
        ),
    ),
}

ATTENTION: dict[str, Fork] = {
    "relative position bias": fork(
        (ATTENTION_END, ATTENTION_END + TABLE), ("(q * self.scale @ k.mT)", LEARNED_BIAS)
    ),
    "relative position bias, begins as zero": fork(
        (ATTENTION_END, ATTENTION_END + TABLE),
        ("(q * self.scale @ k.mT)", LEARNED_BIAS),
        zero=("bias_table",),
    ),
    "cosine attention": fork(
        (SPLIT, SPLIT + "        q, k = (nn.functional.normalize(z, dim=-1) for z in (q, k))\n")
    ),
    "causal": fork(("@ k.mT)", "@ k.mT).masked_fill(torch.ones(n, n).triu(1).bool(), -1e9)")),
    "masked by a buffer": fork(
        (
            ATTENTION_END,
            ATTENTION_END
            + "        self.register_buffer('bias', -1.0 * torch.arange(16).float())\n",
        ),
        ("@ k.mT)", "@ k.mT + self.bias[:n])"),
    ),
    "normed queries and keys": fork(
        also(ATTENTION_END, "self.q_norm = nn.LayerNorm(width // num_heads)"),
        (WEIGHTS, WEIGHTS.replace("q *", "self.q_norm(q) *")),
    ),
    "rotary embedding": fork((SPLIT, ROTATED)),
    "talking heads": fork(
        (ATTENTION_END, ATTENTION_END + "        self.mix = nn.Parameter(torch.eye(num_heads))\n"),
        (WEIGHTS, "torch.einsum('hg,bgij->bhij', self.mix, (q * self.scale @ k.mT).softmax(-1))"),
    ),
    "a learned temperature": fork(
        also(ATTENTION_END, "self.heat = nn.Parameter(torch.ones(1))"),
        (WEIGHTS, WEIGHTS.replace("q *", "self.heat * q *")),
    ),
    "softmax with one more in the sum": fork(
        (WEIGHTS, "torch.softmax(nn.functional.pad(q * self.scale @ k.mT, (0, 1)), -1)[..., :-1]")
    ),
    "ReLU for softmax": fork((WEIGHTS, "(q * self.scale @ k.mT).relu() / n")),
    "softmax over queries": fork((".softmax(-1)", ".softmax(-2)")),
    "scaled twice": fork((WEIGHTS, WEIGHTS.replace("q *", "self.scale * q *"))),
    "LoRA in the forward": fork(
        also(
            ATTENTION_END,
            "self.a = nn.Linear(width, 2, bias=False)",
            "self.b = nn.Linear(2, 3 * width, bias=False)",
        ),
        ("parts = self.qkv(x)", "parts = (self.qkv(x) + self.b(self.a(x)))"),
    ),
    "LoRA in the forward, begins as zero": fork(
        also(
            ATTENTION_END,
            "self.a = nn.Linear(width, 2, bias=False)",
            "self.b = nn.Linear(2, 3 * width, bias=False)",
        ),
        ("parts = self.qkv(x)", "parts = (self.qkv(x) + self.b(self.a(x)))"),
        zero=("attn.b.weight",),
    ),
    "gated heads": fork(
        also(ATTENTION_END, "self.gate = nn.Linear(width, width)"),
        (PROJECT, PROJECT[:-1] + " * self.gate(x).sigmoid())"),
    ),
    "dropout by a function": fork(
        (WEIGHTS, f"nn.functional.dropout({WEIGHTS}, 0.1, self.training)")
    ),
    "keys have a bias": fork(
        also(ATTENTION_END, "self.k_bias = nn.Parameter(torch.ones(width))"),
        (SPLIT, SPLIT + "        k = k + (self.k_bias * x.mean()).view(self.num_heads, 1, -1)\n"),
    ),
    "values are not biased": fork(("v = v + self.v_bias.view(self.num_heads, 1, -1)", "pass")),
    "q, k, v in another order": fork((SPLIT, "        k, q, v = parts\n")),
    "heads laid out otherwise": fork(
        (
            ".view(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)",
            ".view(b, n, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)",
        )
    ),
    "time only, in one block": fork(
        (
            "        b, n, c = x.shape\n",
            "        whole = x\n"
            "        if getattr(self, 'frames', 0):\n"
            "            x = x.unflatten(1, (self.frames, -1)).transpose(1, 2).flatten(0, 1)\n"
            "        b, n, c = x.shape\n",
        ),
        (
            f"return self.proj_drop({PROJECT})",
            f"out = self.proj_drop({PROJECT})\n"
            "        if getattr(self, 'frames', 0):\n"
            "            out = out.unflatten(0, (len(whole), -1)).transpose(1, 2).flatten(1, 2)\n"
            "        return out",
        ),
        (
            "        self.head_dropout = nn.Dropout(0.0)\n",
            "        self.head_dropout = nn.Dropout(0.0)\n        self.blocks[1].attn.frames = 2\n",
        ),
        classifier=True,
    ),
    "windows": fork(
        (
            "    def forward(self, x):\n        b, n, c = x.shape\n",
            "    def forward(self, x):\n"
            "        return torch.cat([self.whole(part) for part in x.chunk(2, 1)], 1)\n\n"
            "    def whole(self, x):\n        b, n, c = x.shape\n",
        )
    ),
    "values of a neighbour": fork((SPLIT, SPLIT + "        v = v.roll(1, -2)\n")),
    "softmax in fp64": fork((".softmax(-1)", ".double().softmax(-1).type_as(x)")),
    "no gradient through the weights": fork((".softmax(-1)", ".softmax(-1).detach()")),
}

MLPS: dict[str, Fork] = {
    "GEGLU": fork(
        (
            "self.fc1, self.act, self.fc2 = nn.Linear(width, hidden)",
            "self.fc1, self.act, self.fc2 = nn.Linear(width, 2 * hidden)",
        ),
        (MLP, "a, gate = self.fc1(x).chunk(2, -1); return self.fc2(a * self.act(gate))"),
    ),
    "ReLU by a function": fork((MLP, "return self.fc2(self.fc1(x).relu())")),
    "squared ReLU": fork((MLP, "return self.fc2(self.fc1(x).relu().square())")),
    "GELU's tanh form by a function": fork(
        (MLP, "return self.fc2(nn.functional.gelu(self.fc1(x), approximate='tanh'))")
    ),
    "a norm within": fork(
        also(MLP_END, "self.norm = nn.LayerNorm(hidden)"),
        (MLP, "return self.fc2(self.norm(self.act(self.fc1(x))))"),
    ),
    "a convolution within": fork(
        also(MLP_END, "self.conv = nn.Conv1d(hidden, hidden, 3, 1, 1, groups=hidden)"),
        (MLP, "return self.fc2(self.act(self.conv(self.fc1(x).mT).mT))"),
    ),
    "its own residual": fork((MLP, "return x + self.fc2(self.act(self.fc1(x)))")),
    "without the last bias": fork((MLP, "return self.act(self.fc1(x)) @ self.fc2.weight.T")),
    "dropout within by a function": fork(
        (MLP, "return self.fc2(nn.functional.dropout(self.act(self.fc1(x)), 0.1, self.training))")
    ),
    "two experts": fork(
        also(MLP_END, "self.fc3 = nn.Linear(width, hidden)"),
        (MLP, "return self.fc2(self.act(self.fc1(x)) + self.act(self.fc3(x)))"),
    ),
    "tokens mixed": fork((MLP, "x = x + x.mean(1, keepdim=True); " + MLP)),
}

DROPPED = {"drop_path": 0.4}
DROP_PATHS: dict[str, Fork] = {
    "of single tokens": fork((SHAPE, "shape = (*x.shape[:2], 1)"), settings=DROPPED),
    "of the whole batch": fork((SHAPE, "shape = (1,) * x.ndim"), settings=DROPPED),
    "not scaled": fork((SCALED, SCALED.replace(".div_(keep)", "")), settings=DROPPED),
    "in eval mode too": fork(("not self.training or not", "not"), settings=DROPPED),
    "drawn otherwise": fork(
        (SCALED, "return x * (torch.rand(shape) < keep) / keep"), settings=DROPPED
    ),
    "twice the rate": fork(
        ("keep = 1 - self.drop_prob", "keep = 1 - 2 * self.drop_prob"), settings=DROPPED
    ),
    "with noise": fork((SCALED, SCALED + " + 0.1 * torch.randn_like(x)"), settings=DROPPED),
}

ALL: dict[str, Fork] = {
    **{f"block: {name}": one for name, one in BLOCKS.items()},
    **{f"attention: {name}": one for name, one in ATTENTION.items()},
    **{f"mlp: {name}": one for name, one in MLPS.items()},
    **{f"drop path: {name}": one for name, one in DROP_PATHS.items()},
}
