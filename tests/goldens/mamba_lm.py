"""Goldens of the whole language model: PyPI transformers' MambaForCausalLM with random weights, on the CPU, in f32.

Each model is written twice, in the Transformers naming (`hf/`: config.json, model.safetensors) and in the original one
(`original/`: config.json, pytorch_model.bin). A float64 copy of the published block, written here, agrees with the
judge and gives the last states and the loss's gradients.
"""

import json

import numpy as np
import torch
import torch.nn.functional as F
from transformers import MambaConfig, MambaForCausalLM

from common import agree, exact, inverse_softplus, log_uniform, normal, rng
from scan import scan

PROMPT, GREEDY = 40, 64
# `tokens` is the vocabulary before padding to a multiple of 8, as the original config.json states it.
MODELS = {
    "tiny": {"tokens": 64, "d_model": 32, "n_layer": 3, "d_state": 16, "d_conv": 4, "f16": False, "gradients": True},
    "odd": {"tokens": 61, "d_model": 48, "n_layer": 2, "d_state": 8, "d_conv": 3, "f16": True, "gradients": False},
}


def weights(name, shape, config):
    """Random weights by their Transformers names; Δ's bias is the inverse softplus of 1e-3…1, log-uniform."""
    g, d, n, k = rng(f"mamba_lm_{name}"), shape["d_model"], shape["d_state"], shape["d_conv"]
    inner, rank = 2 * d, config.time_step_rank
    w = {"backbone.embeddings.weight": normal(g, config.vocab_size, d, scale=0.25)}
    for i in range(shape["n_layer"]):
        mixer = {
            "A_log": np.log(np.arange(n) + 1) + normal(g, inner, 1, scale=0.1),
            "D": 1 + normal(g, inner, scale=0.2),
            "in_proj.weight": normal(g, 2 * inner, d, scale=1.2 * d**-0.5),
            "conv1d.weight": normal(g, inner, 1, k, scale=k**-0.5),
            "conv1d.bias": normal(g, inner, scale=0.2),
            "x_proj.weight": normal(g, rank + 2 * n, inner, scale=inner**-0.5),
            "dt_proj.weight": normal(g, inner, rank, scale=0.15 * rank**-0.5),
            "dt_proj.bias": inverse_softplus(log_uniform(g, 1e-3, 1.0, inner)),
            "out_proj.weight": normal(g, d, inner, scale=3 * inner**-0.5),
        }
        w[f"backbone.layers.{i}.norm.weight"] = 1 + normal(g, d, scale=0.2)
        w |= {f"backbone.layers.{i}.mixer.{key}": value for key, value in mixer.items()}
    w["backbone.norm_f.weight"] = 1 + normal(g, d, scale=0.2)
    w = {key: exact(value).float() for key, value in w.items()}
    return {key: value.half().float() for key, value in w.items()} if shape["f16"] else w


def rms_norm(x, weight, eps):
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def block(w, x, k, eps, states, deltas):
    """One residual block (Mamba, section 3.4), batch-first; `w` by the names inside a layer."""
    xz = rms_norm(x, w["norm.weight"], eps) @ w["mixer.in_proj.weight"].T
    inside, z = xz.chunk(2, -1)
    padded = F.pad(inside, (0, 0, k - 1, 0))
    taps = w["mixer.conv1d.weight"][:, 0]
    convolved = sum(padded[:, j : j + x.shape[1]] * taps[:, j] for j in range(k)) + w["mixer.conv1d.bias"]
    u = F.silu(convolved)
    rank, n = w["mixer.dt_proj.weight"].shape[1], w["mixer.A_log"].shape[1]
    dt, B, C = (u @ w["mixer.x_proj.weight"].T).split([rank, n, n], -1)
    delta = F.softplus(dt @ w["mixer.dt_proj.weight"].T + w["mixer.dt_proj.bias"])
    h0 = u.new_zeros(u.shape[0], u.shape[2], n)
    y, h = scan(u, delta, -torch.exp(w["mixer.A_log"]), B, C, w["mixer.D"], h0)
    states.append((padded[:, -(k - 1) :], h))
    deltas.append(delta)
    return x + (y * F.silu(z)) @ w["mixer.out_proj.weight"].T


def forward(w, tokens, shape, eps):
    """Logits [B,T,V], the layers' states (last d_conv−1 rows, h) and every Δ."""
    x, states, deltas = w["backbone.embeddings.weight"][tokens], [], []
    for i in range(shape["n_layer"]):
        prefix = f"backbone.layers.{i}."
        layer = {key.removeprefix(prefix): value for key, value in w.items() if key.startswith(prefix)}
        x = block(layer, x, shape["d_conv"], eps, states, deltas)
    logits = rms_norm(x, w["backbone.norm_f.weight"], eps) @ w["backbone.embeddings.weight"].T
    return logits, states, torch.cat([delta.flatten() for delta in deltas])


