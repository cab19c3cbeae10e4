"""Models of this project in PyTorch, as its user would write them: tensors by name from a model file, S4D by FFT convolution, Mamba's scan by
upstream's CUDA kernel where it was loaded, by PyTorch's associative scan without it, row by row on a CPU."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open

# Upstream's compiled module, if it is there.
UPSTREAM = None


def load_upstream(folder):
    """FOLDER/selective_scan_cuda.so, as scan.py builds it."""
    global UPSTREAM
    # What it was built without is bound on first use, which does not come.
    before = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_LAZY)
    spec = importlib.util.spec_from_file_location("selective_scan_cuda", Path(folder) / "selective_scan_cuda.so")
    UPSTREAM = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(UPSTREAM)
    sys.setdlopenflags(before)


class Scan(torch.autograd.Function):
    """Upstream's CUDA scan: u, Δ [B, D, L], A [D, N], B, C [B, 1, N, L], D [D]."""

    @staticmethod
    def forward(ctx, u, dt, a, b, c, skip):
        y, x, *_ = UPSTREAM.fwd(u, dt, a, b, c, skip, None, None, False)
        ctx.save_for_backward(u, dt, a, b, c, skip, x)
        return y

    @staticmethod
    def backward(ctx, gy):
        u, dt, a, b, c, skip, x = ctx.saved_tensors
        du, ddt, da, db, dc, dskip, *_ = UPSTREAM.bwd(u, dt, a, b, c, skip, None, None, gy.contiguous(), x, None, None, False, False)
        return du, ddt, da, db, dc, dskip


# The compiler cannot look into it.
upstream_scan = torch.compiler.disable(lambda *given: Scan.apply(*given))


def selective_scan(u, dt, a, b, c, skip):
    """u, Δ [B, L, D], A [D, N], B, C [B, L, N], D [D]: y [B, L, D]."""
    if UPSTREAM is not None and u.is_cuda:
        lay = lambda x: x.transpose(1, 2).contiguous()
        y = upstream_scan(lay(u), lay(dt), a, lay(b).unsqueeze(1), lay(c).unsqueeze(1), skip)
        return y.transpose(1, 2)
    e = torch.exp(dt[..., None] * a)
    x = (dt * u)[..., None] * b[:, :, None]
    if u.is_cuda:
        from torch._higher_order_ops.associative_scan import associative_scan

        both = lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1])
        _, h = associative_scan(both, (e, x), dim=1, combine_mode="pointwise")
    else:
        rows, last = [], torch.zeros_like(x[:, 0])
        for t in range(u.shape[1]):
            last = e[:, t] * last + x[:, t]
            rows.append(last)
        h = torch.stack(rows, 1)
    return (h * c[:, :, None]).sum(-1) + skip * u


def norm(x, weight, bias):
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)


