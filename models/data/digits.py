"""Splits the Free Spoken Digit Dataset for a generator whose classes are the ten digits.

    python digits.py SOURCE OUT [--check]

SOURCE holds `{digit}_{speaker}_{index}.wav`: the folder `recordings` of github.com/Jakobovski/free-spoken-digit-dataset. Of its speakers the
five of SPEAKERS are taken, 50 clips of each digit; files of others are counted and left. OUT gets {train,valid,test}/NAME-SPEAKER-INDEX.wav,
byte for byte the files they were, NAME from `zero` to `nine`: what an engine reads as the class. Index 0 to 4 is test, as the data set has
it, 45 to 49 valid, the rest train.

It says what it found, and writes the hashes of test into OUT/test.sha256; with --check these must be those of digits-test.sha256 beside
this script. A folder that lacks a file, or holds one of another format, is refused before anything is written.

Needs requirements-digits.txt (numpy and soundfile of it).
"""

import argparse
import hashlib
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "yweweler")
COUNT = 50
SPLITS = {"train": range(5, 45), "valid": range(45, 50), "test": range(5)}
HASHES = Path(__file__).with_name("digits-test.sha256")
# A recording never below this peak has a digit in it.
SILENT_PEAK = 0.01
# Digits last longer than the one and shorter than the other.
SHORTEST_S, LONGEST_S = 0.2, 1.0
# A mean further than this from zero is heard by a generator: mu-law is finest there.
OFFSET = 0.001


def split_of(index):
    return next(split for split, indices in SPLITS.items() if index in indices)


def find(source):
    """{(digit, speaker, index): path} of the clips to take, and how many files of others there are."""
    wanted = {(d, s, i) for d in range(10) for s in SPEAKERS for i in range(COUNT)}
    found, others = {}, 0
    for path in sorted(source.glob("*.wav")):
        m = re.fullmatch(r"(\d)_([a-z]+)_(\d+)", path.stem)
        key = m and (int(m[1]), m[2], int(m[3]))
        if key in wanted:
            found[key] = path
        else:
            others += 1
    missing = sorted(wanted - found.keys())
    if missing:
        first = "{}_{}_{}.wav".format(*missing[0])
        sys.exit(f"digits: {source}: expected {len(wanted)} files, {len(missing)} are missing, the first {first}")
    return found, others


def read(path):
    info = soundfile.info(path)
    if (info.samplerate, info.channels, info.subtype) != (RATE, 1, "PCM_16"):
        sys.exit(f"digits: {path}: expected {RATE} Hz, one channel, PCM_16; got {info.samplerate}, {info.channels}, {info.subtype}")
    return soundfile.read(path, dtype="int16")[0]


def db(x):
    return 20 * np.log10(max(x, 1e-9))


def edges(x):
    """Seconds before and after the frames of 10 ms that are less than 30 dB below the loudest."""
    n = len(x) // 80
    e = np.sqrt((x[: n * 80].astype(np.float64).reshape(n, 80) ** 2).mean(axis=1))
    loud = np.flatnonzero(e > e.max() * 10 ** (-30 / 20))
    return loud[0] * 0.01, (n - 1 - loud[-1]) * 0.01


def spread(values, form):
    return " ".join(f"{v:{form}}" for v in np.percentile(values, [0, 5, 50, 95, 100]))


def describe(clips):
    """Prints the tables of README.md: clips are {(digit, speaker, index): samples}."""
    for split in SPLITS:
        seconds = [len(x) / RATE for (_, _, i), x in clips.items() if split_of(i) == split]
        print(f"{split:<6} {len(seconds):>5} clips {sum(seconds):>7.1f} s   lengths (0, 5, 50, 95, 100%): {spread(seconds, '.3f')}")
    print("\nby speaker, least, 5, 50, 95% and greatest; levels in dB of full scale")
    for speaker in SPEAKERS:
        own = [x for (_, s, _), x in clips.items() if s == speaker]
        scaled = [x / 32768 for x in own]
        ends = np.array([edges(x) for x in own])
        print(f"{speaker:<9} seconds {spread([len(x) / RATE for x in own], '.2f')}   level {spread([db(x.std()) for x in scaled], '.0f')}"
              f"   peak {spread([db(np.abs(x).max()) for x in scaled], '.0f')}   mean {np.median([x.mean() for x in scaled]):+.4f}"
              f"   before {spread(ends[:, 0], '.2f')}   after {spread(ends[:, 1], '.2f')}   step {np.gcd.reduce(np.concatenate(own).astype(int))}")


def odd(clips):
    """(what is odd, which clips) of those that are."""
    tests = {
        "peak at full scale": lambda x: np.abs(x.astype(int)).max() >= 32767,
        f"peak below {SILENT_PEAK}": lambda x: np.abs(x.astype(int)).max() < SILENT_PEAK * 32768,
        f"mean beyond ±{OFFSET}": lambda x: abs(x.mean()) > OFFSET * 32768,
        f"under {SHORTEST_S} s": lambda x: len(x) < SHORTEST_S * RATE,
        f"over {LONGEST_S} s": lambda x: len(x) > LONGEST_S * RATE,
    }
    for what, test in tests.items():
        yield what, [key for key, x in clips.items() if test(x)]
    first = {}
    yield "the same as another", [key for key, x in clips.items() if first.setdefault(x.tobytes(), key) != key]


def store(found, out):
    for split in SPLITS:
        shutil.rmtree(out / split, ignore_errors=True)
        (out / split).mkdir(parents=True)
    for (digit, speaker, index), path in found.items():
        shutil.copyfile(path, out / split_of(index) / f"{NAMES[digit]}-{speaker}-{index:02}.wav")


def hashes(out):
    files = sorted((out / "test").glob("*.wav"))
    return "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  test/{f.name}\n" for f in files)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--check", action="store_true")
    args = p.parse_args()
    found, others = find(args.source)
    clips = {key: read(path) for key, path in sorted(found.items())}
    store(found, args.out)
    test = hashes(args.out)
    (args.out / "test.sha256").write_text(test)
    describe(clips)
    print()
    for what, keys in odd(clips):
        by = ", ".join(f"{s} {n}" for s in SPEAKERS if (n := sum(k[1] == s for k in keys)))
        print(f"{what}: {len(keys)}" + (f" ({by})" if keys else ""))
    print(f"files of others, left: {others}")
    if args.check and test != HASHES.read_text():
        sys.exit(f"digits: {args.out}/test.sha256 differs from {HASHES}: these are not the clips that the figures are of")


if __name__ == "__main__":
    main()