def greedy(model, prompts):
    """64 most likely next tokens, their logits and margins, by whole forward passes; the judge's own cached step agrees."""
    tokens, rows = prompts, []
    for _ in range(GREEDY):
        rows.append(model(tokens, use_cache=False).logits[:, -1])
        tokens = torch.cat([tokens, rows[-1].argmax(-1, keepdim=True)], 1)
    model.generation_config.eos_token_id = None
    cached = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=GREEDY)
    if not torch.equal(cached, tokens):
        raise SystemExit("the judge's cached step chose other tokens than its whole forward pass")
    logits = torch.stack(rows, 1)
    best = logits.topk(2, -1).values
    return tokens[:, prompts.shape[1] :], logits, best[..., 0] - best[..., 1]


def save_models(writer, name, shape, model, w):
    if writer.check:
        return
    folder = writer.out / "mamba_lm" / name
    model.save_pretrained(folder / "hf")
    (folder / "hf" / "generation_config.json").unlink(missing_ok=True)
    original = {key.replace("embeddings", "embedding"): value for key, value in w.items()}
    original = {key: value.half() if shape["f16"] else value for key, value in original.items()}
    # Tied: two names over one storage, as the published files have it.
    original["lm_head.weight"] = original["backbone.embedding.weight"]
    (folder / "original").mkdir(parents=True, exist_ok=True)
    torch.save(original, folder / "original" / "pytorch_model.bin")
    reopened = MambaForCausalLM.from_pretrained(folder / "hf").state_dict()
    if not all(torch.equal(reopened[key], value) for key, value in w.items()):
        raise SystemExit(f"{name}: the saved folder does not give the weights back")
    default = shape["d_state"] == 16 and shape["d_conv"] == 4
    config = {
        "d_model": shape["d_model"], "n_layer": shape["n_layer"], "vocab_size": shape["tokens"],
        "ssm_cfg": {} if default else {"d_state": shape["d_state"], "d_conv": shape["d_conv"], "expand": 2},
        "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 8,
    }
    (folder / "original" / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def make_one(writer, name, shape):
    config = MambaConfig(
        vocab_size=-(-shape["tokens"] // 8) * 8, hidden_size=shape["d_model"], state_size=shape["d_state"],
        num_hidden_layers=shape["n_layer"], conv_kernel=shape["d_conv"])
    w = weights(name, shape, config)
    model = MambaForCausalLM(config).eval()
    missing = model.load_state_dict({**w, "lm_head.weight": w["backbone.embeddings.weight"]}, strict=True)
    assert not missing.missing_keys and not missing.unexpected_keys
    prompts = torch.from_numpy(rng(f"prompts_{name}").integers(0, shape["tokens"], (2, PROMPT)))
    with torch.no_grad():
        logits = model(prompts, use_cache=False).logits
        tokens, next_logits, margins = greedy(model, prompts)

    wide = {key: value.double().requires_grad_(True) for key, value in w.items()}
    exact_logits, states, deltas = forward(wide, prompts, shape, config.layer_norm_epsilon)
    worst = (logits - exact_logits).abs().max().item()
    loss = F.cross_entropy(exact_logits[:, :-1].flatten(0, 1), prompts[:, 1:].flatten())
    grads = dict(zip(wide, torch.autograd.grad(loss, list(wide.values()))))
    error = judge_gradients(model, prompts, grads)

    tensors = {"prompts": prompts, "logits": logits, "logits_float64": exact_logits, "next_tokens": tokens,
               "next_logits": next_logits, "margins": margins, "loss": loss.reshape(1)}
    for i, (conv, h) in enumerate(states):
        tensors |= {f"state.{i}.conv": conv, f"state.{i}.h": h}
    if shape["gradients"]:
        tensors |= {f"grad.{key}": value for key, value in grads.items()}
    save_models(writer, name, shape, model, w)
    low, high = (deltas.quantile(q).item() for q in (0.01, 0.99))
    writer.save(
        f"mamba_lm/{name}/golden", tensors, judge="transformers 5.23.0 MambaForCausalLM, f32, CPU",
        own="logits_float64, loss, state and grad are the float64 definition's", logits_max=f"{logits.abs().max():.2f}",
        logits_max_abs_difference=f"{worst:.1e}", gradients_against_judge=f"{error:.1e}", margin_min=f"{margins.min():.1e}",
        distinct_next=len(tokens.unique()), delta_min=f"{deltas.min():.1e}", delta_max=f"{deltas.max():.2f}",
        delta_1_percent=f"{low:.1e}", delta_99_percent=f"{high:.2f}")


def judge_gradients(model, prompts, ours):
    """Cross-entropy's gradients of every weight: the judge's autograd in f32 against the float64 definition's."""
    model.zero_grad()
    model(prompts, labels=prompts, use_cache=False).loss.backward()
    theirs = {key: value.grad for key, value in model.named_parameters()}
    return max(agree(f"gradient of {key}", theirs[key], value, 1e-4) for key, value in ours.items())


def make(writer, _refs):
    for name, shape in MODELS.items():
        make_one(writer, name, shape)
