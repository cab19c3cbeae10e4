"""Goldens of the time-invariant scan (S4D, arXiv 2206.11893) with both discretisations.

    A = −exp(log_A_real) + i·A_imag     Δ = exp(log_dt)     B = 1 (C carries it)
    zero-order hold: Ā = e^{ΔA}, B̄ = (e^{ΔA} − 1)/A      bilinear: Ā = (1 + ΔA/2)/(1 − ΔA/2), B̄ = Δ/(1 − ΔA/2)
    h_t = Ā·h_{t−1} + B̄·u_t        y_t = 2·Re(Σ_n C·h_t) + D·u_t

SciPy is the outside judge: `cont2discrete` for Ā and B̄, `lfilter` for the recurrence. Layout as in scan.py;
log_dt, D [D]; log_A_real, A_imag [D,N]; C, Abar, Bbar [D,N,2]; h [B,D,N,2].
"""

import numpy as np
import torch
from scipy.signal import cont2discrete, lfilter

from common import agree, exact, gradients, leaf, log_uniform, normal, rel, rng

SHAPES = [(2, 1, 4, 8), (2, 7, 5, 1), (1, 129, 8, 16), (2, 33, 4, 64), (1, 257, 3, 8), (1, 4097, 1, 16)]
METHODS = ("zoh", "bilinear")


def pair(x):
    return torch.view_as_complex(x.contiguous())


def inputs(name, batch, length, channels, states):
    """The published initialisation, disturbed: A near −½ + iπn, Δ log-uniform in 1e-3…0.1."""
    g = rng(name)
    n = np.broadcast_to(np.arange(states), (channels, states))
    x = {
        "u": leaf(normal(g, batch, length, channels)),
        "log_dt": leaf(np.log(log_uniform(g, 1e-3, 0.1, channels))),
        "log_A_real": leaf(np.log(0.5) + normal(g, *n.shape, scale=0.2)),
        "A_imag": leaf(np.pi * (n + g.uniform(-0.2, 0.2, n.shape))),
        "C": leaf(normal(g, channels, states, 2, scale=0.7)),
        "D": leaf(normal(g, channels)),
        "h0": leaf(normal(g, batch, channels, states, 2)),
    }
    seeds = {"gy": exact(normal(g, batch, length, channels)), "gh_T": exact(normal(g, batch, channels, states, 2))}
    return x, seeds


def discretise(x, method):
    A = torch.complex(-torch.exp(x["log_A_real"]), x["A_imag"])
    dt = torch.exp(x["log_dt"])[:, None]
    if method == "zoh":
        return torch.exp(dt * A), (torch.exp(dt * A) - 1) / A
    return (1 + dt * A / 2) / (1 - dt * A / 2), dt / (1 - dt * A / 2)


def recur(u, Abar, Bbar, C, D, h0):
    h, ys = h0, []
    for t in range(u.shape[1]):
        h = Abar * h + Bbar * u[:, t, :, None]
        ys.append(2 * (C * h).sum(-1).real + D * u[:, t])
    return torch.stack(ys, 1), h


def scipy_judges(x, Abar, Bbar, y, h, method):
    """Ā, B̄ mode by mode from cont2discrete, then the whole recurrence from lfilter with its initial state."""
    v = {key: value.detach().numpy() for key, value in x.items()}
    A = -np.exp(v["log_A_real"]) + 1j * v["A_imag"]
    C, h0 = (v[key][..., 0] + 1j * v[key][..., 1] for key in ("C", "h0"))
    out, last, bars = v["D"] * v["u"], np.empty_like(h0), np.empty((2, *A.shape), complex)
    for d, n in np.ndindex(*A.shape):
        # One complex mode as a real 2×2 system, so that SciPy's matrix exponential is the judge.
        real = np.array([[A[d, n].real, -A[d, n].imag], [A[d, n].imag, A[d, n].real]])
        system = (real, np.array([[1.0], [0.0]]), np.eye(2), np.zeros((2, 1)))
        a, b = cont2discrete(system, np.exp(v["log_dt"][d]), method)[:2]
        bars[:, d, n] = a[0, 0] + 1j * a[1, 0], b[0, 0] + 1j * b[1, 0]
        abar, bbar = bars[:, d, n]
        for s in range(len(out)):
            path, _ = lfilter([bbar], [1, -abar], v["u"][s, :, d] + 0j, zi=[abar * h0[s, d, n]])
            out[s, :, d] += 2 * (C[d, n] * path).real
            last[s, d, n] = path[-1]
    parts = lambda z: np.stack([z.real, z.imag], -1)
    return max(agree(f"{method} Abar", parts(bars[0]), torch.view_as_real(Abar), 1e-9),
               agree(f"{method} Bbar", parts(bars[1]), torch.view_as_real(Bbar), 1e-9),
               agree(f"{method} y", out, y, 1e-9), agree(f"{method} h_T", parts(last), h, 1e-9))


def from_bars(x, seeds, Abar, Bbar):
    """The recurrence alone, from Ā and B̄ rounded to f32: what an executor that keeps f32 Ā, B̄ is judged by."""
    x = {key: x[key] for key in ("u", "C", "D", "h0")} | {
        key: leaf(torch.view_as_real(value).detach()) for key, value in (("Abar", Abar), ("Bbar", Bbar))
    }
    y, h = recur(x["u"], pair(x["Abar"]), pair(x["Bbar"]), pair(x["C"]), x["D"], pair(x["h0"]))
    h = torch.view_as_real(h)
    grads = gradients([(y, seeds["gy"]), (h, seeds["gh_T"])], x)
    with torch.no_grad():
        f = {key: value.float() for key, value in x.items()}
        naive, _ = recur(f["u"], pair(f["Abar"]), pair(f["Bbar"]), pair(f["C"]), f["D"], pair(f["h0"]))
    tensors = {"Abar": x["Abar"], "Bbar": x["Bbar"], "bars_y": y, "bars_h_T": h}
    tensors |= {f"bars_{key}": value for key, value in grads.items() if key != "grad_u"}
    return tensors, rel(naive, y)


def make(writer, _refs):
    for method in METHODS:
        for batch, length, channels, states in SHAPES:
            name = f"s4d_{method}_b{batch}_t{length}_d{channels}_n{states}"
            x, seeds = inputs(name, batch, length, channels, states)
            Abar, Bbar = discretise(x, method)
            y, h = recur(x["u"], Abar, Bbar, pair(x["C"]), x["D"], pair(x["h0"]))
            h = torch.view_as_real(h)
            error = scipy_judges(x, Abar, Bbar, y, h, method)
            grads = gradients([(y, seeds["gy"]), (h, seeds["gh_T"])], x)
            bars, naive = from_bars(x, seeds, Abar, Bbar)
            wide = {"Abar_f64": torch.view_as_real(Abar), "Bbar_f64": torch.view_as_real(Bbar)}
            writer.save(name, {**x, **seeds, **grads, **wide, **bars, "y": y, "h_T": h},
                        judge="own float64 definition, torch autograd; scipy cont2discrete and lfilter agree",
                        method=method, against_scipy=f"{error:.1e}", f32_loop_error_from_bars=f"{naive:.1e}",
                        bars_move_y=f"{rel(bars['bars_y'], y):.1e}")
