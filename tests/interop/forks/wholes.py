"""Forks whose embedding, encoder, decoder, whole model or classifier compute something else."""

from __future__ import annotations

from tests.interop.forks.sources import Fork, also, fork, lines

# Lines of tests/support/stand_ins.py
CONV = "self.proj = nn.Conv3d(3, width, kernel_size=cube, stride=cube)\n"
EMBED = "return self.proj(x).flatten(2).transpose(1, 2)"
ENCODER_END = "        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Identity()\n"
ADD_TABLE = "        x = x + self.pos_embed.type_as(x).to(x.device).detach()\n"
ENCODE = "return self.norm(_through(self, x[~mask].reshape(len(x), -1, x.shape[-1])))"
VISIBLE = "x[~mask].reshape(len(x), -1, x.shape[-1])"
THROUGH = (
    "    for block in module.blocks:\n"
    "        x = checkpoint(block, x, use_reentrant=False) if module.with_cp else block(x)\n"
    "    return x\n"
)
DECODE = "return self.head(self.norm(x[:, -return_token_num:] if return_token_num > 0 else x))"
DECODER_END = (
    "        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, pixels)\n"
)
TOKEN = "        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))\n"
HIDDEN = "hidden = self.mask_token + table[decoded].reshape(shape)"
FULL = "full = torch.cat([seen + table[~mask].reshape(shape), hidden], dim=1)"
SEEN = "seen = self.encoder_to_decoder(self.encoder(x, mask))"
DECODED = "decoded = mask if decode_mask is None else ~decode_mask"
OUT = "return self.decoder(full, hidden.shape[1])"
POOLED = "self.fc_norm(x.mean(1))"
CLASSIFIER_END = "        self.head_dropout = nn.Dropout(0.0)\n"
CLASSIFY = "return self.head(self.head_dropout(self.forward_features(x)))"
CLASSIFIER_BLOCKS = (
    "x = _through(self, self.pos_drop(x + self.pos_embed.type_as(x).to(x.device).detach()))"
)
RMS = """class LayerNorm(nn.LayerNorm):
    def forward(self, x):
        return x / x.square().mean(-1, keepdim=True).sqrt() * self.weight + self.bias


"""

EMBEDDINGS: dict[str, Fork] = {
    "a norm": fork(
        also(CONV, "self.norm = nn.LayerNorm(width)"),
        (EMBED, "return self.norm(self.proj(x).flatten(2).transpose(1, 2))"),
    ),
    "overlapping patches": fork(
        (CONV, "self.proj = nn.Conv3d(3, width, (4, 18, 18), cube, padding=1)\n")
    ),
    "a stem of two layers": fork(
        (
            CONV,
            "self.proj = nn.Sequential(nn.Conv3d(3, 8, (1, 4, 4), (1, 4, 4)), nn.GELU(),\n"
            "            nn.Conv3d(8, width, (2, 4, 4), (2, 4, 4)))\n",
        )
    ),
    "a second layer beside proj": fork(
        also(CONV, "self.mix = nn.Conv3d(width, width, 1)"),
        (EMBED, "return self.mix(self.proj(x).relu()).flatten(2).transpose(1, 2)"),
    ),
    "clips normalised within": fork((EMBED, "x = (x - 0.5) / 0.25\n        " + EMBED)),
    "colours in another order": fork((EMBED, "x = x.flip(1)\n        " + EMBED)),
    "tokens in another order": fork(
        (EMBED, "return self.proj(x).permute(0, 3, 4, 2, 1).flatten(1, 3)")
    ),
    "scaled tokens": fork((EMBED, EMBED + " * x.shape[1]")),
    "frozen by detach": fork((EMBED, EMBED + ".detach()")),
    "noise on the clips": fork(
        (EMBED, "x = x + 0.1 * torch.randn_like(x) if self.training else x\n        " + EMBED)
    ),
    "no check of the size": fork(("        assert tuple(x.shape[-2:]) == self.img_size\n", "")),
}

