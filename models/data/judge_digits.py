"""Judges generated spoken digits: are they what they were to be, how far from the real ones as a crowd, and are they copies.

    python judge_digits.py train CORPUS [--weights OUT.npz] [--augment shift,gain,noise,mask]
    python judge_digits.py compare CORPUS                  # the choices of augmentation, on valid
    python judge_digits.py score FOLDER CORPUS [--json OUT.json]
    python judge_digits.py check CORPUS                    # the judge itself, on what it must call bad and good

CORPUS is what digits.py makes. FOLDER holds CLASS-anything.wav at 8 kHz, in folders of its own or not. Every clip, real or generated, is
heard alike (`hear`): through mu-law, without the silence at its ends, the loudest second of what is left, its mean taken off; then
40 mel bands every 10 ms, in dB below its loudest, down to -60. So neither level, nor an offset, nor zeros before or after count.

- **Right**: the share of clips that a small convolutional network, which knows the real train split alone, calls by their name, with Wilson's
  95% interval. A clip that is silent throughout is called nothing, and counts as wrong.
- **Fréchet distance** (Heusel et al. 2017) between Gaussians of the network's last 32 features, FOLDER's and real train's. A few clips give
  too great a distance, so every row is taken from the same number, the same of each class: the mean of DRAWS draws, or all where that is the number.
- **Inception score** (Salimans et al. 2016), of the same network's shares: how sure it is, and how even over the classes.
- **Nearest**: the distance from each clip to the real training clip nearest to it, among the features and, in dB, among the spectrograms,
  the least over shifts of up to 5 frames. Copies lie much nearer than real test clips do: `near` is the share of clips whose nearest
  spectrogram is nearer than that of all but 1% of real test.

Valid and test stand beside FOLDER in every row: what a perfect generator would get. Needs requirements-digits.txt.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn
from torch.nn import functional as F

from digits import NAMES, RATE, SPEAKERS

WEIGHTS = Path(__file__).with_name("digits-judge.npz")
AUGMENTS = ("shift", "gain", "noise", "mask")
# By `compare`: noise is what helps, masks don't.
CHOSEN = ("shift", "gain", "noise")
LENGTH = RATE
# Six of mu-law's steps next to zero: what a generator that is silent may waver within, and far below a digit.
SILENT = 1e-3
MELS, WINDOW, HOP, FLOOR_DB = 40, 256, 80, -60.0
FEATURES = 32
SHIFTS = range(-5, 6)
DRAWS = 20
EPOCHS, BATCH, SEED = 25, 64, 20261127
FOUND = re.compile(rf"({'|'.join(NAMES)})(?![a-z])")


# Hearing

def mu_law(x):
    """What is left of x after eight bits; the engine's curve (src/audio/mu_law.rs)."""
    curve = np.sign(x) * np.log1p(255 * np.minimum(np.abs(x), 1)) / np.log(256)
    curve = np.floor((curve + 1) * 127.5 + 0.5) / 127.5 - 1
    return np.sign(curve) * np.expm1(np.abs(curve) * np.log(256)) / 255


def trim(x):
    """The loudest second of x without the silence at its ends, its mean taken off; empty where all is silent."""
    x = mu_law(x)
    loud = np.flatnonzero(np.abs(x) >= SILENT)
    if len(loud) == 0:
        return np.zeros(0, np.float32)
    x = x[loud[0] : loud[-1] + 1]
    if len(x) > LENGTH:
        sums = np.concatenate([[0], np.cumsum(x**2)])
        start = int(np.argmax(sums[LENGTH:] - sums[:-LENGTH]))
        x = x[start : start + LENGTH]
    return (x - x.mean()).astype(np.float32)


def padded(x):
    return np.pad(x, (0, LENGTH - len(x)))


