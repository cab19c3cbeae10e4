"""Goldens of the selective scan (Mamba, arXiv 2312.00752, algorithm 2; B by Euler).

    h_t = exp(Δ_t·A) ⊙ h_{t−1} + Δ_t·B_t·u_t        y_t = Σ_n C_t·h_t + D·u_t   (complex A: 2·Re Σ_n C_t·h_t + D·u_t)

Layout: u, delta, y [B,T,D]; B, C [B,T,N]; A, A_log [D,N]; D [D]; h [B,D,N]. Complex values end in a pair (re, im).
"""

import numpy as np
import torch
import torch.nn.functional as F

from common import agree, exact, gradients, inverse_softplus, leaf, log_uniform, normal, rel, rng

SHAPES = [(2, 1, 4, 8), (2, 7, 5, 1), (1, 129, 16, 16), (2, 33, 4, 64), (1, 257, 3, 8), (1, 4097, 1, 1)]
UPSTREAM = [("softplus_bias_z", 128, True), ("plain", 128, False), ("long", 512, True), ("longest", 4096, True)]
UPDATES = [(96, 16), (129, 32), (40, 64), (2048, 16)]


def pair(x):
    return torch.view_as_complex(x.contiguous())


def scan(u, delta, A, B, C, D, h0):
    """The published recurrence, one step after another. Returns y [B,T,D] and h_T [B,D,N]."""
    h, ys = h0, []
    for t in range(u.shape[1]):
        step = delta[:, t, :, None]
        h = torch.exp(step * A) * h + step * B[:, t, None, :] * u[:, t, :, None]
        y = (C[:, t, None, :] * h).sum(-1)
        ys.append((2 * y.real if y.is_complex() else y) + D * u[:, t])
    return torch.stack(ys, 1), h


def inputs(name, batch, length, channels, states, is_complex):
    """Δ spans 1e-3…1 (complex: 1e-3…0.1, so that Δ·Im A stays within a few turns and f32 can hold the phase)."""
    g = rng(name)
    tail = (2,) if is_complex else ()
    raw = exact(inverse_softplus(log_uniform(g, 1e-3, 0.1 if is_complex else 1.0, batch, length, channels)))
    x = {
        "u": leaf(normal(g, batch, length, channels)),
        "delta": leaf(F.softplus(raw)),
        "B": leaf(normal(g, batch, length, states, *tail)),
        "C": leaf(normal(g, batch, length, states, *tail)),
        "D": leaf(normal(g, channels)),
        "h0": leaf(normal(g, batch, channels, states, *tail)),
    }
    n = np.broadcast_to(np.arange(states), (channels, states))
    if is_complex:
        x["A"] = leaf(np.stack([-g.uniform(0.25, 1.0, n.shape), np.pi * (n + g.uniform(-0.2, 0.2, n.shape))], -1))
    else:
        x["A_log"] = leaf(np.log(n + 1) + g.uniform(-0.2, 0.2, n.shape))
    seeds = {"gy": exact(normal(g, batch, length, channels)), "gh_T": exact(normal(g, batch, channels, states, *tail))}
    return x, raw, seeds


def run(x, is_complex):
    """Forward on named leaves; complex in and out as real pairs."""
    if not is_complex:
        A = -torch.exp(x["A_log"])
        return A, *scan(x["u"], x["delta"], A, x["B"], x["C"], x["D"], x["h0"])
    A, B, C, h0 = (pair(x[key]) for key in ("A", "B", "C", "h0"))
    y, h = scan(x["u"], x["delta"], A, B, C, x["D"], h0)
    return x["A"], y, torch.view_as_real(h)


def naive_f32(x, is_complex):
    """What the same loop gives in f32: shows that the tolerance can be met, and by how much."""
    with torch.no_grad():
        return run({key: value.float() for key, value in x.items()}, is_complex)[1]


def outside(x, seeds, is_complex, ref):
    """The package's reference on the same numbers with h0 = 0 against our definition, outputs and gradients of both."""
    names = ["u", "delta", "B", "C", "D", "A" if is_complex else "A_log"]
    ours = {key: x[key] for key in names}
    zero = torch.zeros_like(x["h0"])
    _, y, h = run({**ours, "h0": zero}, is_complex)
    want = gradients([(y, seeds["gy"]), (h, seeds["gh_T"])], ours)

    theirs = {key: x[key].detach().float().requires_grad_(True) for key in names}
    to_last = lambda v: v.transpose(1, 2)
    if is_complex:
        flat = lambda v: v.permute(0, 2, 1, 3).flatten(2)
        args = (pair(theirs["A"]), flat(theirs["B"]), flat(theirs["C"]))
    else:
        args = (-torch.exp(theirs["A_log"]), to_last(theirs["B"]), to_last(theirs["C"]))
    out, last = ref(to_last(theirs["u"]), to_last(theirs["delta"]), *args, theirs["D"], return_last_state=True)
    last = torch.view_as_real(last) if is_complex else last
    got = gradients([(to_last(out), seeds["gy"].float()), (last, seeds["gh_T"].float())], theirs)
    errors = [agree("y", to_last(out), y, 2e-5), agree("h_T", last, h, 2e-5)]
    return max(errors + [agree(key, got[key], want[key], 1e-4) for key in want])


