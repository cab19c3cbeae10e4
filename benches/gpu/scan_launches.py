"""The scans' kernels, launched as src/exec/candle/cuda/scan.rs and invariant.rs do: for scan.py. Needs torch, cupy and nvcc."""

import math
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import cupy
import torch

KERNELS = Path(__file__).parents[2] / "kernels"
SMS = torch.cuda.get_device_properties(0).multi_processor_count


def compiled(source, folder):
    out = folder / (Path(source).stem + ".cubin")
    major, minor = torch.cuda.get_device_capability()
    subprocess.check_call([os.environ.get("NVCC", "nvcc"), "-cubin", f"-arch=sm_{major}{minor}", "-O3", "-std=c++17", str(KERNELS / source), "-o", str(out)])
    return cupy.RawModule(path=str(out))


@dataclass(frozen=True)
class Shape:
    d: int
    n: int
    complex: bool = False
    selective: bool = True

    @property
    def r(self):
        return 2 * self.n if self.complex else self.n

    @property
    def width(self):
        return 2 * (self.d + self.r) if self.selective else self.d

    @property
    def params(self):
        return ((1 if self.selective else 3) * self.r + 1) * self.d

    @property
    def name(self):
        return f"{'complex' if self.complex else 'real'}_{'selective' if self.selective else 'invariant'}"


