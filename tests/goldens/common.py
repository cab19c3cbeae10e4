"""What every golden shares: seeded inputs, the safetensors writer, and the max-norm relative error.

Inputs are drawn in f64 and rounded to f32 before anything is computed, so the f32 file holds them exactly and
a float64 reference that reads the file sees the same numbers as the judge did.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

OUT = Path(__file__).resolve().parent


def rng(name):
    """A generator that depends on the golden's name alone: adding one golden never moves another."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def exact(x):
    """A float64 tensor whose values are f32 values."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(x, np.float64).astype(np.float32)).astype(np.float64))


def leaf(x):
    return exact(x).requires_grad_(True)


def normal(g, *shape, scale=1.0):
    return g.standard_normal(shape) * scale


def log_uniform(g, low, high, *shape):
    return np.exp(g.uniform(np.log(low), np.log(high), shape))


def inverse_softplus(y):
    return y + np.log(-np.expm1(-y))


def rel(a, b):
    """Max-norm relative error of a against the truth b: max|a − b| / max|b|."""
    a, b = (np.asarray(v.detach() if torch.is_tensor(v) else v, np.float64) for v in (a, b))
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300))


def agree(name, a, b, tolerance):
    """The generator stops where two judges disagree."""
    error = rel(a, b)
    if not error <= tolerance:
        raise SystemExit(f"{name}: judges differ by {error:.2e}, allowed {tolerance:.0e}")
    return error


def gradients(outputs_and_seeds, leaves):
    """Gradients of Σ⟨output, seed⟩ for named leaves, as `grad_NAME`. Complex values stand as real pairs."""
    loss = sum((out * seed).sum() for out, seed in outputs_and_seeds)
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        f"grad_{name}": torch.zeros_like(value) if grad is None else grad
        for (name, value), grad in zip(leaves.items(), grads)
    }


class Writer:
    """Writes goldens, or with `check` compares what it would write with what is there."""

    def __init__(self, out=OUT, check=False):
        self.out, self.check, self.worst, self.files = Path(out), check, 0.0, 0

    def save(self, name, tensors, **about):
        arrays = {key: self._array(key, value) for key, value in sorted(tensors.items())}
        for key, value in arrays.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise SystemExit(f"{name}: {key} is not finite")
        path = self.out / f"{name}.safetensors"
        if self.check:
            self._compare(name, load_file(path), arrays)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One key, because the library writes several in an order that changes from run to run.
            save_file(arrays, path, {"golden": json.dumps(about, ensure_ascii=False, sort_keys=True)})
            path.chmod(0o644)
        self.files += 1
        print(f"{name}: {sum(a.nbytes for a in arrays.values()) / 1024:.0f} KiB", *(f"{k}={v}" for k, v in about.items()))

    @staticmethod
    def _array(key, value):
        value = value.detach().numpy() if torch.is_tensor(value) else np.asarray(value)
        if value.dtype.kind in "iu":
            return np.ascontiguousarray(value.astype(np.int64))
        return np.ascontiguousarray(value.astype(np.float64 if key.endswith("_f64") else np.float32))

    def _compare(self, name, old, new):
        if old.keys() != new.keys():
            raise SystemExit(f"{name}: tensors {sorted(old.keys() ^ new.keys())} are on one side only")
        for key in new:
            if old[key].shape != new[key].shape:
                raise SystemExit(f"{name}: {key} has shape {new[key].shape}, the file {old[key].shape}")
            self.worst = max(self.worst, agree(f"{name}: {key}", new[key], old[key], 1e-4))
