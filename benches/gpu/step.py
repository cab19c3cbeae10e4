"""Models in PyTorch, as their user would write them (nets.py): checked against a model file, then a training step timed beside ours.

    python benches/gpu/step.py --check models/denoise.safetensors --cascabel BIN                 # on the CPU: outputs of both
    python benches/gpu/step.py --time models/denoise.safetensors --cascabel BIN --recipe R.toml [--upstream FOLDER] [--compile HOW]
    python benches/gpu/step.py --time-generator 6m.safetensors --generator BIN [--upstream FOLDER] [--compile HOW] [--products P]

Needs torch, numpy and safetensors. Timing needs a GPU. Denoiser: the data that the recipe names; BIN is cascabel, built with train-cuda; a step is the gradient of
the recipe's losses (PyTorch's without the envelope term) over a batch, clipping, AdamW and the weights' moving average. Generator: BIN is the bench `generator`
(benches/gpu/generator.rs), which writes the model too; losses and gradients of the first steps are compared on the way. Both take turns, in runs of
`--steps` steps; medians of single steps. FOLDER holds upstream's selective_scan_cuda.so (see scan.py); without it Mamba's scan is PyTorch's associative one.
HOW: `whole` (torch.compile of the model), `blocks` (of each kind of block), `none`. Products in TF32 where the recipe, or P, says so.
"""

import argparse
import json
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nets
import numpy as np
import torch
import torch.nn.functional as F
from nets import Denoiser, Generator
from safetensors import safe_open
from safetensors.numpy import save_file


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


def prepared(net, how):
    """The net as it is called, its optimiser and the weights' moving average."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.02, fused=True)
    average = [p.detach().clone() for p in net.parameters()]
    return torch.compile(net) if how == "whole" else net, optimiser, average


def moved(net, loss, optimiser, average):
    """One step along the gradient of a loss; the gradient's length."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    length = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimiser.step()
    torch._foreach_lerp_(average, [p.detach() for p in net.parameters()], 1e-3)
    return length


def report(args, ours, theirs, **more):
    found = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "upstream": nets.UPSTREAM is not None, "compiled": args.compile, **more,
             "our_ms": statistics.median(ours), "their_ms": statistics.median(theirs)}
    found["ratio"] = found["their_ms"] / found["our_ms"]
    print(json.dumps(found), flush=True)


def time_denoiser(args):
    import tomllib

    recipe = tomllib.loads(args.recipe.read_text())
    torch.backends.cuda.matmul.allow_tf32 = recipe["run"].get("products") == "tf32"
    net = Denoiser(args.time, args.compile == "blocks").cuda()
    batch, samples = recipe["run"]["batch"], int(recipe["mix"]["seconds"] * 16000)
    run, optimiser, average = prepared(net, args.compile)
    noisy, clean = torch.randn(batch, samples).pin_memory(), torch.randn(batch, samples).pin_memory()
    late = net.config["basis_window"]

    def step():
        x, y = noisy.cuda(non_blocking=True), clean.cuda(non_blocking=True)
        moved(net, losses(run(x)[:, late:], y[:, : samples - late], recipe["loss"]), optimiser, average)

    begun = time.perf_counter()
    for _ in range(5):
        step()
    print(f"five steps, compiling among them: {time.perf_counter() - begun:.0f} s", flush=True)
    ours, theirs = [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            ours += our_steps(args.cascabel, args.recipe, args.steps, Path(folder))
        theirs += their_steps(step, args.steps)
    report(args, ours, theirs, batch=batch, samples=samples)


def tokens(count):
    """The tokens that benches/gpu/generator.rs draws."""
    seed, out = 1, np.empty(count, np.int64)
    for i in range(count):
        seed = (seed * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = seed >> 24
    return torch.from_numpy(out)


def time_generator(args):
    batch, samples, compared = 16, 16000, 3
    torch.backends.cuda.matmul.allow_tf32 = args.products == "tf32"
    net = Generator(args.time_generator, args.compile == "blocks").cuda()
    run, optimiser, average = prepared(net, args.compile)
    drawn = tokens(compared * batch * (samples + 1)).reshape(compared, batch, samples + 1).pin_memory()

    def step(i=0):
        x = drawn[i % compared].cuda(non_blocking=True)
        loss = F.cross_entropy(run(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        return loss, moved(net, loss, optimiser, average)

    begun = time.perf_counter()
    first = [[float(x) for x in step(i)] for i in range(compared)]
    print(f"{compared} steps, compiling among them: {time.perf_counter() - begun:.0f} s", flush=True)
    line = [args.generator, "--bench", "--model", args.time_generator, "--steps", str(args.steps), "--products", args.products]
    ours, theirs, off = [], [], 0
    for _ in range(args.rounds):
        found = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
        ours += found["ms"][10:]
        theirs += their_steps(step, args.steps)
        pairs = [(a, b) for (loss, length), i in zip(first, range(compared)) for a, b in ((found["losses"][i], loss), (found["norms"][i], length))]
        off = max(off, *(abs(a - b) / b for a, b in pairs))
    print(f"losses and gradients' lengths of {compared} steps differ by {off:.1e} at most: {first}", flush=True)
    report(args, ours, theirs, batch=batch, samples=samples, products=args.products, parameters=found["parameters"])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", type=Path)
    p.add_argument("--time", type=Path)
    p.add_argument("--time-generator", type=Path)
    p.add_argument("--cascabel", default="cascabel")
    p.add_argument("--generator")
    p.add_argument("--recipe", type=Path)
    p.add_argument("--upstream")
    p.add_argument("--compile", choices=["whole", "blocks", "none"], default="whole")
    p.add_argument("--products", choices=["f32", "tf32"], default="tf32")
    p.add_argument("--steps", type=int, default=60)
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_args()
    if args.steps < 12:
        p.error(f"--steps: expected at least 12, of which the first ten are left out, got {args.steps}")
    if args.upstream:
        nets.load_upstream(args.upstream)
    if args.check:
        check(args.check, args.cascabel)
    if args.time:
        time_denoiser(args)
    if args.time_generator:
        time_generator(args)


if __name__ == "__main__":
    main()