def segments(t, shape, blocks, resident):
    """(rows of a segment, segments) that fill the chip once."""
    segs = max(1, min(SMS * resident // blocks, -(-t // 64)))
    seg = -(-(-(-t // segs)) // 16) * 16
    return seg, -(-t // seg)


def launched(module, name, grid, block, shared, args):
    f = module.get_function(name)
    if shared > 47 << 10:
        f.max_dynamic_shared_size_bytes = shared
    f(grid, block, tuple(a.data_ptr() if torch.is_tensor(a) else cupy.int32(a) for a in args), shared_mem=shared)


class Invariant:
    """The time-invariant scan, as src/exec/candle/cuda/invariant.rs launches it."""

    def __init__(self, folder):
        self.module = compiled("invariant.cu", folder)

    def sizes(self, shape, s, t):
        chunks = -(-t // 32)
        return shape.d, shape.n, shape.r, int(shape.complex), chunks, s * chunks, t - (chunks - 1) * 32, -(-shape.d // 16)

    def launch(self, name, grid, block, args, shared=0):
        launched(self.module, name, grid, block, shared, args)

    def shares(self, blocks, resident, count):
        return max(1, min(SMS * resident // blocks, -(-count // 64)))

    def by_pole(self, shape, s):
        return (-(-shape.n * shape.d // 128), s), (128,)

    def tables(self, shape, params, last):
        state = shape.r * shape.d
        made = [torch.empty(x, device="cuda") for x in (32 * state, 32 * state, 4 * state, (shape.n, 32 * shape.d))]
        self.launch("invariant_tables", *self.by_pole(shape, 1), [params, *made, shape.d, shape.n, int(shape.complex), last])
        return *made[:3], made[3].sum(0)

    def shares_of_states(self, shape, x, table, back):
        d, n, r, cplx, chunks, count, last, columns = self.sizes(shape, *x.shape[:2])
        states, tiles = torch.empty(x.shape[0], chunks, r * d, device="cuda"), -(-r // 16)
        self.launch("invariant_in", (columns, tiles, self.shares(columns * tiles, 2, count)), (32, 4), [x, table, states, x.shape[1], d, r, chunks, count, int(not back)])
        return states

    def out(self, shape, name, inputs, t):
        s = inputs[0].shape[0]
        d, n, r, cplx, chunks, count, last, columns = self.sizes(shape, s, t)
        y = torch.empty(s, t, d, device="cuda")
        self.launch(name, (columns, 2, self.shares(columns * 2, 2, count)), (32, 4), [*inputs, y, t, d, r, chunks, count], 64 * (16 * (-(-r // 4) * 4) + 48))
        return y

    def forward(self, shape, u, params, h0):
        s, t, _ = u.shape
        d, n, r, cplx, chunks, count, last, columns = self.sizes(shape, s, t)
        into, out, decays, lags = self.tables(shape, params, last)
        states = self.shares_of_states(shape, u, into, False)
        self.launch("invariant_carry", *self.by_pole(shape, s), [decays, h0, states, d, n, cplx, chunks])
        return self.out(shape, "invariant_out", [u, out, lags, states, h0], t), states

    def backward(self, shape, u, params, h0, states, gy, gh):
        s, t, _ = u.shape
        d, n, r, cplx, chunks, count, last, columns = self.sizes(shape, s, t)
        into, out, decays, lags = self.tables(shape, params, last)
        grads = self.shares_of_states(shape, gy, out, True)
        gh0, gdecays = torch.empty_like(h0), torch.empty(s, 2 * r * d, device="cuda")
        self.launch("invariant_carry_back", *self.by_pole(shape, s), [decays, gh, states, h0, grads, gh0, gdecays, d, n, cplx, chunks])
        gu = self.out(shape, "invariant_out_back", [gy, into, lags, grads], t)
        tiles = -(-r // 32)
        shares = self.shares(columns * tiles, 1, count)
        gin, gout = torch.empty(shares, 32 * r * d, device="cuda"), torch.empty(shares, 32 * r * d, device="cuda")
        grid = (columns, tiles, shares)
        self.launch("invariant_sums", grid, (32, 8), [u, grads, grads, gin, t, d, r, chunks, count, 1], 2 * 8 * 1040 * 4)
        self.launch("invariant_sums", grid, (32, 8), [gy, states, h0, gout, t, d, r, chunks, count, 0], 2 * 8 * 1040 * 4)
        shares = self.shares(columns, 4, count)
        glags = torch.empty(4 * shares, 32 * d, device="cuda")
        self.launch("invariant_lags_back", (columns, shares), (32, 4), [u, gy, glags, t, d, chunks, count])
        gparams = torch.empty(shape.params, device="cuda")
        self.launch("invariant_back", *self.by_pole(shape, 1), [params, gin.sum(0), gout.sum(0), glags.sum(0), gdecays.sum(0), gparams, d, n, cplx, last])
        return gu, gparams, gh0


class Scan:
    """The scans, as src/exec/candle/cuda/scan.rs launches them."""

    def __init__(self, folder):
        self.forward_module, self.backward_module, self.relay_module = (compiled(f"scan_{x}.cu", folder) for x in ("forward", "backward", "relay"))
        self.invariant = Invariant(folder)

    def launch(self, module, name, grid, threads, shared, args):
        launched(module, name, grid, (threads,), shared, args)

    def walk(self, kernel, shape, dtype):
        """(name, lanes a channel, blocks, threads, bytes of shared memory)"""
        k = 8 if shape.complex or kernel == "back_ends" else 16
        if not shape.complex and shape.n <= 4:
            k = 4
        lanes = 1 << max(0, math.ceil(math.log2(-(-shape.n // k))))
        two = kernel == "scan_rows" and k == 16 and lanes == 1 and shape.d % 64 == 0
        warp = 32 // lanes * (2 if two else 1)
        warps = min(4, -(-shape.d // warp))
        name = f"{kernel}_{shape.name}_{k}{'x2' if two else ''}{'_bf16' if dtype == torch.bfloat16 else ''}"
        staged = 2 * 16 * k * lanes * (2 if shape.complex else 1) * dtype.itemsize
        return name, lanes, -(-shape.d // (warp * warps)), warps * 32, staged * (2 if kernel == "scan_rows" else 1)

    def turns(self, shape, s, t, dtype):
        """(grid, threads, bytes of shared memory) of the scan without segments, or None where it isn't taken."""
        piece, blocks = 16 // dtype.itemsize, -(-shape.d // 16)
        resident = min(-(-blocks * s // SMS), 4)
        places, warps = resident * SMS, 12 // resident
        if shape.complex or not 4 < shape.n <= 16 or shape.n % piece or shape.d % piece or 4 * s * shape.d < 3 * 16 * places * -(-blocks * s // places) or t < 32 * warps:
            return None
        return (blocks, 1, s), 32 * warps, warps * (64 * 16 + 3 * 8 * 64 * dtype.itemsize)

    def carry(self, shape, s, t, params, initial, sums, ends, seg, segs, stride, back):
        grid = (-(-shape.n * shape.d // 128), s)
        self.launch(self.forward_module, f"scan_carry_{shape.name}", grid, 128, 0, [params, initial, sums, ends, t, shape.d, shape.n, seg, segs, stride, back])

    def forward(self, shape, rows, params, h0, resident=None):
        if not shape.selective:
            return self.invariant.forward(shape, rows, params, h0)
        s, t, _ = rows.shape
        name, lanes, blocks, threads, shared = self.walk("scan_rows", shape, rows.dtype)
        seg, segs = segments(t, shape, blocks * s, resident or 384 // threads)
        state = shape.r * shape.d
        y = torch.empty(s, t, shape.d, dtype=rows.dtype, device="cuda")
        states = torch.empty(s, 1 + (t - 1) // 16, state, device="cuda")
        turns = self.turns(shape, s, t, rows.dtype) if segs > 1 and not resident else None
        if turns:
            bf16 = "_bf16" if rows.dtype == torch.bfloat16 else ""
            self.launch(self.relay_module, f"scan_relay_real_selective{bf16}", *turns, [rows, params, h0, y, states, t, shape.d, shape.n, t * shape.d, states.shape[1] * state])
            return y, states
        starts = h0
        if segs > 1:
            starts = torch.empty(s, segs, state, device="cuda")
            sums = torch.empty(s, segs, 2 if shape.complex else 1, shape.d, device="cuda")
            end, end_lanes, end_blocks, end_threads, end_shared = self.walk("scan_ends", shape, rows.dtype)
            self.launch(self.forward_module, end, (end_blocks, segs - 1, s), end_threads, end_shared, [rows, params, starts, sums, t, shape.d, shape.n, end_lanes, seg, segs])
            self.carry(shape, s, t, params, h0, sums, starts, seg, segs, state, 0)
        self.launch(self.forward_module, name, (blocks, segs, s), threads, shared,
                    [rows, params, starts, y, states, t, shape.d, shape.n, lanes, seg, segs, t * shape.d, states.shape[1] * state])
        return y, states

    def backward(self, shape, rows, params, h0, states, gy, gh, resident=None):
        if not shape.selective:
            return self.invariant.backward(shape, rows, params, h0, states, gy, gh)
        s, t, _ = rows.shape
        d, n, r, state = shape.d, shape.n, shape.r, shape.r * shape.d
        numbers, bf16 = (2 if shape.complex else 1), "_bf16" if rows.dtype == torch.bfloat16 else ""
        bytes_of = lambda threads: 4 * (r * (3 * threads + 2 * 20 + threads + 1) + 16 * threads)
        threads = next((x for x in (128, 64, 32) if bytes_of(x) <= 48 << 10), 32)
        threads = min(threads, -(-d // 32) * 32)
        blocks = -(-d // threads)
        seg, segs = segments(t, shape, blocks * s, resident or (256 if shape.complex else 384) // threads)
        starts = torch.empty(s, segs, state, device="cuda")
        sums = torch.empty(s, segs, numbers, d, device="cuda")
        if segs > 1:
            name, lanes, wblocks, wthreads, shared = self.walk("back_ends", shape, rows.dtype)
            self.launch(self.forward_module, name, (wblocks, segs - 1, s), wthreads, shared, [rows, params, gy, starts, sums, t, d, n, lanes, seg, segs, t * d])
        self.carry(shape, s, t, params, gh, sums, starts, seg, segs, state, 1)
        grows, gh0 = torch.empty_like(rows), torch.empty_like(h0)
        mix = torch.empty(blocks, s, t, 2 * r, device="cuda")
        gparams = torch.empty(s * segs, shape.params, device="cuda")
        self.launch(self.backward_module, f"back_rows_{shape.name}{bf16}", (blocks, segs, s), threads, bytes_of(threads),
                    [rows, params, h0, states, gy, starts, grows, mix, gparams, gh0, t, d, n, seg, segs, states.shape[1] * state, t * d])
        count = s * t * 2 * r
        self.launch(self.backward_module, f"scan_mix{bf16}", (min(-(-count // 256), 1 << 16),), 256, 0, [mix, grows, count, d, r, blocks])
        return grows, gparams.sum(0), gh0
