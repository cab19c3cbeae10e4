"""More speakers, a minute to half an hour of each: letters, words and calls of learning programs and games, from Debian's packages.

Recorded at home, many have a floor that a denoiser would learn to leave. Where it is less than 60 dB below a speaker's loud frames, a
spectral subtraction (Boll 1979) takes it down by up to 24 dB: its spectrum is the median over the clips of their quietest frames. Left out
are speakers whose floor stays (tuxpaint's Danish, French, Russian), who sound processed, and the languages of test-multi.
"""

import re

import numpy as np
import soundfile as sf
from scipy.signal import istft, stft

import audio

KLETTRES = "cs da de en_GB en es fr he it ml nds nl pt_BR ru tn uk".split()
TUXPAINT = "be bg el en en_GB es it ro sl sv".split()
HEDGEWARS = "British Classic HillBilly Mobster Pirate Russian Surfer".split()
NEXUIZ = re.compile(r"^sound/(?:player/(insurrectionist|soldier)/coms|(tutorial)|announcer/(male))/.*\.(?:ogg|wav)$")

LEAST_RATE = 16_000
WORD_RANGE_DB, CLIP_RANGE_DB, FLOOR_DB = 25.0, 30.0, 60.0
# How much of the floor's power is taken, and what is left of a cell that is floor.
TAKEN, LEFT = 3.0, 0.06


def find(root, more):
    """Yields (source, speaker, name, path), sorted within a speaker."""
    share = root / "usr/share"
    for folder in ("klettres", "gcin-voice", "games/hedgewars", "tuxpaint/stamps"):
        if not (share / folder).is_dir():
            raise SystemExit(f"corpus: {share / folder} is missing; expected its package unpacked there")
    for lang in KLETTRES:
        for p in sorted((share / "klettres" / lang).glob("*/*.ogg")):
            yield "klettres", lang, f"{p.parent.name}-{p.stem}", p
    for p in sorted((share / "gcin-voice/ogg").glob("*/5.ogg")):
        yield "gcin", "zhchulo", "-".join(f"{ord(c):04x}" for c in p.parent.name), p
    for voice in HEDGEWARS:
        for p in sorted((share / f"games/hedgewars/Data/Sounds/voices/{voice}").glob("*.ogg")):
            if not p.is_symlink():
                yield "hedgewars", voice, p.stem, p
    stamps = share / "tuxpaint/stamps"
    for p in sorted(stamps.rglob("*.ogg")):
        m = re.match(r"(.*?)_desc(?:_([a-z]{2,3}(?:_[A-Z]{2})?))?\.ogg$", p.name) or re.match(r"(.*)_([a-z]{2}(?:_[A-Z]{2})?)\.ogg$", p.name)
        if m and (m.group(2) or "en") in TUXPAINT:
            yield "tuxpaint", m.group(2) or "en", "-".join([*p.relative_to(stamps).parent.parts, m.group(1)]), p
    base = more / "nexuiz-data/x/data"
    for p in sorted(base.rglob("*")):
        if m := NEXUIZ.match(p.relative_to(base).as_posix()):
            yield "nexuiz", next(filter(None, m.groups())), p.stem, p


def levels(x):
    n = len(x) // 320
    return 10 * np.log10(np.mean(np.square(x[: n * 320].reshape(n, 320)), axis=1) + 1e-12) if n else np.array([-120.0])


def spectrum(x):
    return stft(x, audio.RATE, nperseg=512, noverlap=384)[2]


def subtracted(x, floor):
    """`x` less a floor of that power in each bin, which is compared with the power's mean over three frames and bins."""
    z = spectrum(x)
    padded = np.pad(np.abs(z) ** 2, 1, mode="edge")
    power = sum(padded[i : i + z.shape[0], j : j + z.shape[1]] for i in range(3) for j in range(3)) / 9
    gain = np.clip(1 - TAKEN * floor[:, None] / np.maximum(power, 1e-20), LEFT, 1)
    return istft(z * gain, audio.RATE, nperseg=512, noverlap=384)[1][: len(x)].astype(np.float32)


def quietest(x):
    """The power in each bin of the quietest frames."""
    power = np.abs(spectrum(x)) ** 2
    total = power.sum(axis=0)
    return power[:, total <= np.percentile(total, 6)].mean(axis=1)


def has_pauses(x):
    """A word has its ends at least; what is longer must fall further."""
    low, high = np.percentile(levels(x), [5, 95])
    return high - levels(x).min() >= WORD_RANGE_DB and (len(x) <= audio.RATE or high - low >= CLIP_RANGE_DB)


def cleaned(clips):
    """(name, samples) of one speaker: those without much of a range or clipped are left out, the floor is taken down."""
    pooled = np.concatenate([levels(x) for _, x in clips])
    kept = [(n, x) for n, x in clips if len(x) > 4000 and np.mean(np.abs(x) >= 0.998) < 1e-3 and has_pauses(x)]
    if kept and np.percentile(pooled, 95) - np.percentile(pooled, 2) < FLOOR_DB:
        floor = np.median([quietest(x) for _, x in kept], axis=0)
        kept = [(n, subtracted(x, floor)) for n, x in kept]
    return kept


def speakers(root, more):
    """Yields (source, speaker, [(name, samples)])."""
    found = {}
    for source, who, name, path in find(root, more):
        try:
            frames, rate = sf.read(path, dtype="float32", always_2d=True)
        except sf.LibsndfileError:
            continue
        x = audio.to_mono_16k(frames, rate)
        if rate >= LEAST_RATE and len(x) >= 1600 and np.abs(x).max() >= 0.005:
            # Vorbis overshoots a full scale that was reached.
            x = x / max(1.0, np.abs(x).max() / 0.999)
            found.setdefault((source, who), {}).setdefault(x.tobytes(), (name, x.astype(np.float32)))
    for (source, who), clips in found.items():
        yield source, who, cleaned(list(clips.values()))
