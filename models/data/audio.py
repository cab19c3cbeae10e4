"""Reading, writing and levels: what every script in this folder shares.

Samples are float32 in [-1, 1], mono, 16,000 a second where nothing else is said. Levels are dB relative to full scale.

    x = read("clip.ogg")
    level, activity = active_level(x)      # ITU-T P.56, method B
"""

import math
import subprocess
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import lfilter, resample_poly

RATE = 16_000


def read_native(path):
    """(samples [frames, channels], rate) as stored, overs above 1 kept."""
    return sf.read(path, dtype="float32", always_2d=True)


def to_mono(frames, rate, to):
    """The mean of the channels, resampled by a polyphase filter.

    ffmpeg's `-ac 1` is avoided on purpose: on 22 kHz Vorbis it raised the level by 3 dB and made clipping of clean clips.
    """
    x = frames.mean(axis=1)
    if rate == to:
        return x.astype(np.float32)
    g = math.gcd(rate, to)
    return resample_poly(x, to // g, rate // g).astype(np.float32)


def to_mono_16k(frames, rate):
    return to_mono(frames, rate, RATE)


def read(path):
    return to_mono_16k(*read_native(path))


def write(path, x, rate=RATE):
    """16-bit file (the name's ending chooses FLAC or WAV), rounded, never wrapped; renamed when whole."""
    path = Path(path)
    pcm = np.clip(np.rint(np.asarray(x, np.float64) * 32768), -32768, 32767).astype(np.int16)
    part = path.with_name(f".{path.name}")
    sf.write(part, pcm, rate, subtype="PCM_16", format=path.suffix[1:].upper())
    part.rename(path)


def decode_g722(paths, folder, batch=64):
    """Decodes raw G.722 files (64 kbit/s, 16 kHz) into `folder`, many a call: starting ffmpeg costs more than its work."""
    folder.mkdir(parents=True, exist_ok=True)
    outs = [folder / f"{i:05}.wav" for i in range(len(paths))]
    for i in range(0, len(paths), batch):
        cmd = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
        for p in paths[i : i + batch]:
            cmd += ["-f", "g722", "-i", str(p)]
        for k, o in enumerate(outs[i : i + batch]):
            cmd += ["-map", f"{k}:a", "-bitexact", "-ar", str(RATE), "-ac", "1", str(o)]
        subprocess.run(cmd, check=True)
    return outs


def db(power):
    return 10 * math.log10(max(float(power), 1e-12))


def frame_range(x, frame=320):
    """(5th, 95th percentile) of the 20 ms frame levels: floor and loud speech."""
    n = len(x) // frame
    if n == 0:
        return -120.0, -120.0
    e = 10 * np.log10(np.mean(np.square(x[: n * frame].reshape(n, frame), dtype=np.float64), axis=1) + 1e-12)
    lo, hi = np.percentile(e, [5, 95])
    return float(lo), float(hi)


def active_level(x, rate=RATE):
    """Active speech level in dB and activity factor, ITU-T P.56 (12/2011) method B.

    Envelope q: |x| through two one-pole filters of 30 ms. For thresholds c_j = 2^-j a sample is active while q was at or above
    c_j within the last 200 ms. The level is where A_j = energy / active time lies 15.9 dB above c_j.
    """
    x = np.asarray(x, np.float64)
    energy = float(np.sum(x * x))
    if energy <= 0:
        return -120.0, 0.0
    g = math.exp(-1 / (rate * 0.03))
    q = lfilter([1 - g], [1, -g], lfilter([1 - g], [1, -g], np.abs(x)))
    hang = int(0.2 * rate)
    index = np.arange(len(x))
    before = None
    for j in range(15, -1, -1):
        c = 2.0**-j
        last = np.maximum.accumulate(np.where(q >= c, index, -hang - 1))
        active = int(np.sum(index - last <= hang))
        if active == 0:
            break
        a_db, c_db = 10 * math.log10(energy / active), 20 * math.log10(c)
        margin = a_db - c_db
        if margin <= 15.9:
            if before is None:
                return a_db, active / len(x)
            # linear between the two thresholds that enclose the margin
            t = (before[1] - 15.9) / (before[1] - margin)
            level = before[0] + t * (a_db - before[0])
            return level, energy / (len(x) * 10 ** (level / 10))
        before = (a_db, margin)
    return (before[0], energy / (len(x) * 10 ** (before[0] / 10))) if before else (-120.0, 0.0)
