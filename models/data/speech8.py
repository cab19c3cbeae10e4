"""Prepares real speech without classes, at 8 kHz, for a generator that is to learn voices before it learns words.

    python speech8.py OUT [--deb FILE ...]      # OUT: data/speech8; FILE saves a download, by the package that its name begins with

Fetches six Debian packages (161 MB): the actors of two games (scummvm.py), prompts of telephones, a speaking clock. OUT gets
    {train,valid}/speech-SOURCE-NAME.flac       `speech` is a class beside the digits', if a recipe has it
    digits/NAME-SOURCE-VOICE.wav                the English digits among them, which are not in train
    dropped.tsv                                 what was left out, and why
8 kHz, mono, 16 bits. Valid is the scenes that speech8-valid.txt names, the rest is train. Rules are the constants below.

Draws no random numbers. Needs requirements-digits.txt, apt-get and dpkg-deb.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import audio
import scummvm
from corpus import CLIPPED, NOT_SPEECH
from digits import NAMES, edges

RATE = 8000
QUEEN, SKY, CLOCK = "flight-of-the-amazon-queen", "beneath-a-steel-sky", "saytime"
# Not French and Russian: the denoiser is judged on these voices, and so no network of the project should know them.
PROMPTS = {"en": "en_US_f_Allison", "es": "es_MX_f_Allison", "it": "it_IT_m_Carlo"}
PACKAGES = (QUEEN, SKY, CLOCK, *(f"asterisk-core-sounds-{lang}-wav" for lang in PROMPTS))
VALID = Path(__file__).with_name("speech8-valid.txt")
PEAK = 0.99
SHORTEST_S = 0.3
# A recording never above this has no speech in it.
SILENT_PEAK = 0.05
# Speech has pauses: of the games' clips 95% of frames of 20 ms are this far above 5%. Effects, music and shouts over noise aren't.
RANGE_DB = 20.0
# Speech has voiced sounds: the median frame's spectrum isn't flatter (geometric over arithmetic mean) than this, and not all is a rumble below 125 Hz.
FLATNESS, RUMBLE = 0.3, 0.3
# Effects of the Amazon Queen: a number filled up with S. Dialogue has J, P or a letter before that.
QUEEN_EFFECT = re.compile(r"\d+[A-C]?S+|BLANK.*")


@dataclass
class Clip:
    source: str
    name: str
    # What is in valid or in train as a whole: a scene.
    scene: str
    frames: np.ndarray
    rate: int
    voice: str = ""

    @property
    def digit(self):
        """The class of a clip that is an English digit and nothing else."""
        m = re.fullmatch(r"(?:digits-)?(\d)", self.name)
        return NAMES[int(m[1])] if m and self.voice else None


def fetched(debs, work):
    """The root that the packages are unpacked into."""
    work.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        deb = next((d for d in debs if d.name.startswith(f"{package}_")), None)
        if deb is None:
            subprocess.run(["apt-get", "download", "-q", package], cwd=work, check=True)
            deb = max(work.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", deb, work / "root"], check=True)
    return work / "root/usr/share"


def found(share):
    """Every Clip of the packages, in a fixed order."""
    for name, x, rate in scummvm.queen(share / "scummvm" / QUEEN / "queen.1c"):
        yield Clip("queen", name, name[:4], x[:, None], rate)
    game = share / "scummvm" / SKY
    for name, x, rate in scummvm.sky(game / "sky.dnr", game / "sky.dsk"):
        yield Clip("sky", name, name[:3], x[:, None], rate)
    for lang, voice in PROMPTS.items():
        base = share / "asterisk/sounds" / voice
        for p in sorted(base.rglob("*.wav")):
            name = p.relative_to(base).with_suffix("")
            if name.parts[0] != "silence" and not NOT_SPEECH.match(name.name):
                yield Clip(f"asterisk-{lang}", "-".join(name.parts), "", *audio.read_native(p), "asterisk-allison" if lang == "en" else "")
    for p in sorted((share / CLOCK).glob("*.au")):
        # Without a header: mu-law at 8 kHz.
        x = audio.sf.read(p, dtype="float32", always_2d=True, samplerate=RATE, channels=1, format="RAW", subtype="ULAW")[0]
        yield Clip(CLOCK, p.stem, "", x, RATE, "saytime-dawson")


def flatness(x, frame=256):
    """(median over frames of the spectrum's geometric over its arithmetic mean, the share of power below 125 Hz)."""
    n = len(x) // frame
    power = np.abs(np.fft.rfft(x[: n * frame].reshape(n, frame) * np.hanning(frame), axis=1)) ** 2 + 1e-12
    return np.median(np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)), power[:, :4].sum() / power.sum()


