"""An LSTM of equal size in what Cascabel's recipes teach: the next sample of a sound, and the papers' tests of memory. PyTorch, CPU or CUDA.

    python lstm.py sound TRAIN VALID --rate 16000 [--test TEST] [--classes zero,one] [--seconds 0.5] [--windows 8] [--json OUT.json]
    python lstm.py memory induction-heads|selective-copying [--length 256] [--longest 1048576] [--json OUT.json]
    both: [--d 128] [--hidden 256] [--layers 1] [--batch 32] [--steps 2000] [--peak 2e-3] [--seed 1] [--device cuda]        # several peaks and as many seeds: runs side by side

What is learned is what src/train/task/{generator,recall} define: mu-law tokens of the mean of the channels, windows that follow each other in a
clip with the state carried and no gradient back, a class's table row added at every sample; puzzles as in recall/puzzle.rs. So are warm-up (a tenth of the
steps), half a cosine, AdamW (betas 0.9 and 0.99, decay 0.02 on matrices, clip 1), and the weights' moving average (0.999), by which whole clips of VALID
are judged with carried state. The draws are not the same draws. TRAIN and VALID hold WAV files of 16 bits at RATE. Prints a line of JSON a run: parameters, steps' seconds, and bits a
sample, or the share of right answers by length; OUT.json has those of each clip.
"""

import argparse
import json
import math
import sys
import time
import wave
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SILENCE, LEVELS, NOTHING = 128, 256, -100
BLANK, ASK, COPIED, KEY = 0, 1, 16, 0


def encoded(x):
    curve = np.sign(x) * np.log1p(255.0 * np.abs(x)) / math.log(256.0)
    return np.clip(np.floor((curve + 1.0) / 2.0 * 255.0 + 0.5), 0, 255).astype(np.int64)


def clips(folder, rate, classes):
    """[(name, tokens, class)] of a folder's WAV files."""
    found = []
    for path in sorted(Path(folder).glob("*.wav")):
        with wave.open(str(path)) as w:
            if (w.getframerate(), w.getsampwidth()) != (rate, 2):
                raise SystemExit(f"{path}: expected 16 bits at {rate} Hz, got {8 * w.getsampwidth()} at {w.getframerate()}")
            x = np.frombuffer(w.readframes(w.getnframes()), np.int16).reshape(-1, w.getnchannels()).mean(1) / 32768.0
        fits = [c for c in classes if path.stem.startswith(c)]
        if classes and not fits:
            raise SystemExit(f"{path}: expected a name that begins with one of {', '.join(classes)}")
        found.append((path.name, encoded(x), classes.index(max(fits, key=len)) if fits else 0))
    if not found:
        raise SystemExit(f"{folder}: expected WAV files, got none")
    return found


class Windows:
    """Windows of visits, as task/generator/windows.rs makes them."""

    def __init__(self, all_clips, rows, windows, batch, seed):
        self.clips, self.rows, self.windows, self.batch = all_clips, rows, windows, batch
        weights = np.array([max(len(tokens), rows * windows) for _, tokens, _ in all_clips], float)
        self.shares, self.rng, self.visits = weights / weights.sum(), np.random.default_rng(seed), []

    def step(self, i):
        """(heard, wanted, class) of all places, and whether they begin."""
        begins = i % self.windows == 0
        if begins:
            self.visits = []
            for c in self.rng.choice(len(self.clips), self.batch, p=self.shares):
                _, tokens, of = self.clips[c]
                span = self.rows * self.windows
                start = int(self.rng.integers(max(len(tokens) - span, 0) + 1))
                piece = np.full(span + 1, SILENCE)
                before = max(start - 1, 0)
                own = tokens[before : start + span]
                piece[1 - (start - before) :][: len(own)] = own
                self.visits.append((piece, of))
        at = i % self.windows * self.rows
        x = torch.from_numpy(np.stack([piece[at : at + self.rows + 1] for piece, _ in self.visits]))
        return x[:, :-1], x[:, 1:], torch.tensor([of for _, of in self.visits]), begins


def puzzle(kind, length, vocabulary, count, rng):
    """(heard, wanted) as recall/puzzle.rs makes them."""
    if kind == "induction-heads":
        heard = rng.integers(1, vocabulary, (count, length))
        wanted = np.full((count, length), NOTHING)
        key = rng.integers(0, length - 2, count)
        rows = np.arange(count)
        heard[rows, key], heard[:, -1] = KEY, KEY
        wanted[:, -1] = heard[rows, key + 1]
        return torch.from_numpy(heard), torch.from_numpy(wanted)
    heard, wanted = np.full((count, length + COPIED), BLANK), np.full((count, length + COPIED), NOTHING)
    for i in range(count):
        data = rng.integers(2, vocabulary, COPIED)
        heard[i, np.sort(rng.choice(length, COPIED, replace=False))] = data
        heard[i, length:], wanted[i, length:] = ASK, data
    return torch.from_numpy(heard), torch.from_numpy(wanted)