def transformers_scan(*args, **kwargs):
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    return mamba_selective_scan(*args, **kwargs)


def own(writer, refs):
    """Goldens 1: f64, gradients of y and of h_T, for every input and the initial state."""
    for is_complex in (False, True):
        kind = "complex" if is_complex else "real"
        for batch, length, channels, states in SHAPES:
            if is_complex and length > 4000:
                continue
            name = f"selective_scan_{kind}_b{batch}_t{length}_d{channels}_n{states}"
            x, raw, seeds = inputs(name, batch, length, channels, states, is_complex)
            A, y, h = run(x, is_complex)
            leaves = x if is_complex else {**x, "A": A}
            grads = gradients([(y, seeds["gy"]), (h, seeds["gh_T"])], leaves)
            # softplus′ = sigmoid; Δ itself was rounded to f32 after the softplus, which moves this by one part in 1e7.
            grads["grad_delta_raw"] = grads["grad_delta"] * torch.sigmoid(raw)
            note = {"f32_loop_error": f"{rel(naive_f32(x, is_complex), y):.1e}"}
            if length < 4000:
                note["against_mamba_ssm"] = f"{outside(x, seeds, is_complex, refs['selective_scan_ref']):.1e}"
                if not is_complex:
                    note["against_transformers"] = f"{outside(x, seeds, is_complex, transformers_scan):.1e}"
            tensors = {**x, **seeds, **grads, "A": A, "delta_raw": raw, "y": y, "h_T": h}
            if length > 4000:  # the shorter files judge the softplus
                del tensors["delta_raw"], tensors["grad_delta_raw"]
            writer.save(name, tensors, judge="own float64 definition, torch autograd", **note)


def from_mamba_ssm(writer, refs):
    """Goldens 2: mamba-ssm's own reference and its own autograd, in f32, on its test's shapes (B 2, D 4, N 8).

    Its test has 1 and 2 groups of B and C. Ours has one group; the reference is called with B and C as [B,N,L] (one
    group) and its result is checked against the same call with B and C repeated over 2 groups.
    """
    batch, channels, states = 2, 4, 8
    for is_complex in (False, True):
        for variant, length, full in UPSTREAM:
            if is_complex and (length > 128 or not full):
                continue
            name = f"mamba_ssm_scan_{'complex' if is_complex else 'real'}_{variant}_l{length}"
            g = rng(name)
            width = length * (2 if is_complex else 1)
            low, scale = (-0.5 * g.random((channels, states)), normal(g, channels, states))
            v = {
                "u": normal(g, batch, channels, length),
                "delta_raw": 0.5 * g.random((batch, channels, length)),
                "B": normal(g, batch, states, width),
                "C": normal(g, batch, states, width),
                "D": normal(g, channels),
                "A": np.stack([low, scale], -1) if is_complex else low,
            }
            if full:
                v |= {"z": normal(g, batch, channels, length), "delta_bias": 0.5 * g.random(channels)}
            v = {key: exact(value).float().requires_grad_(True) for key, value in v.items()}
            seed = exact(normal(g, batch, channels, length)).float()
            call = lambda B, C: refs["selective_scan_ref"](
                v["u"], v["delta_raw"], pair(v["A"]) if is_complex else v["A"], B, C, v["D"], z=v.get("z"),
                delta_bias=v.get("delta_bias"), delta_softplus=full, return_last_state=True)
            y, last = call(v["B"], v["C"])
            grouped, _ = call(v["B"][:, None].repeat(1, 2, 1, 1), v["C"][:, None].repeat(1, 2, 1, 1))
            agree(name, grouped, y, 1e-6)
            grads = gradients([(y, seed)], v)
            tensors = {**v, **grads, "gy": seed, "y": y, "h_T": torch.view_as_real(last) if is_complex else last}
            ours = {key: _to_ours(key, value, is_complex) for key, value in tensors.items()}
            note = _check_own(ours, is_complex, full)
            writer.save(name, ours, judge="mamba-ssm 2.3.2.post1 selective_scan_ref, f32", groups=1,
                        delta_softplus=full, delta_before_softplus="delta_raw + delta_bias" if full else "none",
                        order="y = (scan + D·u)·silu(z)" if full else "y = scan + D·u", **note)


