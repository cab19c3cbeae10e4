"""The scan's kernels on an NVIDIA GPU: checked against float64, then timed beside upstream's CUDA scan and the chip's floors.

    NVCC=nvcc python benches/gpu/scan.py [--check] [--time] [--upstream FOLDER] [--associative] [--json OUT]

Needs torch, cupy and nvcc; FOLDER holds the unpacked source package of `mamba-ssm` 2.3.2.post1, which is built now (90 s on 12 cores), or what
that gave, selective_scan_cuda.so.
All systems take turns in one process, round by round; medians.
"""

import argparse
import importlib.util
import json
import math
import os
import statistics
import sys
import tempfile
from pathlib import Path

import cupy
import torch

from scan_launches import SMS, Scan, Shape


def inputs(shape, s, t, seed):
    g = torch.Generator(device="cuda").manual_seed(seed)
    normal = lambda *size: torch.randn(*size, generator=g, device="cuda")
    n, d = shape.n, shape.d
    if shape.selective:
        dt = torch.exp(torch.rand(s, t, d, generator=g, device="cuda") * math.log((0.1 if shape.complex else 1.0) / 1e-3)) * 1e-3
        rows = torch.cat([normal(s, t, d), dt, normal(s, t, 2 * shape.r)], 2)
        a = -torch.arange(1, n + 1, device="cuda").float()[:, None].expand(n, d) * (1 + 0.1 * torch.rand(n, d, generator=g, device="cuda"))
        if shape.complex:
            a = torch.cat([-0.5 - torch.rand(n, d, generator=g, device="cuda"), math.pi * torch.arange(n, device="cuda").float()[:, None].expand(n, d)])
        params = torch.cat([a.reshape(-1), normal(d)])
    else:
        rows = normal(s, t, d)
        size = torch.exp(-torch.exp(torch.rand(n, d, generator=g, device="cuda") * 4 - 5))
        turn = torch.rand(n, d, generator=g, device="cuda") * 3
        a = torch.cat([size * turn.cos(), size * turn.sin()]) if shape.complex else size
        params = torch.cat([a.reshape(-1), 0.1 * normal(shape.r * d), normal(shape.r * d), normal(d)])
    return rows.contiguous(), params.contiguous(), normal(s, shape.r, d).contiguous()


def states_by_row(e, x, h):
    """h ← e·h + x of all rows [S, T, ..], one after the other."""
    hs = []
    for i in range(e.shape[1]):
        h = e[:, i] * h + x[:, i]
        hs.append(h)
    return torch.stack(hs, 1)


def states_by_square(e, x, h):
    """The same for many rows: √T pieces side by side, then the states in which they begin."""
    t, side = e.shape[1], math.isqrt(e.shape[1] - 1) + 1
    more = torch.ones_like(e[:, :1]).expand(-1, side * side - t, -1, -1)
    cut = lambda z: z.reshape(z.shape[0], side, side, *z.shape[2:]).transpose(1, 2)
    e, x = cut(torch.cat([e, more], 1)), cut(torch.cat([x, 0 * more], 1))
    own = states_by_row(e, x, torch.zeros_like(x[:, 0]))
    by = states_by_row(e, torch.zeros_like(x), torch.ones_like(x[:, 0]))
    begins = torch.cat([h[:, None], states_by_row(by[:, -1], own[:, -1], h)[:, :-1]], 1)
    return (own + by * begins[:, None]).transpose(1, 2).flatten(1, 2)[:, :t]


def reference(shape, rows, params, h0, states=None):
    """(y, h) in float64."""
    s, t, _ = rows.shape
    d, n, r = shape.d, shape.n, shape.r
    states = states or (states_by_row if t <= 4096 else states_by_square)
    pair = lambda x: torch.complex(x[..., :n, :], x[..., n:, :]) if shape.complex else x
    tables = params[:-d].reshape(-1, r, d)
    skip = params[-d:]
    u = rows[..., :d]
    if shape.selective:
        dt = rows[..., d : 2 * d]
        of = lambda x: torch.view_as_complex(x.reshape(s, t, n, 2).contiguous()) if shape.complex else x
        b, c = of(rows[..., 2 * d : 2 * d + r])[..., None], of(rows[..., 2 * d + r :])[..., None]
        e, x = torch.exp(dt[:, :, None] * pair(tables[0])), b * (dt * u)[:, :, None]
    else:
        a, b, c = map(pair, tables)
        e, x = a.expand(s, t, n, d), b * u[:, :, None]
    h = states(e, x, pair(h0))
    y = (c * h).sum(2)
    y, h = (2 * y.real if shape.complex else y) + skip * u, h[:, -1]
    return y, torch.cat([h.real, h.imag], 1) if shape.complex else h


