"""Draws lists of mixtures and renders them.

    python mix.py list CORPUS SPLIT N SEED > test.tsv     # draw (done once; the lists are committed)
    python mix.py render CORPUS LIST OUT                  # OUT/noisy/ID.wav, OUT/clean/ID.wav, 16-bit PCM, 16 kHz, 3–10 s
    python mix.py hash OUT                                # SHA-256 of each rendered file, `sha256sum -c` format
    python mix.py late FOLDER SECONDS OUT                 # each sound of FOLDER after so much digital silence
    python mix.py cut FOLDER SECONDS OUT                  # and without it again

A row says all that a mixture is: noisy = gain · (s + a·n), clean = gain · s, where a makes

    snr_db = active speech level of s (ITU-T P.56 method B) − mean power of n over the clip, both in dB.

`gain` puts the mixture's peak between −12 and −1 dB of full scale, so nothing clips. Noise shorter than the clip is repeated.
`pink` and `brown` are made here; `noise_offset` is then the seed.
"""

import csv
import hashlib
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

import audio

HEAD = ["id", "clean", "start", "len", "noise", "noise_offset", "snr_db", "gain"]
MADE = {"pink": 1.0, "brown": 2.0}
SNR_DB = (-5.0, 20.0)
PEAK_DB = (-12.0, -1.0)
SECONDS = (3.0, 10.0)
MADE_SHARE = 0.08
# A stretch of noise below this has nothing to say, one of speech below this activity too little.
QUIET_DB = -55.0
ACTIVITY = 0.4


@lru_cache(maxsize=64)
def load(path):
    return audio.read(path)


def made_noise(colour, seed, n):
    """Gaussian noise whose power falls with 1/f (pink) or 1/f² (brown) above 40 Hz and is flat below."""
    white = np.fft.rfft(np.random.Generator(np.random.PCG64(seed)).standard_normal(n))
    f = np.maximum(np.fft.rfftfreq(n, 1 / audio.RATE), 40.0)
    x = np.fft.irfft(white * f ** (-MADE[colour] / 2), n)
    return (x / np.sqrt(np.mean(x * x)) * 0.1).astype(np.float32)


def noise_of(corpus, name, offset, n):
    if name in MADE:
        return made_noise(name, offset, n)
    x = load(corpus / name)
    return x[(offset + np.arange(n)) % len(x)]


def parts(corpus, row):
    """(speech, noise at its SNR), before gain."""
    start, n = int(row["start"]), int(row["len"])
    s = load(corpus / row["clean"])[start : start + n]
    if len(s) != n:
        sys.exit(f"mix: {row['clean']} has {start + len(s)} samples, expected at least {start + n}: the corpus differs from the list's")
    noise = noise_of(corpus, row["noise"], int(row["noise_offset"]), n)
    a_db = audio.active_level(s)[0] - audio.db(np.mean(np.square(noise, dtype=np.float64))) - float(row["snr_db"])
    return s, noise * np.float32(10 ** (a_db / 20))


def draw_noise(rng, corpus, groups, n):
    if rng.random() < MADE_SHARE:
        return ("pink", "brown")[rng.integers(2)], int(rng.integers(2**31))
    # A family weighs the root of its length: rain does not drown the short sounds.
    names = sorted(groups)
    weights = np.array([sum(k for _, k in groups[g]) for g in names], float) ** 0.5
    members = groups[names[rng.choice(len(names), p=weights / weights.sum())]]
    lengths = np.array([k for _, k in members], float)
    while True:
        path, length = members[rng.choice(len(members), p=lengths / lengths.sum())]
        offset = int(rng.integers(length))
        if audio.db(np.mean(np.square(noise_of(corpus, path, offset, n), dtype=np.float64))) > QUIET_DB:
            return path, offset


def draw(corpus, split, count, seed):
    """Rows of HEAD. Speech is drawn without repetition until all was used."""
    with open(corpus / "manifest.tsv", newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    noise_split = "test" if split.startswith("test") else split
    speech_split = "valid" if split.startswith("valid") else split
    speech = [r["path"] for r in rows if r["split"] == speech_split and r["kind"] == "clean" and float(r["seconds"]) >= SECONDS[0]]
    groups = {}
    for r in rows:
        if r["split"] == noise_split and r["kind"] == "noise":
            groups.setdefault(r["speaker"], []).append((r["path"], int(float(r["seconds"]) * audio.RATE)))
    rng = np.random.Generator(np.random.PCG64(seed))
    out, order = [], []
    while len(out) < count:
        if not order:
            order = list(rng.permutation(len(speech)))
        path = speech[order.pop()]
        x = load(corpus / path)
        n = min(len(x), int(rng.uniform(*SECONDS) * audio.RATE))
        start = int(rng.integers(len(x) - n + 1))
        if audio.active_level(x[start : start + n])[1] < ACTIVITY:
            continue
        noise, offset = draw_noise(rng, corpus, groups, n)
        row = dict(zip(HEAD, [f"{split}-{len(out):03}", path, start, n, noise, offset, f"{rng.uniform(*SNR_DB):.2f}"]))
        s, v = parts(corpus, row)
        peak = max(float(np.max(np.abs(s + v))), float(np.max(np.abs(s))))
        row["gain"] = f"{10 ** (rng.uniform(*PEAK_DB) / 20) / peak:.6f}"
        out.append(row)
    return out


def render(corpus, table, out):
    for kind in ("noisy", "clean"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    with open(table, newline="") as f:
        for row in csv.DictReader(f, delimiter="\t"):
            s, v = parts(corpus, row)
            gain = np.float32(row["gain"])
            audio.write(out / "clean" / f"{row['id']}.wav", s * gain)
            audio.write(out / "noisy" / f"{row['id']}.wav", (s + v) * gain)


def shifted(folder, seconds, out, into):
    out.mkdir(parents=True, exist_ok=True)
    n = round(seconds * audio.RATE)
    for p in sorted(folder.glob("*.wav")):
        x = audio.read(p)
        audio.write(out / p.name, np.concatenate([np.zeros(n, np.float32), x]) if into else x[n:])


def main():
    args = sys.argv[1:]
    if args[:1] == ["list"] and len(args) == 5:
        writer = csv.DictWriter(sys.stdout, HEAD, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(draw(Path(args[1]), args[2], int(args[3]), int(args[4])))
    elif args[:1] == ["render"] and len(args) == 4:
        render(*map(Path, args[1:]))
    elif args[:1] == ["hash"] and len(args) == 2:
        for p in sorted(Path(args[1]).glob("*/*.wav")):
            print(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(Path(args[1]).parent)}")
    elif args[:1] in (["late"], ["cut"]) and len(args) == 4:
        shifted(Path(args[1]), float(args[2]), Path(args[3]), args[0] == "late")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
