"""Whether a training noise is heard in valid or test: the greatest normalised cross-correlation, at 4 kHz.

    python overlap.py CORPUS            # prints each training noise with a correlation above 0.3, by up to 8 s of it

The same recording under another name, level or codec gives above 0.9; noises of one kind about 0.1. Speeds other than 1 are
not looked for. Train's own families of 0 A.D. are known to differ from test's by name, and are compared as well.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve, resample_poly

import audio

RATE = 4000
LONGEST = 8 * RATE


def low(path):
    x = resample_poly(audio.read(path).astype(np.float64), 1, audio.RATE // RATE)
    return x - x.mean()


def correlation(piece, hay, power):
    """The greatest |NCC| of `piece` over `hay`, whose running sums of squares are `power`."""
    n = len(piece)
    local = power[n:] - power[:-n]
    floor = 1e-6 * np.median(power[-1] / len(hay)) * n
    found = np.abs(fftconvolve(hay, piece[::-1], "valid")) / np.sqrt(np.sum(piece**2) * np.maximum(local, floor) + 1e-20)
    at = int(found.argmax())
    return found[at], at


def main():
    corpus = Path(sys.argv[1])
    held = [p for split in ("valid", "test") for p in sorted((corpus / split / "noise").glob("*.flac"))]
    sounds = [low(p) for p in held]
    ends = np.cumsum([len(s) for s in sounds])
    hay = np.concatenate(sounds)
    power = np.concatenate([[0.0], np.cumsum(hay**2)])
    seen = 0
    for p in sorted((corpus / "train/noise").glob("*.flac")):
        x = low(p)
        # The loudest stretch, for silence correlates with nothing.
        n = min(LONGEST, len(x))
        sums = np.concatenate([[0.0], np.cumsum(x**2)])
        start = int((sums[n:] - sums[:-n]).argmax())
        c, at = correlation(x[start : start + n], hay, power)
        seen += 1
        if c > 0.3:
            print(f"{c:.3f}  {p.name}  in  {held[int(np.searchsorted(ends, at, 'right'))].name}", flush=True)
    print(f"{seen} training noises against {len(held)} held out, {len(hay) / RATE / 60:.1f} minutes")


if __name__ == "__main__":
    main()