def mel_bands():
    """[MELS, WINDOW/2 + 1]: triangles, even in mel, from 50 Hz to the top."""
    mel = np.linspace(2595 * np.log10(1 + 50 / 700), 2595 * np.log10(1 + RATE / 2 / 700), MELS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hz = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    up = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    down = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    return torch.tensor(np.clip(np.minimum(up, down), 0, None), dtype=torch.float32)


BANDS, HANN = mel_bands(), torch.hann_window(WINDOW)


def spectrogram(x):
    """[clips, LENGTH] → [clips, MELS, frames], dB below each clip's loudest."""
    power = torch.stft(x, WINDOW, HOP, window=HANN, center=True, pad_mode="constant", return_complex=True).abs().square()
    db = 10 * torch.log10(BANDS @ power + 1e-10)
    return (db - db.amax((1, 2), keepdim=True)).clamp(min=FLOOR_DB) if len(x) else db


class Clips:
    """What is heard of a folder: `names` (classes), `paths`, `sound` [n, LENGTH], `lengths`, and `picture` [n, MELS, frames]."""

    def __init__(self, sounds, names, paths=()):
        heard = [trim(x) for x in sounds]
        self.names, self.paths = np.array(names), list(paths)
        self.lengths = np.array([len(x) for x in heard])
        self.sound = torch.tensor(np.stack([padded(x) for x in heard]))
        self.picture = spectrogram(self.sound)
        # Silence has no loudest: it is the floor throughout.
        self.picture[torch.tensor(self.lengths == 0)] = FLOOR_DB

    def __len__(self):
        return len(self.names)


def load(folder):
    """(sounds, classes, paths) of the WAVs in a folder and those below it."""
    sounds, names, paths = [], [], sorted(folder.rglob("*.wav"))
    for path in paths:
        named = FOUND.match(path.stem)
        if not named:
            sys.exit(f"judge_digits: {path}: expected a name that begins with one of {', '.join(NAMES)}")
        x, rate = soundfile.read(path, dtype="float64", always_2d=True)
        if rate != RATE:
            sys.exit(f"judge_digits: {path}: expected {RATE} Hz, got {rate}")
        sounds.append(x.mean(axis=1))
        names.append(NAMES.index(named[1]))
    if not paths:
        sys.exit(f"judge_digits: {folder}: expected WAV files, found none")
    return sounds, names, paths


def hear(folder):
    return Clips(*load(folder))


# The network

class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        block = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        self.down = nn.Sequential(block(1, 16), block(16, 32), block(32, 48))
        self.across = nn.Sequential(nn.Conv2d(48, 64, (MELS // 8, 3), padding=(0, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.last = nn.Linear(128, FEATURES)
        self.head = nn.Linear(FEATURES, len(NAMES))

    def features(self, picture):
        h = self.across(self.down(picture[:, None] / -FLOOR_DB + 0.5))[:, :, 0]
        return self.last(F.dropout(torch.cat([h.mean(2), h.amax(2)], 1), 0.3, self.training))

    def forward(self, picture):
        return self.head(F.relu(self.features(picture)))


def uniform(g, low, high, n):
    return low + (high - low) * torch.rand(n, generator=g)


def disturbed(sound, lengths, which, g):
    """Pictures of clips that are moved, made louder or fainter, noisier, and masked, each as `which` says."""
    n, x = len(sound), sound
    if "shift" in which:
        # Half stay at the beginning, where generated ones are.
        room = (LENGTH - lengths) * torch.rand(n, generator=g) * (torch.rand(n, generator=g) < 0.5)
        at = torch.arange(LENGTH) - room.long()[:, None]
        x = x.gather(1, at.clamp(min=0)) * (at >= 0)
    if "gain" in which:
        x = torch.tensor(mu_law((x * 10 ** (uniform(g, -20, 6, n) / 20)[:, None]).numpy()), dtype=torch.float32)
    if "noise" in which:
        level = (x.square().sum(1) / lengths.clamp(min=1)).sqrt() * 10 ** (-uniform(g, 10, 60, n) / 20)
        x = x + level[:, None] * torch.randn(x.shape, generator=g)
    picture = spectrogram(x)
    if "mask" in which:
        for axis, most in ((1, 8), (2, 15)):
            size = picture.shape[axis]
            for _ in range(2):
                width = uniform(g, 0, most, n)
                start = uniform(g, 0, 1, n) * (size - width)
                i = torch.arange(size)
                hidden = (i >= start[:, None]) & (i < (start + width)[:, None])
                picture = picture.masked_fill(hidden[:, :, None] if axis == 1 else hidden[:, None], FLOOR_DB)
    return picture


def train(clips, which, seed=SEED, say=lambda _: None):
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    judge = Judge()
    lengths, names = torch.tensor(clips.lengths), torch.tensor(clips.names)
    steps = EPOCHS * (len(clips) // BATCH)
    optim = torch.optim.AdamW(judge.parameters(), lr=4e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optim, 4e-3, steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for at in torch.randperm(len(clips), generator=g)[: len(clips) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(judge(disturbed(clips.sound[at], lengths[at], which, g)), names[at])
            optim.zero_grad()
            loss.backward()
            optim.step()
            rate.step()
            total += loss.item() * BATCH / len(clips)
        say(f"epoch {epoch + 1} of {EPOCHS}: loss {total:.4f}")
    return judge.eval()


def save(judge, path):
    """In half precision: what is kept is what is judged with."""
    state = {k: v.numpy() for k, v in judge.state_dict().items() if "num_batches" not in k}
    np.savez_compressed(path, **{k: v.astype(np.float16) for k, v in state.items()})


def opened(path):
    judge = Judge()
    with np.load(path) as f:
        judge.load_state_dict({k: torch.tensor(f[k].astype(np.float32)) for k in f.files}, strict=False)
    return judge.eval()


@torch.no_grad()
def listen(judge, clips, picture=None):
    """(features, shares of the classes, the class each is called or -1)."""
    picture = clips.picture if picture is None else picture
    features = torch.cat([judge.features(p) for p in picture.split(256)])
    shares = judge.head(F.relu(features)).softmax(1).numpy()
    return features.numpy().astype(np.float64), shares, np.where(clips.lengths > 0, shares.argmax(1), -1)


# Figures

def wilson(right, n, z=1.959964):
    """95% interval of a share (Wilson 1927)."""
    p = right / n
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))]


def root(s):
    w, v = np.linalg.eigh(s)
    return (v * np.sqrt(np.clip(w, 0, None))) @ v.T


def frechet(a, b):
    s, t = np.cov(a.T), np.cov(b.T)
    r = root(s)
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(s) + np.trace(t) - 2 * np.trace(root(r @ t @ r)))


def frechet_of(features, names, reference, each):
    """(mean, standard deviation over draws) of the distance of `each` clips of every class from the reference."""
    rng = np.random.default_rng(SEED)
    classes = [np.flatnonzero(names == c) for c in range(len(NAMES))]
    draws = 1 if all(len(c) == each for c in classes) else DRAWS
    at = [np.concatenate([rng.choice(c, each, replace=False) for c in classes]) for _ in range(draws)]
    found = [frechet(features[i], np.delete(reference, i, 0) if features is reference else reference) for i in at]
    return float(np.mean(found)), float(np.std(found))


def inception(shares):
    mean = shares.mean(0)
    return float(np.exp(np.mean(np.sum(shares * (np.log(shares + 1e-12) - np.log(mean + 1e-12)), axis=1))))


def distances(a, b):
    """[len(a), len(b)] of Euclid's."""
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.clip(squares, 0, None))


def nearest_pictures(a, b):
    """For each picture of a: the root of the mean squared difference, dB, to the nearest of b, and which it is."""
    flat = lambda p: (p - FLOOR_DB).flatten(1).numpy().astype(np.float64)
    least, which, other = np.full(len(a), np.inf), np.zeros(len(a), int), flat(b)
    for shift in SHIFTS:
        moved = F.pad(a, (max(shift, 0), max(-shift, 0)), value=FLOOR_DB)
        moved = moved[:, :, max(-shift, 0) : max(-shift, 0) + a.shape[2]]
        d = distances(flat(moved), other) / np.sqrt(other.shape[1])
        better = d.min(1) < least
        least[better], which[better] = d.min(1)[better], d.argmin(1)[better]
    return least, which


def percentiles(values):
    return {f"p{p:02}": round(float(np.percentile(values, p)), 3) for p in (1, 5, 25, 50, 75, 95)}


def judged(clips, heard, real, real_heard, each):
    """Everything about one set of clips. `each`: clips of every class for the Fréchet distance, or 0."""
    features, shares, called = heard
    right = int(np.sum(called == clips.names))
    confusion = np.zeros((len(NAMES), len(NAMES) + 1), int)
    np.add.at(confusion, (clips.names, called), 1)
    row = {"clips": len(clips), "silent": int(np.sum(clips.lengths == 0)), "right": right / len(clips), "right_interval": wilson(right, len(clips)),
           "per_class": {name: [int(confusion[i, i]), int(confusion[i].sum())] for i, name in enumerate(NAMES) if confusion[i].any()},
           "confusion": confusion.tolist(), "inception": inception(shares)}
    if each:
        row["frechet"], row["frechet_deviation"] = frechet_of(features, clips.names, real_heard[0], each)
        row["frechet_clips"] = each * len(NAMES)
    if clips is not real:
        row["nearest_features"] = percentiles(distances(features, real_heard[0]).min(1))
        least, which = nearest_pictures(clips.picture, real.picture)
        row["nearest_spectrograms_db"] = percentiles(least)
        row["near"] = least
        speakers = [real.paths[i].stem.split("-")[1] for i in which]
        row["speaker_of_nearest"] = {s: speakers.count(s) / len(clips) for s in SPEAKERS}
    return row


def document(judge, sets, corpus):
    """{name: row} for the sets that are given and the real ones."""
    real = {split: hear(corpus / split) for split in ("train", "valid", "test")}
    sets |= {f"real {split}": clips for split, clips in real.items()}
    counts = {name: int(np.bincount(clips.names, minlength=len(NAMES)).min()) for name, clips in sets.items()}
    # A set that lacks a class has no Fréchet distance; two clips of each are the least for a covariance of any use.
    each = min((n for n in counts.values() if n * len(NAMES) >= 2 * FEATURES), default=0)
    heard = {name: listen(judge, clips) for name, clips in sets.items()}
    train = real["train"], heard["real train"]
    rows = {name: judged(clips, heard[name], *train, each if counts[name] >= each else 0) for name, clips in sets.items()}
    bound = np.percentile(rows["real test"]["near"], 1)
    return {name: row | ({"near": float(np.mean(row["near"] < bound))} if "near" in row else {}) for name, row in rows.items()}


def show(rows):
    print(f"{'':<22}{'clips':>6}{'silent':>7}  {'right [95%]':<23}{'inception':>10}{'Fréchet':>9} ± {'dev':<5}{'of':>5}"
          f"   {'nearest features 5, 50, 95%':<30}{'nearest spectrograms, dB':<26}  near")
    for name, r in rows.items():
        low, high = r["right_interval"]
        frechet = f"{r['frechet']:>9.2f} ± {r['frechet_deviation']:<5.2f}{r['frechet_clips']:>5}" if "frechet" in r else f"{'–':>9}{'':>13}"
        near = f"{r['near']:6.3f}" if "near" in r else "–"
        spans = ["  ".join(f"{r[k][p]:6.2f}" for p in ("p05", "p50", "p95")) if k in r else "–" for k in ("nearest_features", "nearest_spectrograms_db")]
        print(f"{name:<22}{r['clips']:>6}{r['silent']:>7}  {r['right']:.3f} [{low:.3f}, {high:.3f}]   {r['inception']:>10.2f}{frechet}   {spans[0]:<30}{spans[1]:<26}{near}")


def show_classes(row):
    print("\n" + f"{'named':<8}" + "".join(f"{n:>7}" for n in (*NAMES, "nothing")) + "   right")
    for i, name in enumerate(NAMES):
        cells = row["confusion"][i]
        if sum(cells):
            print(f"{name:<8}" + "".join(f"{c or '·':>7}" for c in cells) + f"   {cells[i] / sum(cells):.3f}")
    if "speaker_of_nearest" in row:
        print("speaker of the nearest spectrogram: " + ", ".join(f"{s} {v:.2f}" for s, v in row["speaker_of_nearest"].items()))


# Commands

def train_command(args):
    clips = hear(args.corpus / "train")
    save(train(clips, args.augment, say=lambda line: print(line, file=sys.stderr)), args.weights)
    judge = opened(args.weights)
    for split in ("train", "valid", "test"):
        part = hear(args.corpus / split)
        right = int(np.sum(listen(judge, part)[2] == part.names))
        print("{}: {} of {} right, {:.3f} [{:.3f}, {:.3f}]".format(split, right, len(part), right / len(part), *wilson(right, len(part))))
    print(f"{args.weights}: {args.weights.stat().st_size:,} bytes, augmented by {', '.join(args.augment) or 'nothing'}")


def compare_command(args):
    """Right on valid as it is, and on valid moved, fainter and at 20 dB of noise; two seeds each."""
    clips, valid = hear(args.corpus / "train"), hear(args.corpus / "valid")
    g = torch.Generator().manual_seed(1)
    moved = disturbed(valid.sound, torch.tensor(valid.lengths), ("shift", "gain"), g)
    sound = valid.sound + torch.randn(valid.sound.shape, generator=g) * (valid.sound.square().sum(1) / torch.tensor(valid.lengths)).sqrt()[:, None] * 0.1
    pictures = {"as it is": valid.picture, "moved, fainter": moved, "noise at 20 dB": spectrogram(sound)}
    for k in range(len(AUGMENTS) + 1):
        rights = []
        for seed in range(2):
            judge = train(clips, AUGMENTS[:k], seed)
            rights.append([np.mean(listen(judge, valid, p)[2] == valid.names) for p in pictures.values()])
        cells = ", ".join(f"{n} {v:.4f}" for n, v in zip(pictures, np.mean(rights, axis=0)))
        print(f"{'+'.join(AUGMENTS[:k]) or 'nothing':<24} {cells}", flush=True)


def score_command(args):
    rows = document(opened(args.weights), {str(args.folder): hear(args.folder)}, args.corpus)
    show(rows)
    show_classes(rows[str(args.folder)])
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def check_command(args):
    """Sets that must be called bad, and good, and copies; exits with 1 where one is not."""
    rng = np.random.default_rng(1)
    train, names, paths = load(args.corpus / "train")
    valid, valid_names, _ = load(args.corpus / "valid")
    whole = lambda x: np.pad(x[:LENGTH], (0, max(0, LENGTH - len(x))))
    some = np.concatenate([rng.choice(np.flatnonzero(np.array(names) == c), 25, replace=False) for c in range(len(NAMES))])
    sets = {
        "silence": Clips([np.full(LENGTH, 8.6e-5)] * 250, valid_names),
        "white noise": Clips([0.1 * rng.standard_normal(LENGTH) for _ in valid], valid_names),
        "valid, other names": Clips(valid, rng.permutation(valid_names)),
        "valid, backwards": Clips([x[::-1] for x in valid], valid_names),
        "valid, 1 s with zeros": Clips([whole(x) for x in valid], valid_names),
        "valid, 0.2 s before": Clips([np.pad(x, (1600, 800)) * 0.3 for x in valid], valid_names),
        "valid, 20 dB of noise": Clips([x + 0.1 * x.std() * rng.standard_normal(len(x)) for x in valid], valid_names),
        "one clip a class": Clips([valid[valid_names.index(c)] for c in valid_names], valid_names),
        "train, copies": Clips([train[i] for i in some], [names[i] for i in some]),
        "train, changed copies": Clips([0.5 * np.pad(train[i], (37, 900)) + 0.003 * train[i].std() * rng.standard_normal(len(train[i]) + 937)
                                        for i in some], [names[i] for i in some]),
    }
    rows = document(opened(args.weights), sets, args.corpus)
    show(rows)
    show_classes(rows["real test"])
    near = lambda name, p="p50": rows[name]["nearest_spectrograms_db"][p]
    must = {
        "silence is never right": rows["silence"]["right"] == 0,
        "noise and wrong names are right by chance": all(rows[k]["right"] < 0.2 for k in ("white noise", "valid, other names")),
        "real valid is right": rows["real valid"]["right"] >= 0.95,
        "real test is right": rows["real test"]["right"] >= 0.95,
        "zeros after it change nothing": rows["valid, 1 s with zeros"]["right"] == rows["real valid"]["right"],
        "copies are at 0": near("train, copies", "p95") < 1e-3 and rows["train, copies"]["nearest_features"]["p95"] < 1e-3,
        "changed copies are nearer than test": near("train, changed copies", "p75") < near("real test", "p05"),
        "the same clip again and again is far": rows["one clip a class"]["frechet"] > 3 * rows["real test"]["frechet"],
    }
    print()
    for what, holds in must.items():
        print(f"{'ok  ' if holds else 'FAIL'} {what}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(0 if all(must.values()) else 1)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(dest="command", required=True)
    for name, run in (("train", train_command), ("compare", compare_command), ("score", score_command), ("check", check_command)):
        c = commands.add_parser(name)
        c.set_defaults(run=run)
        if name == "score":
            c.add_argument("folder", type=Path)
        c.add_argument("corpus", type=Path)
        c.add_argument("--weights", type=Path, default=WEIGHTS)
        c.add_argument("--augment", type=lambda s: tuple(a for a in s.split(",") if a), default=CHOSEN, help="of " + ",".join(AUGMENTS))
        c.add_argument("--json", type=Path)
        c.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    if bad := set(args.augment) - set(AUGMENTS):
        p.error(f"--augment: expected some of {', '.join(AUGMENTS)}, got {', '.join(bad)}")
    return args


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    args.run(args)


if __name__ == "__main__":
    main()