def off(a, b):
    a, b = a.double().flatten(), b.double().flatten()
    return ((a - b).abs().max() / b.abs().max()).item() if bool(torch.isfinite(a).all()) else math.inf


def check(scan, shape, s, t, seed=0, dtype=torch.float32, resident=None):
    rows, params, h0 = inputs(shape, s, t, seed)
    rows = rows.to(dtype)
    gy, gh = torch.randn(s, t, shape.d, device="cuda").to(dtype), torch.randn_like(h0)
    y, states = scan.forward(shape, rows, params, h0, resident)
    got = [y, states[:, 0], *scan.backward(shape, rows, params, h0, states, gy, gh, resident)]
    wide = [x.double().requires_grad_() for x in (rows, params, h0)]
    ey, eh = reference(shape, *wide)
    grads = torch.autograd.grad((ey * gy.double()).sum() + (eh * gh.double()).sum(), wide)
    d = shape.d
    names = ["y", "h", "params", "h0", "du"] + (["ddt", "dBC"] if shape.selective else [])
    grows = [(got[2][..., :d], grads[0][..., :d])] + ([(got[2][..., d:2 * d], grads[0][..., d:2 * d]), (got[2][..., 2 * d:], grads[0][..., 2 * d:])] if shape.selective else [])
    pairs = [(got[0], ey), (got[1].reshape(eh.shape), eh), (got[3], grads[1]), (got[4], grads[2]), *grows]
    errors = {name: off(a, b) for name, (a, b) in zip(names, pairs)}
    bound = 1e-5 if dtype == torch.float32 else 3e-2
    bad = any(not e < bound for e in errors.values())
    print(f"{'BAD ' if bad else 'ok  '} {shape.name} d{d} n{shape.n} S{s} T{t} {str(dtype)[6:]} resident {resident}:", " ".join(f"{k} {v:.1e}" for k, v in errors.items()), flush=True)
    return not bad


