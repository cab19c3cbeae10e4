"""Packs train and valid for a machine that is reached through a narrow door: FLAC of fewer bits, in pieces of a size.

    python models/data/pack.py data/denoise data/denoise-pack [--speech-bits 11] [--noise-bits 9] [--mib 48]
    cat data/denoise-pack/pack.tar.* | tar -xf -     # there: train and valid

A clip keeps so many bits below its peak; rounding is white and 6 dB fainter a bit. (Vorbis at its lowest quality, a third of the size, stood here
before: from 2.5 kHz on it leaves an error only 3 to 5 dB below the sound, and above 7.5 kHz nothing. A denoiser learns that as what clean speech is.)
fillets-cs, which the recipes leave out, and test sets are not packed.

Needs requirements.txt.
"""

import argparse
import io
import tarfile
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import soundfile


def rounded(x, bits):
    """16-bit samples with `bits` below the peak."""
    drop = max(0, int(np.abs(x.astype(np.int32)).max(initial=0)).bit_length() - bits)
    if drop == 0:
        return x
    steps = (x.astype(np.int32) + (1 << drop - 1)) >> drop
    return (np.clip(steps, -(32768 >> drop), 32767 >> drop) << drop).astype(np.int16)


def packed(job):
    path, bits = job
    x, rate = soundfile.read(path, dtype="int16")
    out = io.BytesIO()
    soundfile.write(out, rounded(x, bits), rate, format="FLAC", subtype="PCM_16")
    return out.getvalue()


class Pieces:
    """A file to write that is cut into pieces of `size` bytes."""

    def __init__(self, stem, size):
        self.stem, self.size, self.count, self.left, self.file = stem, size, 0, 0, None

    def write(self, data):
        view = memoryview(data)
        while view:
            if self.left == 0:
                self.close()
                self.file = open(f"{self.stem}.{self.count:04}", "wb")
                self.count, self.left = self.count + 1, self.size
            part, view = view[: self.left], view[self.left :]
            self.file.write(part)
            self.left -= len(part)
        return len(data)

    def close(self):
        if self.file:
            self.file.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("corpus", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--speech-bits", type=int, default=11)
    p.add_argument("--noise-bits", type=int, default=9)
    p.add_argument("--mib", type=int, default=48)
    args = p.parse_args()
    if not (args.corpus / "manifest.tsv").exists():
        p.error(f"{args.corpus}/manifest.tsv is missing; expected a corpus made by prepare.sh")
    files = [f for top in ("train", "valid") for f in sorted((args.corpus / top).rglob("*.flac")) if not f.name.startswith("fillets-cs")]
    if not files:
        p.error(f"{args.corpus} has no FLAC files under train and valid")
    jobs = [(f, args.noise_bits if "noise" in f.relative_to(args.corpus).parts else args.speech_bits) for f in files]
    args.out.mkdir(parents=True, exist_ok=True)
    for old in args.out.glob("pack.tar.*"):
        old.unlink()
    pieces = Pieces(args.out / "pack.tar", args.mib << 20)
    with Pool() as pool, tarfile.open(fileobj=pieces, mode="w|") as tar:
        for f, data in zip(files, pool.imap(packed, jobs, 16)):
            info = tarfile.TarInfo(str(f.relative_to(args.corpus)))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    pieces.close()
    print(f"{len(files)} clips in {pieces.count} pieces of {args.mib} MiB")


if __name__ == "__main__":
    main()
