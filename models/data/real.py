"""Real recordings with the noise that they were made with, for judges that need no clean sound.

    python real.py make ROOT OUT                          # OUT/noisy/LANG-NN.wav, 10 s each
    python real.py judge FOLDER NAME=FOLDER ...           # DNSMOS P.835 (Reddy et al. 2022) of each system, paired differences by bootstrap

ROOT is where `prepare.sh` unpacked the packages (`data/denoise/.work/root`). The recordings are words and phrases that volunteers spoke at
home for tuxpaint-stamps-default and that training leaves out (other voices of their languages are in it, but for Catalan), and the actors of
fillets-ng-data-cs, whom it leaves out too: microphones, rooms, hum, hiss. Nothing was mixed by us; recordings of one speaker follow each other, as they are, until ten seconds
are full. `judge` needs `pip install speechmos==0.0.1.1 librosa onnxruntime`, whose package holds DNSMOS's weights.
"""

import re
import sys
from pathlib import Path

import numpy as np
import soundfile as sf

import audio

LANGUAGES = ("ca", "da", "fr", "nl", "ru")
PIECE_S, MOST = 10.0, 20
KINDS = ("sig_mos", "bak_mos", "ovrl_mos")


def recordings(root):
    """(speaker, path), sorted."""
    for p in sorted((root / "usr/share/tuxpaint/stamps").rglob("*.ogg")):
        m = re.match(r"(.*?)_desc_([a-z]{2})\.ogg$", p.name) or re.match(r"(.*)_([a-z]{2})\.ogg$", p.name)
        if m and m.group(2) in LANGUAGES:
            yield m.group(2), p
    for p in sorted((root / "usr/share/games/fillets-ng/sound").glob("*/cs/*-[mv]-*.ogg")):
        yield f"cs{'m' if '-m-' in p.name else 'v'}", p


def make(root, out):
    pending, made = {}, {}
    (out / "noisy").mkdir(parents=True, exist_ok=True)
    for who, path in recordings(root):
        if made.get(who, 0) == MOST:
            continue
        frames, rate = sf.read(path, dtype="float32", always_2d=True)
        if rate < 16_000:
            continue
        x = np.concatenate([pending.get(who, np.zeros(0, np.float32)), audio.to_mono_16k(frames, rate)])
        pending[who] = x
        if len(x) >= PIECE_S * audio.RATE:
            x = x[: int(PIECE_S * audio.RATE)]
            audio.write(out / "noisy" / f"{who}-{made.get(who, 0):02}.wav", x / max(1.0, np.abs(x).max() / 0.99))
            made[who], pending[who] = made.get(who, 0) + 1, np.zeros(0, np.float32)
    print(", ".join(f"{who} {n}" for who, n in sorted(made.items())))


def judge(noisy, systems):
    from speechmos import dnsmos

    names = sorted(p.name for p in noisy.glob("*.wav"))
    scores = {}
    for system, folder in {"noisy": noisy, **systems}.items():
        rows = []
        for name in names:
            x, rate = sf.read(folder / name, dtype="float32")
            assert rate == audio.RATE
            found = dnsmos.run(np.clip(x, -1, 1), sr=rate)
            rows.append([found[k] for k in KINDS])
        scores[system] = np.array(rows)
    draw = np.random.default_rng(1).integers(0, len(names), (2000, len(names)))
    print(f"{len(names)} recordings\n\n| system | SIG | BAK | OVRL |\n|---|---|---|---|")
    for system, s in scores.items():
        print(f"| {system} | " + " | ".join(f"{v:.3f}" for v in s.mean(axis=0)) + " |")
    first = next(iter(systems))
    print(f"\n| {first} minus | SIG | BAK | OVRL |\n|---|---|---|---|")
    for system, s in scores.items():
        if system != first:
            d = scores[first] - s
            spread = np.percentile(d[draw].mean(axis=1), [2.5, 97.5], axis=0)
            print(f"| {system} | " + " | ".join(f"{m:+.3f} [{a:+.3f}, {b:+.3f}]" for m, a, b in zip(d.mean(axis=0), *spread)) + " |")


def main():
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        judge(Path(sys.argv[2]), {k: Path(v) for k, v in (a.split("=", 1) for a in sys.argv[3:])})


if __name__ == "__main__":
    main()