ENCODERS: dict[str, Fork] = {
    "positions after masking": fork(
        (ADD_TABLE, ""),
        (
            ENCODE,
            f"x = {VISIBLE}\n        x = x + self.pos_embed[:, :x.shape[1]]\n"
            "        return self.norm(_through(self, x))",
        ),
    ),
    "scaled tokens": fork((ADD_TABLE, "        x = x * x.shape[-1] ** 0.5 + self.pos_embed\n")),
    "scaled positions": fork((ADD_TABLE, "        x = x + 0.5 * self.pos_embed\n")),
    "no positions": fork((ADD_TABLE, "")),
    "separate positions in time": fork(
        also(ENCODER_END, "self.time = nn.Parameter(torch.zeros(1, 8, width))"),
        (ADD_TABLE, ADD_TABLE + "        x = x + self.time\n"),
    ),
    "a class token": fork(
        also(ENCODER_END, "self.cls_token = nn.Parameter(torch.zeros(1, 1, width))"),
        (
            ENCODE,
            f"x = torch.cat([self.cls_token.expand(len(x), -1, -1), {VISIBLE}], 1)\n"
            "        return self.norm(_through(self, x))[:, 1:]",
        ),
    ),
    "register tokens": fork(
        also(ENCODER_END, "self.registers = nn.Parameter(torch.zeros(1, 3, width))"),
        (
            ENCODE,
            f"x = torch.cat([{VISIBLE}, self.registers.expand(len(x), -1, -1)], 1)\n"
            "        return self.norm(_through(self, x))[:, :-3]",
        ),
    ),
    "tokens dropped while training": fork(
        (
            ENCODE,
            lines(
                f"x = {VISIBLE}",
                "if self.training:",
                "    x = x * (torch.rand(x.shape[:2]) > 0.5)[..., None]",
                "return self.norm(_through(self, x))",
            ),
        )
    ),
    "tokens merged": fork(
        (
            ENCODE,
            f"x = {VISIBLE}\n        pairs = x.unflatten(1, (-1, 2))\n"
            "        x = pairs.mean(2, keepdim=True).expand_as(pairs).flatten(1, 2)\n"
            "        return self.norm(_through(self, x))",
        )
    ),
    "masked tokens stay as a token": fork(
        also(ENCODER_END, "self.token = nn.Parameter(torch.zeros(1, 1, width))"),
        (
            ENCODE,
            "x = torch.where(mask[..., None], self.token, x)\n"
            "        x = self.norm(_through(self, x))\n"
            f"        return {VISIBLE}",
        ),
    ),
    "the masked ones seen": fork((ENCODE, ENCODE.replace("~mask", "mask"))),
    "the last block left out": fork(
        (
            ENCODE,
            lines(
                f"x = {VISIBLE}",
                "for block in self.blocks[:-1]:",
                "    x = block(x)",
                "return self.norm(x)",
            ),
        )
    ),
    "blocks in reverse": fork(
        (THROUGH, THROUGH.replace("module.blocks", "reversed(module.blocks)"))
    ),
    "every block twice": fork((THROUGH, THROUGH.replace("else block(x)", "else block(block(x))"))),
    "blocks left out at random": fork(
        (
            THROUGH,
            THROUGH.replace(
                "        x =",
                "        if module.training and torch.rand(()) < 0.5:\n"
                "            continue\n        x =",
            ),
        )
    ),
    "mean of all blocks": fork(
        (
            ENCODE,
            lines(
                f"x = {VISIBLE}",
                "kept = []",
                "for block in self.blocks:",
                "    x = block(x)",
                "    kept.append(x)",
                "return self.norm(sum(kept) / len(kept))",
            ),
        )
    ),
    "first block without gradient": fork(
        (
            ENCODE,
            lines(
                f"x = {VISIBLE}",
                "with torch.no_grad():",
                "    x = self.blocks[0](x)",
                "for block in self.blocks[1:]:",
                "    x = block(x)",
                "return self.norm(x)",
            ),
        )
    ),
    "a long skip connection": fork(
        (ENCODE, f"x = {VISIBLE}\n        return self.norm(x + _through(self, x))")
    ),
    "no norm": fork((ENCODE, ENCODE.replace("self.norm(", "("))),
    "a norm before": fork(
        also(ENCODER_END, "self.pre = nn.LayerNorm(width)"),
        (ENCODE, ENCODE.replace("self, x[", "self, self.pre(x)[")),
    ),
    "dropout on the tokens": fork(
        (ENCODE, ENCODE.replace("self, x[", "self, nn.functional.dropout(x, 0.2, self.training)["))
    ),
    "more after forward_features": fork(
        (
            "return self.head(self.forward_features(x, mask))",
            "return self.head(2 * self.forward_features(x, mask))",
        )
    ),
    "a head with weights": fork(
        (ENCODER_END, ENCODER_END.replace("nn.Identity()", "nn.Linear(width, width)"))
    ),
    "another eps in each norm": fork(
        ("    return nn.ModuleList(\n", "    made = nn.ModuleList(\n"),
        (
            "for rate in rates\n    )\n",
            "for rate in rates\n    )\n    for i, block in enumerate(made):\n"
            "        block.norm1.eps, block.norm2.eps = 10.0 ** -(i + 1), 0.3\n    return made\n",
        ),
        also(ENCODER_END, "self.norm.eps = 0.2"),
    ),
    "a norm like RMSNorm": fork(
        ("class Block(nn.Module):", RMS + "class Block(nn.Module):"),
        ("nn.LayerNorm(width, eps=1e-6)", "LayerNorm(width, eps=1e-6)"),
    ),
    "final norms like RMSNorm": fork(
        ("class PatchEmbed(nn.Module):", RMS + "class PatchEmbed(nn.Module):"),
        ("self.norm, self.head = nn.LayerNorm(", "self.norm, self.head = LayerNorm("),
    ),
    "final norms without weights": fork(
        (
            "self.norm, self.head = nn.LayerNorm(width, eps=1e-6)",
            "self.norm, self.head = nn.LayerNorm(width, elementwise_affine=False)",
        )
    ),
}