def s4d_block(x, p):
    """x + S4D(norm(x)), tensors by the block's own names."""
    u = norm(x, p["norm.weight"], p["norm.bias"])
    length = u.shape[1]
    dt = p["mixer.log_dt"].exp()[:, None]
    a = torch.complex(-p["mixer.A_log"].exp(), p["mixer.A_imag"])
    c = torch.view_as_complex(p["mixer.C"])
    b = (torch.exp(dt * a) - 1) / a
    powers = torch.exp((dt * a)[..., None] * torch.arange(length, device=u.device))
    kernel = 2 * torch.einsum("dn,dnl->dl", c * b, powers).real
    spectrum = torch.fft.rfft(u.transpose(1, 2), n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
    y = torch.fft.irfft(spectrum, n=2 * length)[..., :length].transpose(1, 2) + p["mixer.D"] * u
    return x + F.glu(F.linear(F.gelu(y), p["mixer.out_proj.weight"], p["mixer.out_proj.bias"]))


def mamba_block(x, p):
    """x + Mamba(norm(x))."""
    u = norm(x, p["norm.weight"], p["norm.bias"])
    a = -p["mixer.A_log"].exp()
    inner, states = a.shape
    v, z = F.linear(u, p["mixer.in_proj.weight"]).split(inner, -1)
    taps = p["mixer.conv1d.weight"]
    v = F.pad(v.transpose(1, 2), (taps.shape[1] - 1, 0))
    v = F.silu(F.conv1d(v, taps[:, None], p["mixer.conv1d.bias"], groups=inner)).transpose(1, 2)
    dbc = F.linear(v, p["mixer.x_proj.weight"])
    dt, b, c = dbc.split([dbc.shape[-1] - 2 * states, states, states], -1)
    dt = F.softplus(F.linear(dt, p["mixer.dt_proj.weight"], p["mixer.dt_proj.bias"]))
    y = selective_scan(v, dt, a, b, c, p["mixer.D"]) * F.silu(z)
    return x + F.linear(y, p["mixer.out_proj.weight"])


def feed_forward(x, p):
    """x + feed_forward(norm(x))."""
    u = norm(x, p["ff.norm.weight"], p["ff.norm.bias"])
    y = F.gelu(F.linear(u, p["ff.in_proj.weight"], p["ff.in_proj.bias"]))
    return x + F.linear(y, p["ff.out_proj.weight"], p["ff.out_proj.bias"])


class Net(torch.nn.Module):
    """Tiers of blocks. With `compiled`, each kind of block is compiled by itself, so that it is once for all of its kind."""

    def __init__(self, path, compiled=False):
        super().__init__()
        with safe_open(path, "np") as file:
            self.config = json.loads(file.metadata()["cascabel"])["config"]
            tensors = {k: torch.tensor(file.get_tensor(k).astype(np.float32)) for k in file.keys() if not k.startswith("settled.")}
        self.names = {k: k.replace(".", "_") for k in tensors}
        for k, v in tensors.items():
            self.register_parameter(self.names[k], torch.nn.Parameter(v))
        made = torch.compile if compiled else lambda f: f
        self.mixers = {"s4d": made(s4d_block), "mamba": made(mamba_block)}
        self.feed_forward = made(feed_forward)

    def p(self, name):
        return getattr(self, self.names[name])

    def under(self, name):
        """The tensors of a block."""
        return {k[len(name) + 1 :]: getattr(self, v) for k, v in self.names.items() if k.startswith(name + ".")}

    def linear(self, name, x, bias=True):
        return F.linear(x, self.p(f"{name}.weight"), self.p(f"{name}.bias") if bias else None)

    def last_norm(self, x):
        return norm(x, self.p("norm_f.weight"), self.p("norm_f.bias"))

    def blocks(self, name, x, tier, count):
        for j in range(count):
            p = self.under(f"{name}.{j}")
            x = self.mixers[tier["mixer"]["kind"]](x, {k: v for k, v in p.items() if not k.startswith("ff.")})
            if tier.get("feed_forward"):
                x = self.feed_forward(x, {k: v for k, v in p.items() if k.startswith("ff.")})
        return x

    def tier(self, i, x):
        tiers = self.config["tiers"]
        this = tiers[i]
        if i + 1 == len(tiers):
            return self.blocks(f"tiers.{i}.layers", x, this, this["blocks"])
        skip = self.blocks(f"tiers.{i}.down", x, this, this["blocks"])
        pool, (s, t, d) = tiers[i + 1]["pool"], skip.shape
        coarse = self.tier(i + 1, self.linear(f"tiers.{i}.pool", skip.reshape(s, t // pool, pool * d)))
        fine = self.linear(f"tiers.{i}.unpool", coarse).reshape(s, t, d)
        # A coarse row is whole with its last fine row and serves the next ones.
        x = skip + F.pad(fine, (0, 0, pool, 0))[:, :t]
        return self.blocks(f"tiers.{i}.up", x, this, this.get("blocks_up") or this["blocks"])


class Generator(Net):
    def forward(self, tokens):
        """tokens [B, T], T a multiple of all pools: logits [B, T, 256] of the next ones."""
        return self.linear("head", self.last_norm(self.tier(0, F.embedding(tokens, self.p("embedding.weight")))))


class Denoiser(Net):
    def forward(self, x):
        """x [B, T], T a multiple of hop and pool: [B, T], `basis_window` samples late."""
        c = self.config
        hop, basis = c["hop"], c["basis_window"]
        seen = max(c["window"], basis)
        frames = F.pad(x, (seen - hop, 0)).unfold(1, seen, hop)
        y = self.linear("encoder", frames[..., seen - c["window"] :])
        y = torch.relu(y) if c.get("features_act", "none") == "relu" else y
        masks = self.linear("mask", self.last_norm(self.tier(0, y)))
        older, total, at = frames[..., seen - basis :], 0, 0
        parts = masks.split(basis, -1)
        names = ["basis", "quadrature.basis"] if c.get("quadrature") else ["basis"]
        for k, name in enumerate(names):
            coefficients = self.linear(name, older, False)
            for i, delay in enumerate(c.get("taps", [0])):
                held = F.pad(coefficients, (0, 0, delay, 0))[:, : coefficients.shape[1]]
                total = total + held * parts[i * len(names) + k]
        z = self.linear("decoder", total, False)
        # Row j is laid over samples (j + 1)·hop ..: the sum of its pieces, each a hop later.
        pieces = z.reshape(*z.shape[:2], basis // hop, hop)
        out = sum(F.pad(pieces[:, :, k], (0, 0, k + 1, 0))[:, : z.shape[1]] for k in range(basis // hop))
        return out.reshape(x.shape)
