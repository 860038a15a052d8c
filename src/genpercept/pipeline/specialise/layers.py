"""Replacements of diffusers' layers that compute the same with fewer operations. Folded weights are computed in float64."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Resnet(nn.Module):
    """ResnetBlock2D whose time embedding is part of its first convolution's bias.

    conv1(x) + time_emb_proj(silu(emb)) = conv1 with another bias; the shortcut's bias goes to the second convolution.
    """

    def __init__(self, old: Any, emb: Tensor | None) -> None:
        """emb: (1, width), what the block gets as time embedding; None for blocks that take none."""
        super().__init__()
        self.norm1, self.norm2, self.activation = old.norm1, old.norm2, _in_place(old.nonlinearity)
        self.conv1, self.conv2, self.shortcut = old.conv1, old.conv2, old.conv_shortcut
        self.in_strips = False  # for short memory; `x` is overwritten then
        if emb is not None and old.time_emb_proj is not None:
            shift = _project(old.time_emb_proj, emb if old.skip_time_act else old.nonlinearity(emb))[0]
            self.conv1 = with_bias(old.conv1, old.conv1.bias.double() + shift)
        if self.shortcut is not None and self.shortcut.bias is not None:
            self.conv2 = with_bias(old.conv2, old.conv2.bias.double() + self.shortcut.bias.double())
            self.shortcut = with_bias(self.shortcut, None)

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        if self.in_strips and x.numel() > STRIP:
            h = strips(x, self.norm1, self.activation, self.conv1)
            return strips(h, self.norm2, self.activation, self.conv2, add=x, through=self.shortcut)
        h = self.conv1(self.activation(self.norm1(x)))
        h = self.conv2(self.activation(self.norm2(h)))
        return h.add_(x if self.shortcut is None else self.shortcut(x))


class Upsample(nn.Module):
    """Twice the size by nearest neighbour, then a 3 x 3 convolution: one transposed convolution, 4/9 of the products.

    Of the doubled image, an output pixel's three rows are two rows of the original, one of them twice; so columns. Borders
    are zero in both. To sizes other than the double it is done in two steps, as before.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        weight = torch.einsum("ka,lb,oiab->iokl", _TAPS, _TAPS, conv.weight.double())
        self.weight = frozen(weight, conv.weight)
        self.in_strips = False

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        h, w = x.shape[-2:]
        if output_size is not None and tuple(output_size) != (2 * h, 2 * w):
            return self.conv(F.interpolate(x, size=output_size, mode="nearest"))
        if self.in_strips and x.numel() > STRIP:
            return self._strips(x)
        return F.conv_transpose2d(x, self.weight, self.conv.bias, stride=2, padding=1)

    def _strips(self, x: Tensor) -> Tensor:
        """Strip by strip, each with a row of its neighbours: the convolution's working copies are of a strip only."""
        b, c, h, w = x.shape
        out = x.new_empty(b, self.weight.shape[1], 2 * h, 2 * w)
        rows = max(1, STRIP // (b * c * w))
        for top in range(0, h, rows):
            end, above = min(h, top + rows), int(top > 0)
            part = F.conv_transpose2d(x[:, :, top - above : end + 1], self.weight, self.conv.bias, stride=2, padding=1)
            out[:, :, 2 * top : 2 * end] = part[:, :, 2 * above : 2 * (above + end - top)]
        return out


# Row k of the 4 x 4 kernel of a transposed convolution (stride 2, padding 1) as a sum of rows of the 3 x 3 kernel.
_TAPS = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)


class NormConv(nn.Module):
    """A decoder's last three layers, normalisation, activation and convolution, as one that works in strips."""

    def __init__(self, norm: nn.Module, activation: nn.Module, conv: nn.Conv2d) -> None:
        super().__init__()
        self.norm, self.activation, self.conv = norm, activation, conv

    def forward(self, x: Tensor) -> Tensor:
        return strips(x, self.norm, self.activation, self.conv)


class OnesConv(nn.Module):
    """A convolution behind a 1 x 1 convolution, as one: a further channel of ones carries the first one's bias.

    That channel is padded with zeros too, so it is exact at the borders, where the sum of the weights alone is not.
    """

    def __init__(self, first: nn.Conv2d, then: nn.Conv2d) -> None:
        super().__init__()
        pointwise = first.weight.double()[:, :, 0, 0]
        bias = torch.zeros(first.out_channels) if first.bias is None else first.bias
        before = torch.cat([pointwise, bias.double()[:, None]], dim=1)
        weight = torch.einsum("ocab,ci->oiab", then.weight.double(), before)
        self.weight, self.bias, self.padding = frozen(weight, then.weight), then.bias, then.padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0), self.weight, self.bias, padding=self.padding)