def check_all(scan):
    for shape in (Shape(5, 3), Shape(5, 3, True, False)):
        given = [x.double() for x in inputs(shape, 2, 37, 1)]
        plain, square = (reference(shape, *given, states) for states in (states_by_row, states_by_square))
        assert all(off(a, b) < 1e-13 for a, b in zip(square, plain)), "the two references differ"
    good = True
    for complex in (False, True):
        for selective in (True, False):
            for d, n in ((1, 1), (17, 3), (64, 16), (70, 16), (33, 40), (8, 64)):
                for s, t in ((2, 1), (3, 33), (2, 300)):
                    good &= check(scan, Shape(d, n, complex, selective), s, t, seed=t)
            good &= check(scan, Shape(208, 16, complex, selective), 1, 2049)
            if selective:
                good &= check(scan, Shape(128, 16, complex, selective), 2, 700, resident=1)
    # As many streams as fill the chip once, or four times: no segments.
    for d, n, t, times in ((256, 16, 1001, 1), (132, 8, 700, 1), (512, 16, 333, 4)):
        s = times * SMS // -(-d // 16)
        assert scan.turns(Shape(d, n), s, t, torch.float32), (d, n, s, t)
        good &= check(scan, Shape(d, n), s, t)
    good &= check(scan, Shape(256, 16), SMS // 16, 1000, dtype=torch.bfloat16)
    good &= check(scan, Shape(256, 16), 2, 1000, dtype=torch.bfloat16)
    for shape in (Shape(16, 16), Shape(8, 8, True), Shape(16, 16, False, False), Shape(8, 8, True, False)):
        good &= check(scan, shape, 1, 1 << 20)
    good &= check(scan, Shape(16, 16), 1, 1 << 20, dtype=torch.bfloat16)
    return good


def rates():
    """(FP32 instructions, ex2) a second and bytes a second of a copy, each over the whole chip."""
    code = r"""
    extern "C" __global__ void fma_rate(float *out, float x) {
        float a[16];
        for (int i = 0; i < 16; i++) a[i] = x + i + threadIdx.x;
        for (int k = 0; k < 4096; k++)
            for (int i = 0; i < 16; i++) a[i] = fmaf(a[i], x, 0.5f);
        float sum = 0;
        for (int i = 0; i < 16; i++) sum += a[i];
        if (sum == 12345.0f) *out = sum;
    }
    extern "C" __global__ void ex2_rate(float *out, float x) {
        float a[16];
        for (int i = 0; i < 16; i++) a[i] = x * i;
        for (int k = 0; k < 1024; k++)
            for (int i = 0; i < 16; i++) asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(a[i]));
        float sum = 0;
        for (int i = 0; i < 16; i++) sum += a[i];
        if (sum == 12345.0f) *out = sum;
    }"""
    module = cupy.RawModule(code=code)
    out = torch.zeros(1, device="cuda")
    blocks, threads = SMS * 8, 256
    run = lambda name: (lambda: module.get_function(name)((blocks,), (threads,), (out.data_ptr(), cupy.float32(0.3))))
    x = torch.empty(1 << 28, device="cuda")
    z = torch.empty_like(x)
    times = timed({"fma": run("fma_rate"), "ex2": run("ex2_rate"), "copy": lambda: z.copy_(x)})
    lanes = blocks * threads * 16
    return {"fp32_per_s": lanes * 4096 / times["fma"], "ex2_per_s": lanes * 1024 / times["ex2"], "bytes_per_s": 2 * 4 * x.numel() / times["copy"]}


def timed(systems, rounds=12):
    """Median seconds of each, taking turns."""
    for f in systems.values():
        f(), f()
    torch.cuda.synchronize()
    times = {name: [] for name in systems}
    for _ in range(rounds):
        for name, f in systems.items():
            # The device is kept busy until all of a call is sent: neither side's host is timed.
            torch.cuda._sleep(2_000_000)
            a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            a.record(), f(), b.record()
            torch.cuda.synchronize()
            times[name].append(a.elapsed_time(b) / 1e3)
    return {name: statistics.median(t) for name, t in times.items()}


def upstream(folder):
    from torch.utils.cpp_extension import load

    # What is timed alone is built; the rest is bound on first use, which does not come.
    sys.setdlopenflags(os.RTLD_LAZY)
    built = Path(folder) / "selective_scan_cuda.so"
    if built.exists():
        spec = importlib.util.spec_from_file_location("selective_scan_cuda", built)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    source = Path(folder) / "csrc/selective_scan"
    flags = ["-O3", "-std=c++17", "--expt-relaxed-constexpr", "--expt-extended-lambda", "--use_fast_math", "-lineinfo"]
    flags += [f"-U__CUDA_NO_{t}_{w}__" for t in ("HALF", "BFLOAT16", "BFLOAT162") for w in ("OPERATORS", "CONVERSIONS")]
    build = Path(folder) / "build"
    build.mkdir(exist_ok=True)
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "9.0")
    names = ("selective_scan.cpp", "selective_scan_fwd_fp32.cu", "selective_scan_fwd_bf16.cu", "selective_scan_bwd_fp32_real.cu", "selective_scan_bwd_bf16_real.cu")
    files = [str(source / name) for name in names]
    return load("selective_scan_cuda", files, extra_cflags=["-O3", "-std=c++17"], extra_cuda_cflags=flags, extra_ldflags=["-Wl,-z,lazy"], build_directory=str(build), verbose=False)


def associative():
    """Forward of a selective scan by PyTorch's associative scan, compiled."""
    from torch._higher_order_ops.associative_scan import associative_scan

    def both(a, b):
        return a[0] * b[0], b[0] * a[1] + b[1]

    # Each size is compiled by itself: of a size taken for one of many it makes no kernel.
    @torch.compile(dynamic=False)
    def run(rows, a, skip, d):
        u, dt, b, c = rows[..., :d], rows[..., d : 2 * d], rows[..., 2 * d : 2 * d + 16], rows[..., 2 * d + 16 :]
        e = torch.exp(dt[:, :, None] * a)
        x = b[..., None] * (dt * u)[:, :, None]
        _, h = associative_scan(both, (e, x), dim=1, combine_mode="pointwise")
        return (c[..., None] * h).sum(2) + skip * u

    return run


WORK = [(8, 256, 16000), (1, 256, 131072), (1, 128, 1 << 17), (1, 128, 1 << 20), (8, 1024, 4096)]
# FP32 instructions a state and row: Δ·A, B·x, the recurrence, C·h; and, backward, these but the last again, g, B̄, C̄, x̄, Ā (2), Δ̄, ē·g.
FORWARD_FP32, BACKWARD_FP32 = 4, 3 + 8