def fault(clip, x):
    """Why a clip is left out, or None."""
    if clip.source == "queen" and QUEEN_EFFECT.fullmatch(clip.name):
        return "an effect"
    if len(x) < SHORTEST_S * RATE:
        return f"under {SHORTEST_S} s"
    if np.abs(x).max() < SILENT_PEAK:
        return "silent"
    # Of eight bits the greatest is 127/128.
    if np.mean(np.abs(clip.frames) >= (0.99 if clip.source == "sky" else 0.999)) > CLIPPED:
        return "clipped"
    if clip.source in ("queen", "sky"):
        low, high = audio.frame_range(x, RATE // 50)
        flat, rumble = flatness(x)
        if high - low < RANGE_DB:
            return "little range"
        if flat > FLATNESS or rumble > RUMBLE:
            return "noise or rumble"
    return None


def prepared(share, dropped):
    """(clip, samples) of what is kept; what is not is a row of `dropped`."""
    seen = {}
    for clip in found(share):
        x = audio.to_mono(clip.frames, clip.rate, RATE) if len(clip.frames) else np.zeros(0, np.float32)
        why = fault(clip, x)
        if not why:
            first = seen.setdefault(x.tobytes(), clip)
            why = None if first is clip else "a copy"
        if why:
            dropped.append((clip.source, clip.name, why, len(x) / RATE))
        else:
            yield clip, x * np.float32(min(1, PEAK / np.abs(x).max()))


def store(share, out, dropped):
    """Writes all, and returns {(split, source): [(seconds, level, peak)]}."""
    held = {tuple(line.split()) for line in VALID.read_text().splitlines()}
    kept = defaultdict(list)
    for clip, x in prepared(share, dropped):
        split = "digits" if clip.digit else "valid" if (clip.source, clip.scene) in held else "train"
        name = f"{clip.digit}-{clip.voice}.wav" if clip.digit else f"speech-{clip.source}-{clip.name}.flac"
        audio.write(out / split / name, x, RATE)
        kept[split, clip.source].append((len(x) / RATE, audio.db(np.mean(np.square(x, dtype=np.float64))), np.abs(x).max()))
        if clip.digit:
            before, after = edges(x)
            print(f"{name:<28} {len(x) / RATE:.2f} s, {before:.2f} before and {after:.2f} after the voice, level {kept[split, clip.source][-1][1]:.1f} dB")
    return kept


def tell(kept, dropped):
    for (split, source), rows in sorted(kept.items()):
        seconds, levels, peaks = map(np.array, zip(*rows))
        spread = " ".join(f"{v:.0f}" for v in np.percentile(levels, [0, 5, 50, 95, 100]))
        lengths = " ".join(f"{v:.1f}" for v in np.percentile(seconds, [0, 5, 50, 95, 100]))
        print(f"{split:<6} {source:<12} {len(rows):>5} clips {seconds.sum() / 3600:>7.3f} h   lengths, s: {lengths}   levels, dB: {spread}   median peak {np.median(peaks):.2f}")
    for split in ("train", "valid", "digits"):
        own = [seconds for (s, _), rows in kept.items() if s == split for seconds, _, _ in rows]
        print(f"{split:<6} {len(own)} clips, {sum(own) / 3600:.3f} h")
    reasons = defaultdict(list)
    for source, _, why, seconds in dropped:
        reasons[source, why].append(seconds)
    for (source, why), seconds in sorted(reasons.items()):
        print(f"dropped {source:<12} {why:<16} {len(seconds):>5} clips {sum(seconds) / 3600:.3f} h")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("--deb", type=Path, nargs="+", default=[])
    args = p.parse_args()
    if odd := [d for d in args.deb if not d.name.startswith(tuple(f"{package}_" for package in PACKAGES))]:
        sys.exit(f"speech8: {odd[0]}: expected a file of one of the packages {', '.join(PACKAGES)}")
    share = fetched([d.resolve() for d in args.deb], args.out / ".work")
    for split in ("train", "valid", "digits"):
        shutil.rmtree(args.out / split, ignore_errors=True)
        (args.out / split).mkdir()
    dropped = []
    kept = store(share, args.out, dropped)
    rows = (f"{source}\t{name}\t{why}\t{seconds:.3f}\n" for source, name, why, seconds in dropped)
    (args.out / "dropped.tsv").write_text("source\tname\treason\tseconds\n" + "".join(rows))
    tell(kept, dropped)
    shutil.rmtree(args.out / ".work")


if __name__ == "__main__":
    main()