DECODERS: dict[str, Fork] = {
    "cross attention": fork(
        also(DECODER_END, "self.cross = nn.MultiheadAttention(width, 1, batch_first=True)"),
        (
            DECODE,
            "x = x[:, -return_token_num:] + self.cross(x[:, -return_token_num:],\n"
            "            x[:, :-return_token_num], x[:, :-return_token_num])[0]\n"
            "        return self.head(self.norm(x))",
        ),
    ),
    "a head with one more layer": fork(
        also(DECODER_END, "self.before = nn.Linear(width, width)"),
        (DECODE, DECODE.replace("self.head(", "self.head(self.before(") + ")"),
    ),
    "no norm": fork((DECODE, DECODE.replace("self.norm(", "("))),
    "the first tokens": fork((DECODE, DECODE.replace("-return_token_num:", ":return_token_num"))),
    "norm over all tokens' mean": fork(
        (DECODE, "x = x - x.mean(1, keepdim=True)\n        " + DECODE)
    ),
    "a skip connection": fork(
        (
            "        x = _through(self, x)\n        return self.head",
            "        x = x + _through(self, x)\n        return self.head",
        )
    ),
    "squashed": fork((DECODE, DECODE + ".tanh()")),
    "no block for encoder's tokens": fork(
        (
            "        x = _through(self, x)\n        return self.head",
            "        x = _through(self, x[:, -return_token_num:])\n        return self.head",
        )
    ),
}

MODELS: dict[str, Fork] = {
    "a mask token per position": fork(
        (TOKEN, "        self.mask_token = nn.Parameter(torch.zeros(1, 8, decoder_width))\n"),
        (HIDDEN, "hidden = (self.mask_token + table)[decoded].reshape(shape)"),
    ),
    "mask tokens with noise": fork(
        (HIDDEN, HIDDEN + "\n        hidden = hidden + 0.1 * torch.randn_like(hidden)")
    ),
    "mask tokens first": fork(
        (
            FULL,
            FULL.replace(
                "[seen + table[~mask].reshape(shape), hidden]",
                "[hidden, seen + table[~mask].reshape(shape)]",
            ),
        )
    ),
    "tokens in their places": fork(
        (
            OUT,
            "order = torch.cat([(~mask).nonzero()[:, 1].view(len(x), -1),\n"
            "            decoded.nonzero()[:, 1].view(len(x), -1)], 1).argsort(1)\n"
            "        full = full.gather(1, order[..., None].expand_as(full))\n        " + OUT,
        )
    ),
    "no positions for seen tokens": fork(
        (FULL, FULL.replace(" + table[~mask].reshape(shape)", ""))
    ),
    "scaled positions": fork((FULL, FULL.replace("seen + table", "seen + 2 * table"))),
    "a norm between": fork(
        also(TOKEN, "self.between = nn.LayerNorm(decoder_width)"),
        (
            SEEN,
            SEEN.replace("= self.encoder_to_decoder(", "= self.between(self.encoder_to_decoder(")
            + ")",
        ),
    ),
    "the encoder without gradient": fork((SEEN, SEEN + ".detach()")),
    "the decoder mask the other way": fork(
        (DECODED, DECODED.replace("~decode_mask", "decode_mask"))
    ),
    "hidden tokens only": fork((DECODED, DECODED.replace("~decode_mask", "mask & ~decode_mask"))),
    "scaled outputs": fork((OUT, OUT + " * 2")),
    "normalised outputs": fork(
        (OUT, "return nn.functional.normalize(self.decoder(full, hidden.shape[1]), dim=-1)")
    ),
    "two views averaged": fork(
        (
            SEEN,
            lines(
                "views = self.encoder(x, mask) + self.encoder(x.flip(-1), mask)",
                "seen = self.encoder_to_decoder(views / 2)",
            ),
        )
    ),
    "features beside the prediction": fork((OUT, OUT + ", seen")),
    "the mask's complement": fork((DECODED, "mask = ~mask\n        " + DECODED)),
}


