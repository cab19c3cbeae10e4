"""Packs sound for a generator as the 8-bit mu-law tokens that it hears, in pieces of a size; half of what FLAC of 16 bits takes.

    python pack_tokens.py pack data/music data/music-pack [--hours 2] [--mib 43]      # train and valid, and digits where there are; --test too
    python pack_tokens.py pack data/speech8 data/speech8-pack --whole --hours 2       # of short clips
    python3 pack_tokens.py unpack data/music-pack data/music                          # there; Python alone

The tokens are the engine's (src/audio/mu_law.rs), their differences compressed by xz, a file a clip, in a tar that is cut into pieces. Unpacked
they are 16-bit WAVs, whose samples give the same tokens again; a generator of 8 bits learns from them exactly what it would from the originals.
(The mu-law of WAV files, G.711's, has other steps, and would be rounded twice.) Each clip keeps its own
rate. `--hours` takes the beginnings of all clips of train, the same share of each, so much in all; with `--whole` it takes whole clips of train
instead, as many as make that share, evenly through the order of their names.

Packing needs requirements-digits.txt.
"""

import argparse
import array
import io
import lzma
import math
import sys
import tarfile
import wave
from pathlib import Path

SPLITS = ("train", "valid", "digits", "test")


def sample(token):
    """The 16-bit sample in the middle of a token's range."""
    curve = 2 * token / 255 - 1
    x = math.copysign(math.expm1(abs(curve) * math.log(256)) / 255, curve)
    return max(-32768, min(32767, round(x * 32768)))


SAMPLES = [sample(t) for t in range(256)]


def tokens(x):
    import numpy as np

    curve = np.sign(x) * np.log1p(255 * np.minimum(np.abs(x), 1)) / math.log(256)
    return np.floor((curve + 1) * 127.5 + 0.5).clip(0, 255).astype(np.uint8)


def squeezed(data):
    """xz of the differences. Its window is no longer than the clip: clearing 64 MiB for each of ten thousand took most of the time."""
    window = max(4096, 1 << len(data).bit_length())
    filters = [{"id": lzma.FILTER_DELTA, "dist": 1}, {"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 4, "lp": 0, "pb": 0, "dict_size": window}]
    return lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters)


def evenly(paths, share):
    """`share` of them, spread over their order."""
    return [p for i, p in enumerate(paths) if math.floor((i + 1) * share) > math.floor(i * share)]


def pack(args):
    import numpy as np
    import soundfile

    from pack import Pieces

    assert (tokens(np.array(SAMPLES) / 32768) == np.arange(256)).all(), "a token that does not come back"
    paths = {split: sorted(p for p in (args.folder / split).rglob("*") if p.suffix in (".flac", ".wav")) for split in SPLITS[: None if args.test else 3]}
    if not paths["train"]:
        sys.exit(f"pack_tokens: {args.folder}/train: expected FLAC or WAV files, found none")
    hours = sum(soundfile.info(p).duration for p in paths["train"]) / 3600
    share = min(1, (args.hours or hours) / hours)
    if args.whole:
        paths["train"], share = evenly(paths["train"], share), 1
    args.out.mkdir(parents=True, exist_ok=True)
    for old in args.out.glob("tokens.tar.*"):
        old.unlink()
    pieces = Pieces(args.out / "tokens.tar", args.mib << 20)
    seconds = 0.0
    with tarfile.open(fileobj=pieces, mode="w|") as tar:
        for split, path in ((s, p) for s in paths for p in paths[s]):
            x, rate = soundfile.read(path, dtype="float64", always_2d=True)
            x = x.mean(axis=1)[: round(len(x) * share) if split == "train" else None]
            data = squeezed(tokens(x).tobytes())
            # The rate stands in the name, for the file is tokens alone.
            info = tarfile.TarInfo(f"{path.relative_to(args.folder).with_suffix('')}.{rate}.xz")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            seconds += len(x) / rate
    pieces.close()
    sizes = [p.stat().st_size for p in sorted(args.out.glob("tokens.tar.*"))]
    print(f"{seconds / 3600:.3f} h in {len(sizes)} pieces: {', '.join(f'{s / (1 << 20):.1f}' for s in sizes)} MiB")


class Joined(io.RawIOBase):
    """The pieces, one after another."""

    def __init__(self, paths):
        self.files = [open(p, "rb") for p in paths]

    def readable(self):
        return True

    def readinto(self, buffer):
        while self.files:
            if n := self.files[0].readinto(buffer):
                return n
            self.files.pop(0).close()
        return 0


def unpack(args):
    pieces = sorted(args.folder.glob("tokens.tar.*"))
    if not pieces:
        sys.exit(f"pack_tokens: {args.folder}: expected tokens.tar.0000 and on, found none")
    count = 0
    with tarfile.open(fileobj=io.BufferedReader(Joined(pieces), 1 << 20), mode="r|") as tar:
        for info in tar:
            stem, rate, _ = info.name.rsplit(".", 2)
            path = args.out / f"{stem}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = array.array("h", map(SAMPLES.__getitem__, lzma.decompress(tar.extractfile(info).read())))
            if sys.byteorder == "big":
                samples.byteswap()
            with wave.open(str(path), "wb") as out:
                out.setparams((1, 2, int(rate), len(samples), "NONE", ""))
                out.writeframes(samples.tobytes())
            count += 1
    print(f"{count} clips")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(required=True)
    for name, run in (("pack", pack), ("unpack", unpack)):
        c = commands.add_parser(name)
        c.set_defaults(run=run)
        c.add_argument("folder", type=Path)
        c.add_argument("out", type=Path)
        if name == "pack":
            c.add_argument("--hours", type=float)
            c.add_argument("--whole", action="store_true")
            c.add_argument("--test", action="store_true")
            c.add_argument("--mib", type=int, default=43)
    args = p.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
