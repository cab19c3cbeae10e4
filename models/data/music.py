"""Prepares recorded music for a generator: 16 kHz mono FLAC of the soundtrack that Debian's `warzone2100-music` holds, split by track.

    python music.py OUT [--deb FILE]        # OUT: data/music; FILE saves the download (86 MB, `apt-get download warzone2100-music`)

The 25 tracks of music-{train,valid,test}.txt, by LupusMechanicus (CC BY-SA 3.0 or later, or GPL 2 or later), become
OUT/{train,valid,test}/ALBUM-TRACK.flac: channels averaged, resampled by a polyphase filter, peaks above 0.99 scaled to it, nothing else.
Left out, for they are another composer's and GPL alone: `menu`, the original soundtrack, and `track3_enhanced`, made from it.

Draws no random numbers. Needs requirements-digits.txt, apt-get and dpkg-deb.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import audio

PACKAGE = "warzone2100-music"
ALBUMS = "usr/share/games/warzone2100/music/albums"
LISTS = {split: Path(__file__).with_name(f"music-{split}.txt") for split in ("train", "valid", "test")}
PEAK = 0.99


def fetched(deb, work):
    """The folder of the package's albums, unpacked under `work`."""
    work.mkdir(parents=True, exist_ok=True)
    if deb is None:
        subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=work, check=True)
        deb = max(work.glob(f"{PACKAGE}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", deb, work], check=True)
    return work / ALBUMS


def prepared(path):
    x = audio.read(path)
    peak = float(np.abs(x).max())
    return x / peak * np.float32(PEAK) if peak > PEAK else x


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("--deb", type=Path)
    args = p.parse_args()
    albums = fetched(args.deb, args.out / ".work")
    lists = {split: path.read_text().split() for split, path in LISTS.items()}
    if missing := [name for names in lists.values() for name in names if not (albums / name).exists()]:
        sys.exit(f"music: {PACKAGE}: expected {missing[0]} under {ALBUMS}, it is not there ({len(missing)} are missing)")
    for split, names in lists.items():
        shutil.rmtree(args.out / split, ignore_errors=True)
        (args.out / split).mkdir()
        seconds = 0.0
        for name in names:
            album, track = name.removesuffix(".opus").split("_soundtrack/")
            x = prepared(albums / name)
            audio.write(args.out / split / f"{album}-{track.replace('_', '-')}.flac", x)
            seconds += len(x) / audio.RATE
            print(f"{split:<6} {name:<40} {len(x) / audio.RATE:>6.1f} s   level {audio.db(np.mean(np.square(x, dtype=np.float64))):>6.1f} dB", flush=True)
        print(f"{split:<6} {len(names)} tracks, {seconds / 3600:.3f} h")
    shutil.rmtree(args.out / ".work")


if __name__ == "__main__":
    main()