def _to_ours(key, value, is_complex):
    """[B,D,L] → [B,T,D]; [B,N,L] → [B,T,N]; [B,N,2L] → [B,T,N,2]."""
    base = key.removeprefix("grad_")
    if base in ("B", "C") and is_complex:
        return value.unflatten(2, (-1, 2)).transpose(1, 2)
    return value.transpose(1, 2) if base in ("u", "delta_raw", "B", "C", "z", "y", "gy") else value


def _check_own(t, is_complex, full):
    """The same case by our float64 definition: the two judges must agree, gradients too."""
    inside = [key for key in ("u", "delta_raw", "A", "B", "C", "D", "z", "delta_bias") if key in t]
    x = {key: t[key].detach().double().requires_grad_(True) for key in inside}
    delta = F.softplus(x["delta_raw"] + x["delta_bias"]) if full else x["delta_raw"]
    A, B, C = (pair(x[key]) if is_complex else x[key] for key in ("A", "B", "C"))
    y, h = scan(x["u"], delta, A, B, C, x["D"], torch.zeros(2, 4, 8, dtype=A.dtype))
    y = y * F.silu(x["z"]) if full else y
    want = gradients([(y, t["gy"].double())], x)
    h = torch.view_as_real(h) if is_complex else h
    error = max([agree("y", t["y"], y, 2e-5), agree("h_T", t["h_T"], h, 2e-5)])
    worst = max(agree(key, t[key], want[key], 1e-4) for key in want)
    return {"against_float64": f"{error:.1e}", "gradients_against_float64": f"{worst:.1e}"}


def state_update(writer, refs):
    """Goldens 3: mamba-ssm's single state update (one decode step) with z, D, bias and softplus."""
    for channels, states in UPDATES:
        name = f"mamba_ssm_update_d{channels}_n{states}"
        g = rng(name)
        v = {
            "h0": normal(g, 2, channels, states), "u": normal(g, 2, channels), "delta_raw": normal(g, 2, channels),
            "A": -g.random((channels, states)) - 1.0, "B": normal(g, 2, states), "C": normal(g, 2, states),
            "D": normal(g, channels), "z": normal(g, 2, channels), "delta_bias": g.random(channels) - 4.0,
        }
        v = {key: exact(value).float() for key, value in v.items()}
        state = v["h0"].clone()
        y = refs["selective_state_update_ref"](
            state, v["u"], v["delta_raw"], v["A"], v["B"], v["C"], v["D"], v["z"], v["delta_bias"], dt_softplus=True)
        d = {key: value.double() for key, value in v.items()}
        delta = F.softplus(d["delta_raw"] + d["delta_bias"])
        want, h = scan(d["u"][:, None], delta[:, None], d["A"], d["B"][:, None], d["C"][:, None], d["D"], d["h0"])
        error = max(agree("y", y, want[:, 0] * F.silu(d["z"]), 1e-5), agree("h_T", state, h, 1e-5))
        writer.save(name, {**v, "y": y, "h_T": state}, judge="mamba-ssm 2.3.2.post1 selective_state_update_ref, f32",
                    order="y = (C·h + D·u)·silu(z)", against_float64=f"{error:.1e}")


def prove_own():
    """Our definition's gradients against finite differences, and two halves joined by the state against the whole."""
    for is_complex in (False, True):
        x, _, _ = inputs("gradcheck", 1, 4, 2, 3, is_complex)
        forward = lambda *values: run(dict(zip(x, values)), is_complex)[1:]
        torch.autograd.gradcheck(forward, tuple(x.values()), eps=1e-6, atol=1e-6, rtol=1e-5)
        _, y, h = run(x, is_complex)
        cut = lambda part, h0: {k: v[:, part] if k in ("u", "delta", "B", "C") else v for k, v in x.items()} | {"h0": h0}
        _, first, middle = run(cut(slice(0, 1), x["h0"]), is_complex)
        _, second, last = run(cut(slice(1, 4), middle), is_complex)
        agree("halves", torch.cat([first, second], 1), y, 1e-14)
        agree("halves' state", last, h, 1e-14)


def make(writer, refs):
    prove_own()
    own(writer, refs)
    from_mamba_ssm(writer, refs)
    state_update(writer, refs)
