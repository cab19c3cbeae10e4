"""Synthetic English digits by 28 voices: Kokoro-82M, at 8 kHz, for a generator whose classes are the ten digits.

    python kokoro_digits.py KOKORO OUT [--takes 4] [--voices af_heart,bm_lewis]

KOKORO holds the npm package `kokoro-js` (its `voices/*.bin`). OUT gets {train,valid}/NAME-kokoro-VOICE-N.wav, 16 bits: every digit --takes
times by each of the English voices (af, am: American women and men; bf, bm: British). Valid is the voices of VALID, whole. Takes differ
in speed and in what stands around the word for the voice's style. A function of names and N, but for rounding.

Trimmed to 20 ms before and 50 ms after the voice, levels 22 to 30 dB below full scale. Synthetic: say so of what learns from it, and judge by real digits.
Needs requirements-voices.txt.
"""

import argparse
import random
import shutil
import sys
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

import audio
from digits import NAMES
from voices import Kokoro

RATE, KOKORO_RATE = 8000, 24000
# As Kokoro was trained to read them.
SOUNDS = {"zero": "zˈɪɹO", "one": "wˈʌn", "two": "tˈu", "three": "θɹˈi", "four": "fˈɔɹ",
          "five": "fˈIv", "six": "sˈɪks", "seven": "sˈɛvᵊn", "eight": "ˈAt", "nine": "nˈIn"}
ENGLISH = ("af_", "am_", "bf_", "bm_")
VALID = {"af_nova", "am_liam", "bf_lily", "bm_daniel"}
LEVELS_DB = (-30.0, -22.0)
SPEEDS = (1.0, 1.5)
ENDINGS = ("", ".", "!", "?", ",")
BEFORE_S, AFTER_S = 0.02, 0.05
LOUD_DB = -40.0


def take(kokoro, voice, name, number):
    """One digit: trimmed, levelled, 8 kHz. Draws of `number` alone would give all voices the same takes."""
    draw = random.Random(f"{voice} {name} {number}")
    sounds = SOUNDS[name] + draw.choice(ENDINGS)
    x = resample_poly(kokoro.raw(sounds, voice, draw.uniform(*SPEEDS)), RATE, KOKORO_RATE)
    envelope = np.abs(x)
    loud = np.flatnonzero(envelope > envelope.max() * 10 ** (LOUD_DB / 20))
    x = x[max(0, loud[0] - int(BEFORE_S * RATE)) : loud[-1] + int(AFTER_S * RATE)]
    level = draw.uniform(*LEVELS_DB) - audio.db(np.mean(np.square(x)))
    return x * min(10 ** (level / 20), 0.99 / np.abs(x).max())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kokoro", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--takes", type=int, default=4)
    p.add_argument("--voices", type=lambda s: s.split(","))
    args = p.parse_args()
    kokoro = Kokoro(args.kokoro)
    english = [v for v in kokoro.names if v.startswith(ENGLISH)]
    if odd := sorted(set(args.voices or []) - set(english)) or not english:
        sys.exit(f"kokoro_digits: {args.kokoro}/voices: expected {'the voice ' + odd[0] if args.voices else 'English voices'}, found {', '.join(english) or 'none'}")
    for split in ("train", "valid"):
        shutil.rmtree(args.out / split, ignore_errors=True)
        (args.out / split).mkdir(parents=True)
    for voice in args.voices or english:
        split, seconds = "valid" if voice in VALID else "train", []
        for name in NAMES:
            for number in range(args.takes):
                x = take(kokoro, voice, name, number)
                audio.write(args.out / split / f"{name}-kokoro-{voice}-{number}.wav", x, RATE)
                seconds.append(len(x) / RATE)
        print(f"{split:<6} {voice:<12} {len(seconds)} clips, {sum(seconds):.1f} s; lengths {min(seconds):.2f} {np.median(seconds):.2f} {max(seconds):.2f}", flush=True)


if __name__ == "__main__":
    main()