def classifier(*edits: tuple[str, str], **changed) -> Fork:
    return fork(*edits, classifier=True, **changed)


CLASSIFIERS: dict[str, Fork] = {
    "max-pooling": classifier((POOLED, "self.fc_norm(x.amax(1))")),
    "mean of the first half": classifier((POOLED, "self.fc_norm(x[:, :4].mean(1))")),
    "norm before the mean": classifier((POOLED, "self.fc_norm(x).mean(1)")),
    "attention pooling": classifier(
        also(CLASSIFIER_END, "self.query = nn.Parameter(torch.zeros(width))"),
        (POOLED, "self.fc_norm(((x @ self.query).softmax(1)[..., None] * x).sum(1))"),
    ),
    "a class token": classifier(
        also(CLASSIFIER_END, "self.cls_token = nn.Parameter(torch.zeros(1, 1, width))"),
        (
            CLASSIFIER_BLOCKS,
            "x = torch.cat([self.cls_token.expand(len(x), -1, -1), x + self.pos_embed], 1)\n"
            "        x = _through(self, self.pos_drop(x))",
        ),
        (POOLED, "self.fc_norm(x[:, 0])"),
    ),
    "the last token": classifier(
        ("self.norm(x[:, 0])", "self.norm(x[:, -1])"), settings={"use_mean_pooling": False}
    ),
    "norm with the mean": classifier((POOLED, "self.fc_norm(x.mean(1) + x.amax(1))")),
    "unit features": classifier(
        (CLASSIFY, "return self.head(nn.functional.normalize(self.forward_features(x), dim=-1))")
    ),
    "scaled logits": classifier((CLASSIFY, CLASSIFY + " * 3")),
    "a head with more layers": classifier(
        also(CLASSIFIER_END, "self.before = nn.Sequential(nn.Linear(width, width), nn.GELU())"),
        (CLASSIFY, CLASSIFY.replace("self.head(self", "self.head(self.before(self") + ")"),
    ),
    "a head that is more layers": classifier(
        (
            "        self.head = nn.Linear(width, num_classes)\n",
            "        self.head = nn.Sequential(nn.GELU(), nn.Linear(width, num_classes))\n",
        )
    ),
    "two heads": classifier(
        also(CLASSIFIER_END, "self.other = nn.Linear(width, num_classes)"),
        (CLASSIFY, "h = self.forward_features(x)\n        return self.head(h), self.other(h)"),
    ),
    "features resized": classifier(
        (
            CLASSIFIER_BLOCKS,
            CLASSIFIER_BLOCKS.replace("x + self.pos_embed", "x + self.pos_embed.flip(1)"),
        )
    ),
    "two crops in eval mode": classifier(
        (
            CLASSIFY,
            "if not self.training:\n            x = (x + x.flip(-1)) / 2\n        " + CLASSIFY,
        )
    ),
    "tokens thrown away half-way": classifier(
        (
            CLASSIFIER_BLOCKS,
            "x = self.pos_drop(x + self.pos_embed)\n"
            "        x = self.blocks[1](self.blocks[0](x)[:, :6])",
        )
    ),
}

ALL: dict[str, Fork] = {
    **{f"embedding: {name}": one for name, one in EMBEDDINGS.items()},
    **{f"encoder: {name}": one for name, one in ENCODERS.items()},
    **{f"decoder: {name}": one for name, one in DECODERS.items()},
    **{f"model: {name}": one for name, one in MODELS.items()},
    **{f"classifier: {name}": one for name, one in CLASSIFIERS.items()},
}