class Net(nn.Module):
    def __init__(self, vocabulary, classes, d, hidden, layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d)
        self.of_class = nn.Embedding(classes, d) if classes else None
        self.lstm = nn.LSTM(d, hidden, layers, batch_first=True)
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, vocabulary)

    def forward(self, tokens, of=None, state=None):
        x = self.embedding(tokens)
        if self.of_class is not None:
            x = x + self.of_class(of)[:, None]
        y, state = self.lstm(x, state)
        return self.head(self.norm(y)), state


class Run:
    """A net on its way through its steps. `example(i)` is (heard, wanted, class, whether it begins). On a GPU a step's thousands of small
    kernels are one graph, which the host launches at once."""

    def __init__(self, net, args, peak, example):
        self.net, self.args, self.peak, self.example = net, args, peak, example
        decayed = [p for p in net.parameters() if p.dim() > 1]
        plain = [p for p in net.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.99))
        self.average = {name: p.detach().clone() for name, p in net.state_dict().items()}
        self.held = self.graph = None

    def hold(self, given):
        """Places that a step reads, and the state that it leaves; then the graph of a step over them."""
        self.held = [x.to(self.args.device, copy=True) if torch.is_tensor(x) else x for x in given]
        self.state = [torch.zeros(self.args.layers, self.args.batch, self.args.hidden, device=self.args.device) for _ in range(2)]
        for p in self.net.parameters():
            p.grad = torch.zeros_like(p)
        if self.args.device == "cpu":
            return
        for _ in range(3):
            self.gradient()
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            self.gradient()
        captured = self.loss
        # One step by either way from the same beginning.
        ways = []
        for way in (self.gradient, graph.replay):
            [x.zero_() for x in self.state]
            way()
            torch.cuda.current_stream().synchronize()
            loss = self.loss if way == self.gradient else captured
            ways.append([loss.detach().clone(), *(p.grad.clone() for p in self.net.parameters())])
        off = max(((a - b).norm() / a.norm().clamp_min(1e-12)).item() for a, b in zip(*ways))
        if not off < 1e-4:
            sys.exit(f"lstm: the graph of a step: expected the loss and gradients of a step, got others by {off:.2g}")
        self.graph, self.loss = graph, captured

    def gradient(self):
        heard, wanted, of = self.held
        self.optimiser.zero_grad(set_to_none=False)
        logits, state = self.net(heard, of, tuple(self.state))
        self.loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=NOTHING)
        self.loss.backward()
        for old, new in zip(self.state, state):
            old.copy_(new.detach())

    def step(self, i):
        args, warm = self.args, max(self.args.steps // 10, 1)
        t = min(max((i - warm) / max(args.steps - warm, 1), 0.0), 1.0)
        rate = self.peak * (i + 1) / warm if i < warm else self.peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * t)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        *given, begins = self.example(i)
        if self.held is None:
            self.hold(given)
        for place, x in zip(self.held, given):
            if torch.is_tensor(x):
                # From pinned memory, so that the host goes on to the other runs.
                place.copy_(x if args.device == "cpu" else x.contiguous().pin_memory(), non_blocking=True)
        if begins:
            [x.zero_() for x in self.state]
        self.graph.replay() if self.graph else self.gradient()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        # A short run's average is not its beginning.
        keep = min(0.999, (1 + i) / (10 + i))
        with torch.no_grad():
            for name, p in self.net.state_dict().items():
                self.average[name].lerp_(p, 1 - keep)


def trained(runs, args):
    """All runs to their end, side by side, on a GPU a stream each. Then nets have their moving averages. Seconds a step of all."""
    on_gpu = args.device != "cpu"
    streams = [torch.cuda.Stream() if on_gpu else None for _ in runs]
    if on_gpu:
        torch.cuda.synchronize()
    begun = time.time()
    for i in range(args.steps):
        if i == 1:
            # The first has made the graphs.
            begun = time.time()
        for run, stream in zip(runs, streams):
            with torch.cuda.stream(stream):
                run.step(i)
        if (i + 1) % max(args.steps // 10, 1) == 0:
            if on_gpu:
                torch.cuda.synchronize()
            losses = ", ".join(f"{run.loss.item() / math.log(2):.4f}" for run in runs)
            print(f"step {i + 1}: {losses} bits, {(time.time() - begun) / max(i, 1):.4f} s a step", flush=True)
    if on_gpu:
        torch.cuda.synchronize()
    for run in runs:
        run.net.load_state_dict(run.average)
    return (time.time() - begun) / max(args.steps - 1, 1)


@torch.no_grad()
def bits(net, found, device, rows=1 << 14):
    """Bits a sample of each whole clip, all side by side from zeros to their ends."""
    longest = max(len(tokens) for _, tokens, _ in found)
    heard = torch.full((len(found), longest + 1), SILENCE)
    lengths, nats, state = torch.tensor([len(tokens) for _, tokens, _ in found], device=device), torch.zeros(len(found), device=device, dtype=torch.float64), None
    for row, (_, tokens, _) in zip(heard, found):
        row[1 : len(tokens) + 1] = torch.from_numpy(tokens)
    of = torch.tensor([of for *_, of in found], device=device)
    for a in range(0, longest, rows):
        part = heard[:, a : a + rows + 1].to(device)
        logits, state = net(part[:, :-1], of, state)
        each = F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="none").view(len(found), -1)
        own = torch.arange(a, a + each.shape[1], device=device) < lengths[:, None]
        nats += torch.where(own, each, 0).sum(1, dtype=torch.float64)
    return {name: x / math.log(2) for (name, *_), x in zip(found, (nats / lengths).tolist())}