def time_all(scan, theirs, compiled_scan):
    chip = rates()
    print(json.dumps(chip), flush=True)
    record = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "chip": chip, "work": []}
    for dtype in (torch.float32, torch.bfloat16):
        size = dtype.itemsize
        for s, d, t in WORK:
            shape = Shape(d, 16)
            rows, params, h0 = inputs(shape, s, t, 1)
            rows = rows.to(dtype)
            gy, gh = torch.randn(s, t, d, device="cuda").to(dtype), torch.zeros_like(h0)
            h0 = torch.zeros_like(h0)
            y, states = scan.forward(shape, rows, params, h0)
            systems = {"forward": lambda: scan.forward(shape, rows, params, h0), "backward": lambda: scan.backward(shape, rows, params, h0, states, gy, gh)}
            if theirs:
                across = lambda x: x.transpose(1, 2).contiguous()
                u, dt, b, c = across(rows[..., :d]), across(rows[..., d : 2 * d]), across(rows[..., 2 * d : 2 * d + 16])[:, None], across(rows[..., 2 * d + 16 :])[:, None]
                a, skip, dout = params[:-d].reshape(16, d).T.contiguous(), params[-d:].contiguous(), across(gy)
                out, x, *_ = theirs.fwd(u, dt, a, b, c, skip, None, None, False)
                print(f"   theirs and ours differ by {off(across(y), out):.1e}")
                systems |= {"their forward": lambda: theirs.fwd(u, dt, a, b, c, skip, None, None, False),
                            "their backward": lambda: theirs.bwd(u, dt, a, b, c, skip, None, None, dout, x, None, None, False, False)}
            if compiled_scan and s * d * t <= 1 << 25 and dtype == torch.float32:
                a, skip = params[:-d].reshape(16, d), params[-d:]
                try:
                    print(f"   PyTorch's and ours differ by {off(compiled_scan(rows, a, skip, d), y):.1e}")
                    systems["PyTorch forward"] = lambda: compiled_scan(rows, a, skip, d)
                except Exception as e:
                    print("   PyTorch's associative scan does not run:", str(e).splitlines()[0][:200])
            times = timed(systems)
            per = s * t * (d * 16)
            moved = s * t * size * (3 * d + 32)
            floors = {"bytes": moved / chip["bytes_per_s"], "ex2": per / chip["ex2_per_s"], "fp32": FORWARD_FP32 * per / chip["fp32_per_s"]}
            both = {"bytes": (moved + s * t * size * (5 * d + 64)) / chip["bytes_per_s"], "ex2": 2 * per / chip["ex2_per_s"], "fp32": (FORWARD_FP32 + BACKWARD_FP32) * per / chip["fp32_per_s"]}
            us = {k: v * 1e6 for k, v in times.items()}
            total = times["forward"] + times["backward"]
            line = f"B{s} D{d} L{t} {str(dtype)[6:]}: " + ", ".join(f"{k} {v:.0f}" for k, v in us.items()) + f" us; share of the floor {max(floors.values()) / times['forward']:.0%}, with backward {max(both.values()) / total:.0%}"
            if theirs:
                line += f"; upstream is {times['their forward'] / times['forward']:.2f} and {(times['their forward'] + times['their backward']) / total:.2f} times ours"
            print(line, flush=True)
            record["work"].append({"batch": s, "d": d, "rows": t, "dtype": str(dtype)[6:], "us": us, "floors_us": {k: v * 1e6 for k, v in floors.items()}, "floors_both_us": {k: v * 1e6 for k, v in both.items()}})
    return record


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--check", action="store_true")
    p.add_argument("--time", action="store_true")
    p.add_argument("--upstream")
    p.add_argument("--associative", action="store_true")
    p.add_argument("--json")
    args = p.parse_args()
    theirs = upstream(args.upstream) if args.upstream else None
    with tempfile.TemporaryDirectory() as folder:
        scan = Scan(Path(folder))
        good = not args.check or check_all(scan)
        if args.time:
            record = time_all(scan, theirs, associative() if args.associative else None)
            if args.json:
                Path(args.json).write_text(json.dumps(record, indent=1) + "\n")
    if not good:
        sys.exit("scan: a check failed")


if __name__ == "__main__":
    main()
