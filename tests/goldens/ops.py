"""Goldens of the small ops: torch's own functions and autograd in float64 on f32 inputs.

Rows are [rows, d]; the convolution is [B,T,D] with weight [D,k], tap k−1 on the newest row, and carries the last k−1
input rows as its state [B,k−1,D], oldest first.
"""

import numpy as np
import torch
import torch.nn.functional as F

from common import agree, exact, gradients, leaf, normal, rng

EPS = 1e-5
CONVOLUTIONS = [(2, 1, 5, 4), (2, 2, 5, 4), (1, 33, 16, 4), (2, 9, 3, 3), (1, 8, 4, 1)]
NORMS = [(1, 1), (7, 5), (33, 64)]
ADAMW = {"adam": 0.0, "adamw": 0.1}


def activation(writer, name, function):
    """Elementwise: small values, large ones, and the places where a naive formula overflows or cancels."""
    g = rng(name)
    edges = [0.0, -0.0, 1e-6, -1e-6, 19.9, 20.0, 20.1, -20.0, 60.0, -60.0, 100.0, -100.0]
    x = leaf(np.concatenate([normal(g, 200), normal(g, 100, scale=8.0), edges]))
    y, gy = function(x), exact(normal(g, x.numel()))
    writer.save(f"op_{name}", {"x": x, "y": y, "gy": gy, **gradients([(y, gy)], {"x": x})}, judge="torch 2.9.1, float64")


def activations(writer):
    activation(writer, "silu", F.silu)
    activation(writer, "gelu", F.gelu)
    activation(writer, "gelu_tanh", lambda x: F.gelu(x, approximate="tanh"))
    activation(writer, "softplus", F.softplus)
    g = rng("glu")
    x, gy = leaf(normal(g, 9, 14, scale=3.0)), exact(normal(g, 9, 7))
    y = F.glu(x, -1)
    writer.save("op_glu", {"x": x, "y": y, "gy": gy, **gradients([(y, gy)], {"x": x})},
                judge="torch 2.9.1, float64", formula="y = x[:d]·sigmoid(x[d:])")


def norms(writer):
    for rows, d in NORMS:
        g = rng(f"norm_{rows}_{d}")
        # Rows of very different size: in the smallest eps decides, in the largest it vanishes.
        x = (normal(g, rows, d) + normal(g, rows, 1)) * np.geomspace(1e-3, 1e3, rows)[:, None]
        v = {"x": leaf(x), "weight": leaf(1 + normal(g, d, scale=0.3)), "bias": leaf(normal(g, d))}
        gy = exact(normal(g, rows, d))
        if d > 1:  # one channel has no variance: its gradient is zero in exact arithmetic, rounding noise in any other
            y = F.layer_norm(v["x"], (d,), v["weight"], v["bias"], EPS)
            writer.save(f"op_layernorm_r{rows}_d{d}", {**v, "y": y, "gy": gy, **gradients([(y, gy)], v)},
                        judge="torch 2.9.1, float64", eps=EPS)
        v.pop("bias")
        y = F.rms_norm(v["x"], (d,), v["weight"], EPS)
        writer.save(f"op_rmsnorm_r{rows}_d{d}", {**v, "y": y, "gy": gy, **gradients([(y, gy)], v)},
                    judge="torch 2.9.1, float64", eps=EPS)


def convolutions(writer):
    for batch, length, channels, k in CONVOLUTIONS:
        name = f"op_conv_b{batch}_t{length}_d{channels}_k{k}"
        g = rng(name)
        v = {"x": leaf(normal(g, batch, length, channels)), "weight": leaf(normal(g, channels, k)),
             "bias": leaf(normal(g, channels)), "state0": leaf(normal(g, batch, k - 1, channels))}
        gy, gs = exact(normal(g, batch, length, channels)), exact(normal(g, batch, k - 1, channels))
        seen = torch.cat([v["state0"], v["x"]], 1)
        y = F.conv1d(seen.transpose(1, 2), v["weight"][:, None], v["bias"], groups=channels).transpose(1, 2)
        state = seen[:, length:]
        tensors = {**v, "y": y, "state_T": state, "gy": gy, "gstate_T": gs}
        grads = gradients([(y, gy), (state, gs)], v)
        # safetensors readers differ on tensors without elements: with one tap there is no state to store.
        stored = {key: value for key, value in {**tensors, **grads}.items() if value.numel()}
        writer.save(name, stored, judge="torch 2.9.1 conv1d, float64")