@torch.no_grad()
def right(net, kind, length, count, device):
    rng, good, answers = np.random.default_rng(length), 0, 0
    for _ in range(count):
        heard, wanted = puzzle(kind, length, 16, 1, rng)
        state, found = None, []
        for a in range(0, heard.shape[1], 1 << 16):
            logits, state = net(heard[:, a : a + (1 << 16)].to(device), None, state)
            found.append(logits[0].argmax(1).cpu())
        asked = wanted[0] != NOTHING
        good, answers = good + (torch.cat(found)[asked] == wanted[0][asked]).sum().item(), answers + asked.sum().item()
    return good / answers


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = p.add_subparsers(dest="kind", required=True)
    sound, memory = kinds.add_parser("sound"), kinds.add_parser("memory")
    sound.add_argument("train"), sound.add_argument("valid")
    sound.add_argument("--rate", type=int, required=True)
    sound.add_argument("--test")
    sound.add_argument("--classes", default="")
    sound.add_argument("--seconds", type=float, default=0.5)
    sound.add_argument("--windows", type=int, default=8)
    memory.add_argument("puzzle", choices=["induction-heads", "selective-copying"])
    memory.add_argument("--length", type=int, default=256)
    memory.add_argument("--longest", type=int, default=0)
    for kind, d, hidden, batch in ((sound, 128, 256, 32), (memory, 64, 96, 8)):
        kind.add_argument("--d", type=int, default=d)
        kind.add_argument("--hidden", type=int, default=hidden)
        kind.add_argument("--layers", type=int, default=1)
        kind.add_argument("--batch", type=int, default=batch)
        kind.add_argument("--steps", type=int, default=2000)
        kind.add_argument("--peak", type=float, nargs="+", default=[2e-3])
        kind.add_argument("--seed", type=int, nargs="+", default=[1])
        kind.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        kind.add_argument("--json", type=Path)
    args = p.parse_args()
    if len(args.peak) != len(args.seed):
        sys.exit(f"lstm: --peak and --seed: expected as many of each, got {len(args.peak)} and {len(args.seed)}")
    classes = [c for c in getattr(args, "classes", "").split(",") if c]
    sound = args.kind == "sound"
    learned = clips(args.train, args.rate, classes) if sound else None
    runs = []
    for peak, seed in zip(args.peak, args.seed):
        torch.manual_seed(seed)
        net = Net(LEVELS if sound else 16, len(classes), args.d, args.hidden, args.layers).to(args.device)
        if sound:
            example = Windows(learned, round(args.seconds * args.rate), args.windows, args.batch, seed).step
        else:
            example = lambda _, rng=np.random.default_rng(seed): (*puzzle(args.puzzle, args.length, 16, args.batch, rng), None, True)
        runs.append(Run(net, args, peak, example))
    seconds, records = trained(runs, args), []
    for run, seed in zip(runs, args.seed):
        record = {"peak": run.peak, "seed": seed, "parameters": sum(p.numel() for p in run.net.parameters()), "seconds_a_step": seconds / len(runs)}
        if sound:
            record["bits"] = bits(run.net, clips(args.valid, args.rate, classes), args.device)
            record["mean"] = sum(record["bits"].values()) / len(record["bits"])
            if args.test:
                record["test"] = bits(run.net, clips(args.test, args.rate, classes), args.device)
        else:
            lengths = [args.length]
            while 2 * lengths[-1] <= args.longest:
                lengths.append(2 * lengths[-1])
            record["right"] = {n: right(run.net, args.puzzle, n, 128 if n <= 1 << 16 else 16, args.device) for n in lengths}
        records.append(record)
        print(json.dumps({k: v for k, v in record.items() if k not in ("bits", "test")}))
    if args.json:
        args.json.write_text(json.dumps({"args": {k: str(v) for k, v in vars(args).items()}, "runs": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