class SelfAttention(nn.Module):
    """Attention of tokens (B, N, C) to each other, with one projection for queries, keys and values."""

    def __init__(self, old: Any, name: str) -> None:
        super().__init__()
        check_attention(old, name)
        parts = [old.to_q, old.to_k, old.to_v]
        self.heads, self.to_out = int(old.heads), old.to_out[0]
        self.weight = frozen(torch.cat([part.weight.double() for part in parts]), old.to_q.weight)
        biased = old.to_q.bias is not None
        bias = torch.cat([part.bias.double() for part in parts]) if biased else None
        self.bias = None if bias is None else frozen(bias, old.to_q.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = F.linear(x, self.weight, self.bias).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1))


class SpatialAttention(nn.Module):
    """An autoencoder's attention on a map (B, C, h, w), with its normalisation and residual."""

    def __init__(self, old: Any, name: str) -> None:
        super().__init__()
        self.norm, self.attention = old.group_norm, SelfAttention(old, name)

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        y = self.attention(self.norm(x).flatten(2).transpose(1, 2))
        return x + y.transpose(1, 2).unflatten(2, x.shape[-2:])


class PromptAttention(nn.Module):
    """Attention to the tokens of a fixed prompt, whose keys and values are constants.

    A head's score of a token, q . k = x . (Wq^T k), is linear in x, and what a token adds to the output, Wo v, is a constant
    vector. So, with few tokens, the layer is a narrow linear layer, the softmax over tokens, and another: tokens x heads
    wide. Two tokens (the empty prompt): softmax is a sigmoid of the difference, and `heads` is wide enough. One token: a
    constant. Many tokens (padded prompts): keys and values stay, computed once.
    """

    def __init__(self, old: Any, context: Tensor, name: str) -> None:
        """context: (1, tokens, width)."""
        super().__init__()
        check_attention(old, name)
        out, self.heads = old.to_out[0], int(old.heads)
        like = old.to_q.weight
        k, v = (_project(part, context)[0].unflatten(1, (self.heads, -1)) for part in (old.to_k, old.to_v))
        self.tokens, depth = int(k.shape[0]), int(k.shape[2])
        self.wide = self.tokens > 2 and self.tokens * self.heads > old.to_q.weight.shape[0]
        if self.wide:
            self.to_q, self.to_out = old.to_q, out
            self.key, self.value = (frozen(part.transpose(0, 1)[None], like) for part in (k, v))
            return
        query = old.to_q.weight.double().unflatten(0, (self.heads, depth))
        scores = torch.einsum("thd,hdc->thc", k, query) * depth**-0.5
        constant = torch.zeros(scores.shape[:2], dtype=torch.float64)
        if old.to_q.bias is not None:
            constant = torch.einsum("thd,hd->th", k, old.to_q.bias.double().view(self.heads, depth)) * depth**-0.5
        adds = torch.einsum("thd,chd->thc", v, out.weight.double().unflatten(1, (self.heads, depth)))
        base = torch.zeros(adds.shape[2], dtype=torch.float64) if out.bias is None else out.bias.double()
        if self.tokens <= 2:  # weights sum to 1 over tokens: the first one's share is 1 less the second's
            base = base + adds[0].sum(0)
            scores, constant, adds = scores[1:] - scores[:1], constant[1:] - constant[:1], adds[1:] - adds[:1]
        self.score = frozen(scores.transpose(0, 1).flatten(0, 1), like)  # head by head, tokens within
        self.score_bias = frozen(constant.T.flatten(), like)
        self.add = frozen(adds.transpose(0, 1).flatten(0, 1).T.contiguous(), like)
        self.base = frozen(base, like)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> what the layer adds, (B, N, C), or (C,) where it is the same everywhere."""
        if self.wide:
            return self._wide(x)
        if self.tokens == 1:
            return self.base
        scores = F.linear(x, self.score, self.score_bias)
        if self.tokens == 2:
            shares = scores.sigmoid_()
        else:
            shares = scores.unflatten(-1, (self.heads, self.tokens)).softmax(-1).flatten(-2)
        return F.linear(shares, self.add, self.base)

    def _wide(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.to_q(x).view(b, n, self.heads, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, self.key.expand(b, -1, -1, -1), self.value.expand(b, -1, -1, -1))
        return self.to_out(y.transpose(1, 2).reshape(b, n, -1))


class TransformerBlock(nn.Module):
    """BasicTransformerBlock of text-to-image U-Nets: self-attention, attention to the prompt, feed-forward."""

    def __init__(self, old: Any, context: Tensor, name: str) -> None:
        super().__init__()
        plain = old.norm_type == "layer_norm" and old.pos_embed is None and not hasattr(old, "fuser")
        if not plain or old.only_cross_attention or old.attn2 is None or old.attn2.is_cross_attention is False:
            raise ValueError(
                f"{name}: a transformer block of a kind that cannot be specialised; use the plain pipeline"
            )
        self.norm1, self.norm2, self.norm3, self.feed_forward = old.norm1, old.norm2, old.norm3, old.ff
        self.own = SelfAttention(old.attn1, f"{name}.attn1")
        self.prompt = PromptAttention(old.attn2, context, f"{name}.attn2")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.own(self.norm1(x))
        x = x + self.prompt(self.norm2(x))
        return x + self.feed_forward(self.norm3(x))


class Transformer(nn.Module):
    """Transformer2DModel on a map (B, C, h, w) with a fixed prompt. Without its copies between memory formats."""

    def __init__(self, old: Any, context: Tensor, name: str) -> None:
        super().__init__()
        if not old.is_input_continuous:
            raise ValueError(f"{name}: a transformer on patches or codes, which cannot be specialised")
        self.norm, self.proj_in, self.proj_out = old.norm, old.proj_in, old.proj_out
        self.blocks = nn.ModuleList(
            TransformerBlock(block, context, f"{name}.transformer_blocks.{i}")
            for i, block in enumerate(old.transformer_blocks)
        )

    def forward(self, x: Tensor, **unused: Any) -> tuple[Tensor]:
        """As diffusers' blocks call it: further arguments are the prompt, a constant here, or None."""
        tokens = _linear(self.proj_in, self.norm(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens)
        return (x + _linear(self.proj_out, tokens).transpose(1, 2).unflatten(2, x.shape[-2:]),)


class EarlyProjection(nn.Module):
    """A DPT fusion stage that projects before it doubles the size: bilinear weights sum to 1, so the order is free."""

    def __init__(self, old: Any) -> None:
        super().__init__()
        self.own, self.projection = old.residual_layer2, old.projection
        self.other = getattr(old, "residual_layer1", None)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        if finer is not None and self.other is not None:
            if finer.shape[-2:] != x.shape[-2:]:  # odd latents, as in the head itself
                finer = F.interpolate(finer, x.shape[-2:], mode="bilinear", align_corners=False)
            x = x + self.other(finer)
        return F.interpolate(self.projection(self.own(x)), scale_factor=2.0, mode="bilinear", align_corners=True)


class Nothing(nn.Module):
    """In place of a module whose answer is folded elsewhere."""

    def forward(self, *unused: Any) -> None:
        return None


class Norm(nn.GroupNorm):
    """Group normalisation that rounds in channels_last on CPUs as it does elsewhere: float32 sums in blocks of rows.

    PyTorch's kernel for that case adds a group's pixels and their squares one after the other: on maps of 128 x 128 it is off
    by 2.6e-6 of the largest value where other formats are by 1e-7 (benchmarks/speed/rounding.md), and by more on larger ones.
    Compiled code has sums of its own.
    """

    def forward(self, x: Tensor) -> Tensor:
        poor = x.device.type == "cpu" and x.dtype == torch.float32 and x.ndim == 4 and is_channels_last(x)
        if not poor or torch.compiler.is_compiling():
            return super().forward(x)
        b, c, h, w = x.shape
        blocks = x.permute(0, 2, 3, 1).reshape(b, h * w, c).split(_ROWS, 1)
        sums = torch.stack([block.sum(1) for block in blocks]).double().sum(0)
        squares = torch.stack([torch.linalg.vector_norm(block, dim=1) for block in blocks]).double().square().sum(0)
        mean, square = (v.view(b, self.num_groups, -1).mean(-1) / (h * w) for v in (sums, squares))
        factor = torch.rsqrt((square - mean.square()).clamp_min(0) + self.eps).repeat_interleave(
            c // self.num_groups, 1
        )
        scale = factor if self.weight is None else factor * self.weight.double()
        shift = -mean.repeat_interleave(c // self.num_groups, 1) * scale
        if self.bias is not None:
            shift = shift + self.bias.double()
        return torch.addcmul(shift.float().view(b, c, 1, 1), x, scale.float().view(b, c, 1, 1))


_ROWS = 256  # pixels whose values are added up in float32, before the sums are in float64


STRIP = 1 << 20  # numbers in a strip of a map: 4 MiB in float32


def strips(
    x: Tensor, norm: Any, activation: nn.Module, conv: Any, add: Tensor | None = None, through: nn.Module | None = None
) -> Tensor:
    """conv(activation(norm(x))), strip by strip of rows: no second and third map of the size of x. 3 x 3, padding 1.

    The normalisation's statistics are those of the whole map, and strips read a row of their neighbours, so there are no
    seams: only rounding differs. add: what is added, `through` a 1 x 1 convolution; without one, in place.
    """
    b, c, h, w = x.shape
    rows = max(1, STRIP // (b * c * w))
    mean, variance = _moments(x, norm.num_groups, rows)
    scale = norm.weight.view(norm.num_groups, -1) * torch.rsqrt(variance + norm.eps)[..., None]
    shift = norm.bias.view(norm.num_groups, -1) - mean[..., None] * scale
    scale, shift = (v.reshape(b, c, 1, 1).to(x.dtype) for v in (scale, shift))
    out = add if add is not None and through is None else x.new_empty(b, conv.out_channels, h, w)
    for top in range(0, h, rows):
        end = min(h, top + rows)
        part = activation(torch.addcmul(shift, x[:, :, max(0, top - 1) : end + 1], scale))
        part = F.pad(part, (0, 0, int(top == 0), int(end == h)))
        part = F.conv2d(part, conv.weight, conv.bias, padding=(0, 1))
        if add is None:
            out[:, :, top:end] = part
        elif through is None:
            out[:, :, top:end] += part
        else:
            out[:, :, top:end] = part.add_(through(add[:, :, top:end]))
    return out


def _moments(x: Tensor, groups: int, rows: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each group, (B, groups), in float32 or more; strips are joined as by Chan et al. 1979."""
    mean = squares = x.new_zeros(len(x), groups, dtype=torch.float32)
    count = 0
    for part in x.split(rows, 2):
        values = part.reshape(len(x), groups, -1).to(torch.promote_types(x.dtype, torch.float32))
        n = values.shape[-1]
        variance, here = torch.var_mean(values, -1, correction=0)
        apart = here - mean
        mean = mean + apart * (n / (count + n))
        squares = squares + variance * n + apart.square() * (count * n / (count + n))
        count += n
    return mean, squares / count


def check_attention(old: Any, name: str) -> None:
    """ValueError for an attention layer with parts that the replacements do not have."""
    extras = ("norm_q", "norm_k", "spatial_norm", "norm_cross", "added_kv_proj_dim")
    if any(getattr(old, extra, None) is not None for extra in extras) or old.rescale_output_factor != 1:
        raise ValueError(f"{name}: an attention layer of a kind that cannot be specialised; use the plain pipeline")


def with_bias(conv: nn.Conv2d, bias: Tensor | None) -> nn.Conv2d:
    """A convolution of the same weight and another bias."""
    new = nn.Conv2d.__new__(nn.Conv2d)
    new.__dict__ = conv.__dict__ | {"_parameters": dict(conv._parameters)}
    new.bias = None if bias is None else frozen(bias, conv.weight)
    return new


def frozen(value: Tensor, like: Tensor) -> nn.Parameter:
    """A parameter that is not trained, in another one's dtype, device and (where both have four axes) memory format.

    The format of a convolution's weight becomes that of its answer, and float32 group normalisation of maps in channels_last
    rounds badly on CPUs: products of einsum, which lie anyhow, must not decide it.
    """
    tensor = value.detach().to(like)
    last = tensor.ndim == 4 and like.ndim == 4 and is_channels_last(like)
    tensor = tensor.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    return nn.Parameter(tensor, requires_grad=False)


def is_channels_last(x: Tensor) -> bool:
    """Whether a tensor of four axes lies so, and not both ways (1 x 1 kernels do)."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _in_place(activation: nn.Module) -> nn.Module:
    """SiLU without a second buffer: it is only called on what a normalisation has just written."""
    return nn.SiLU(inplace=True) if isinstance(activation, nn.SiLU) else activation


def _project(linear: Any, x: Tensor) -> Tensor:
    return F.linear(x.double(), linear.weight.double(), None if linear.bias is None else linear.bias.double())


def _linear(layer: Any, tokens: Tensor) -> Tensor:
    """A linear layer, or a 1 x 1 convolution, on tokens (B, N, C)."""
    return F.linear(tokens, layer.weight.flatten(1), layer.bias)
