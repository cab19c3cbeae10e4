"""The denoiser in PyTorch, as its user would write it: checked against a model file, then its training step timed beside ours.

    python benches/gpu/step.py --check models/denoise.safetensors --cascabel BIN                 # on the CPU: outputs of both
    python benches/gpu/step.py --time models/denoise.safetensors --cascabel BIN --recipe R.toml [--upstream FOLDER] [--eager]

Needs torch, numpy and safetensors. `--time` needs a GPU and the data that the recipe names; BIN is built with train-cuda. Both take turns, in runs of
`--steps` steps; a step is the gradient of the recipe's losses (PyTorch's without the envelope term) over a batch, clipping, AdamW and the weights' moving
average, and the medians are of single steps, ours from the run's log. FOLDER holds upstream's selective_scan_cuda.so (see scan.py); without it Mamba's
scan is PyTorch's associative one. S4D is a convolution by FFT. torch.compile unless `--eager`; products in TF32 where the recipe says so.
"""

import argparse
import importlib.util
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.numpy import save_file


# Upstream's compiled module, if it is there.
UPSTREAM = None


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


def selective_scan(u, dt, a, b, c, skip):
    """u, Δ [B, L, D], A [D, N], B, C [B, L, N], D [D]: y [B, L, D]."""
    if UPSTREAM is not None and u.is_cuda:
        lay = lambda x: x.transpose(1, 2).contiguous()
        y = Scan.apply(lay(u), lay(dt), a, lay(b).unsqueeze(1), lay(c).unsqueeze(1), skip)
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


class Denoiser(torch.nn.Module):
    def __init__(self, path):
        super().__init__()
        with safe_open(path, "np") as file:
            self.config = json.loads(file.metadata()["cascabel"])["config"]
            tensors = {k: torch.tensor(file.get_tensor(k).astype(np.float32)) for k in file.keys() if not k.startswith("settled.")}
        self.names = {k: k.replace(".", "_") for k in tensors}
        for k, v in tensors.items():
            self.register_parameter(self.names[k], torch.nn.Parameter(v))

    def p(self, name):
        return getattr(self, self.names[name])

    def linear(self, name, x, bias=True):
        return F.linear(x, self.p(f"{name}.weight"), self.p(f"{name}.bias") if bias else None)

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.p(f"{name}.weight"), self.p(f"{name}.bias"), 1e-5)

    def s4d(self, name, u):
        length = u.shape[1]
        dt = self.p(f"{name}.log_dt").exp()[:, None]
        a = torch.complex(-self.p(f"{name}.A_log").exp(), self.p(f"{name}.A_imag"))
        c = torch.view_as_complex(self.p(f"{name}.C"))
        b = (torch.exp(dt * a) - 1) / a
        powers = torch.exp((dt * a)[..., None] * torch.arange(length, device=u.device))
        kernel = 2 * torch.einsum("dn,dnl->dl", c * b, powers).real
        spectrum = torch.fft.rfft(u.transpose(1, 2), n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
        y = torch.fft.irfft(spectrum, n=2 * length)[..., :length].transpose(1, 2) + self.p(f"{name}.D") * u
        return F.glu(self.linear(f"{name}.out_proj", F.gelu(y)))

    def mamba(self, name, u):
        a = -self.p(f"{name}.A_log").exp()
        inner, states = a.shape
        x, z = self.linear(f"{name}.in_proj", u, False).split(inner, -1)
        taps = self.p(f"{name}.conv1d.weight")
        x = F.pad(x.transpose(1, 2), (taps.shape[1] - 1, 0))
        x = F.silu(F.conv1d(x, taps[:, None], self.p(f"{name}.conv1d.bias"), groups=inner)).transpose(1, 2)
        dbc = self.linear(f"{name}.x_proj", x, False)
        dt, b, c = dbc.split([dbc.shape[-1] - 2 * states, states, states], -1)
        dt = F.softplus(self.linear(f"{name}.dt_proj", dt))
        y = selective_scan(x, dt, a, b, c, self.p(f"{name}.D")) * F.silu(z)
        return self.linear(f"{name}.out_proj", y, False)

    def blocks(self, name, x, tier, count):
        mixer = {"s4d": self.s4d, "mamba": self.mamba}[tier["mixer"]["kind"]]
        for j in range(count):
            x = x + mixer(f"{name}.{j}.mixer", self.norm(f"{name}.{j}.norm", x))
            if tier.get("feed_forward"):
                y = self.norm(f"{name}.{j}.ff.norm", x)
                x = x + self.linear(f"{name}.{j}.ff.out_proj", F.gelu(self.linear(f"{name}.{j}.ff.in_proj", y)))
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

    def forward(self, x):
        """x [B, T], T a multiple of hop and pool: [B, T], `basis_window` samples late."""
        c = self.config
        hop, basis = c["hop"], c["basis_window"]
        seen = max(c["window"], basis)
        frames = F.pad(x, (seen - hop, 0)).unfold(1, seen, hop)
        y = self.linear("encoder", frames[..., seen - c["window"] :])
        y = torch.relu(y) if c.get("features_act", "none") == "relu" else y
        masks = self.linear("mask", self.norm("norm_f", self.tier(0, y)))
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


def magnitudes(x, floor):
    return torch.sqrt(x.real.square() + x.imag.square() + floor * floor)


def losses(estimate, target, loss):
    total = loss["l1"] * (estimate - target).abs().mean(1)
    n, floor = estimate.shape[1], 1e-10
    alpha = (estimate * target).sum(1, keepdim=True) / (target.square().sum(1, keepdim=True) + floor * n)
    off = (estimate - alpha * target).square().sum(1) + floor * n
    total = total + loss["si_sdr"] * 10 * torch.log10(off / ((alpha * target).square().sum(1) + floor * n))
    for size, hop in loss["resolutions"]:
        window = torch.hann_window(size, device=estimate.device)
        scale = 1 / window.square().sum().sqrt()
        spectrum = lambda x: torch.stft(x, size, hop, window=window, center=True, pad_mode="constant", return_complex=True) * scale
        x, y = spectrum(estimate), spectrum(target)
        r, q = magnitudes(x, 3e-5), magnitudes(y, 3e-5)
        a, b = r**-0.7, q**-0.7
        gap = r * a - q * b
        weighed = torch.where(gap < 0, loss["asymmetry"] * gap.square(), gap.square())
        d = x * a - y * b
        share = 1 / len(loss["resolutions"])
        total = total + share * loss["compressed_magnitude"] * weighed.mean((1, 2)) + share * loss["compressed_complex"] * (d.real.square() + d.imag.square()).mean((1, 2))
    return total.mean()


def check(path, cascabel):
    """Our output of a model without settled state, against PyTorch's."""
    torch.manual_seed(1)
    x = 0.1 * torch.randn(8192)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with safe_open(path, "np") as file:
            kept = {k: file.get_tensor(k) for k in file.keys() if not k.startswith("settled.")}
            save_file(kept, folder / "m.safetensors", file.metadata())
        # A WAV file of floats.
        data = x.numpy().tobytes()
        head = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, 16000, 64000, 4, 32) + b"data"
        (folder / "x.wav").write_bytes(head + struct.pack("<I", len(data)) + data)
        line = [cascabel, "process", folder / "x.wav", "-o", folder / "y.wav", "--model", folder / "m.safetensors", "--depth", "32f"]
        subprocess.run(line, check=True, stderr=subprocess.DEVNULL)
        ours = np.frombuffer((folder / "y.wav").read_bytes()[-len(data) :], np.float32)
    net = Denoiser(path).double()
    late = net.config["basis_window"]
    theirs = net(F.pad(x, (0, 512)).double()[None])[0, late : late + len(x)].detach().numpy()
    off = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"outputs within {off:.1e} of PyTorch's in float64, max-norm, {len(x)} samples")
    if off > 1e-4:
        sys.exit("step: the two are not the same model")