def linear(writer):
    g = rng("linear")
    v = {"x": leaf(normal(g, 9, 17)), "weight": leaf(normal(g, 13, 17)), "bias": leaf(normal(g, 13))}
    y, gy = F.linear(v["x"], v["weight"], v["bias"]), exact(normal(g, 9, 13))
    writer.save("op_linear", {**v, "y": y, "gy": gy, **gradients([(y, gy)], v)}, judge="torch 2.9.1, float64")


def cross_entropy(writer):
    """Mean categorical loss in nats over rows, the last rows confident and wrong."""
    g = rng("cross_entropy")
    x = leaf(normal(g, 6, 256) * np.geomspace(0.1, 50, 6)[:, None])
    target = torch.from_numpy(g.integers(0, 256, 6))
    loss = F.cross_entropy(x, target)
    writer.save("op_cross_entropy", {"x": x, "target": target, "loss": loss.reshape(1),
                                     "grad_x": torch.autograd.grad(loss, x)[0]}, judge="torch 2.9.1, float64")


def optimisers(writer):
    """Five steps of two parameters, then clipping by the global norm."""
    for name, decay in ADAMW.items():
        g = rng(name)
        p, q = leaf(normal(g, 4, 3)), leaf(normal(g, 5))
        tensors = {"p.0": p.detach().clone(), "q.0": q.detach().clone()}
        optimiser = torch.optim.AdamW([p, q], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay)
        for step in range(1, 6):
            for key, value in (("p", p), ("q", q)):
                value.grad = exact(normal(g, *value.shape, scale=10.0 ** (1 - step)))
                tensors[f"grad_{key}.{step}"] = value.grad.clone()
            optimiser.step()
            tensors |= {f"p.{step}": p.detach().clone(), f"q.{step}": q.detach().clone()}
        for key, value in (("p", p), ("q", q)):
            state = optimiser.state[value]
            tensors |= {f"m_{key}.5": state["exp_avg"], f"v_{key}.5": state["exp_avg_sq"]}
        writer.save(f"op_{name}", tensors, judge="torch 2.9.1 AdamW, float64", lr=1e-2, beta1=0.9, beta2=0.95,
                    eps=1e-8, weight_decay=decay, order="p -= lr·decay·p, then p -= lr·m̂/(√v̂ + eps)")
    clip(writer)


def clip(writer):
    g = rng("clip")
    before = {"p": exact(normal(g, 4, 3)), "q": exact(normal(g, 5))}
    leaves = [torch.zeros_like(value, requires_grad=True) for value in before.values()]
    for parameter, value in zip(leaves, before.values()):
        parameter.grad = value.clone()
    norm = torch.nn.utils.clip_grad_norm_(leaves, 0.1)
    agree("norm", norm, sum(value.square().sum() for value in before.values()).sqrt(), 1e-12)
    after = {f"clipped_{key}": parameter.grad for key, parameter in zip(before, leaves)}
    writer.save("op_clip", {**before, **after, "norm": norm.reshape(1)}, judge="torch 2.9.1 clip_grad_norm_, float64",
                max_norm=0.1, formula="g·min(1, max_norm/(norm + 1e-6))")


def make(writer, _refs):
    activations(writer)
    norms(writer)
    convolutions(writer)
    linear(writer)
    cross_entropy(writer)
    optimisers(writer)