def our_steps(cascabel, recipe, steps, folder):
    """Milliseconds of each step of a run, the first few left out."""
    text = recipe.read_text()
    lines = [f"steps = {steps}" if line.startswith("steps =") else "warm_up = 2" if line.startswith("warm_up") else line for line in text.splitlines()]
    lines = ["settle_seconds = 1" if line.startswith("settle_seconds") else "valid_examples = 1" if line.startswith("valid_examples") else line for line in lines]
    (folder / "r.toml").write_text("\n".join(lines))
    subprocess.run([cascabel, "train", folder / "r.toml", "--device", "cuda", "--out", folder / "out"], check=True, stderr=subprocess.DEVNULL)
    [log] = (folder / "out").glob("*.log.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    seconds = [e["seconds"] for e in events if e["event"] == "step"]
    return [1e3 * (b - a) for a, b in zip(seconds, seconds[1:])][10:]


def their_steps(step, steps):
    times = []
    for _ in range(steps):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begun))
    return times[10:]


def timed(args):
    global UPSTREAM
    import tomllib

    recipe = tomllib.loads(args.recipe.read_text())
    if args.upstream:
        sys.setdlopenflags(os.RTLD_LAZY)
        spec = importlib.util.spec_from_file_location("selective_scan_cuda", Path(args.upstream) / "selective_scan_cuda.so")
        UPSTREAM = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(UPSTREAM)
    torch.backends.cuda.matmul.allow_tf32 = recipe["run"].get("products") == "tf32"
    net = Denoiser(args.time).cuda()
    batch, samples = recipe["run"]["batch"], int(recipe["mix"]["seconds"] * 16000)
    run = net if args.eager else torch.compile(net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=tuple(recipe["optimiser"]["betas"]), weight_decay=0.02, fused=True)
    average = [p.detach().clone() for p in net.parameters()]
    noisy, clean = torch.randn(batch, samples).pin_memory(), torch.randn(batch, samples).pin_memory()
    late = net.config["basis_window"]

    def step():
        x, y = noisy.cuda(non_blocking=True), clean.cuda(non_blocking=True)
        loss = losses(run(x)[:, late:], y[:, : samples - late], recipe["loss"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        torch._foreach_lerp_(average, [p.detach() for p in net.parameters()], 1e-3)

    for _ in range(5):
        step()
    ours, theirs = [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            ours += our_steps(args.cascabel, args.recipe, args.steps, Path(folder))
        theirs += their_steps(step, args.steps)
    found = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "upstream": bool(args.upstream), "compiled": not args.eager, "batch": batch,
             "samples": samples, "our_ms": statistics.median(ours), "their_ms": statistics.median(theirs)}
    found["ratio"] = found["their_ms"] / found["our_ms"]
    print(json.dumps(found))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", type=Path)
    p.add_argument("--time", type=Path)
    p.add_argument("--cascabel", default="cascabel")
    p.add_argument("--recipe", type=Path)
    p.add_argument("--upstream")
    p.add_argument("--eager", action="store_true")
    p.add_argument("--steps", type=int, default=60)
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_args()
    if args.check:
        check(args.check, args.cascabel)
    if args.time:
        timed(args)


if __name__ == "__main__":
    main()
