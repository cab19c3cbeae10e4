"""Sounds inside the containers that some packages keep them in, written beside them as files of their own.

    python containers.py FOLDER...       # each an unpacked package; sounds go to FOLDER/x/CONTAINER/

Zip under its many names (`.pk3`, `.love`, `.jar`), Qt's compiled resources, OpenTTD's sound sets, Doom's WAD, SoundFont 2,
Gravis patches.
"""

import array
import re
import struct
import sys
import zipfile
import zlib
from pathlib import Path

SOUND = re.compile(r"\.(ogg|oga|wav|flac|opus|mp3|aiff?|au)$", re.I)


def word(b, at, form="<I"):
    return struct.unpack_from(form, b, at)[0]


def wav(rate, pcm, bits):
    head = struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * bits // 8, bits // 8, bits)
    return b"RIFF" + struct.pack("<I", 36 + len(pcm)) + b"WAVEfmt " + head + b"data" + struct.pack("<I", len(pcm)) + pcm


def zipped(path, _):
    with zipfile.ZipFile(path) as z:
        for name in z.namelist():
            if SOUND.search(name) and ".." not in name:
                yield name, z.read(name)


def qt_resources(_, b):
    version, tree, data, names = struct.unpack_from(">4I", b, 4)
    size = 14 + (8 if version >= 2 else 0)

    def name(at):
        at += names
        return b[at + 6 : at + 6 + 2 * word(b, at, ">H")].decode("utf-16be")

    def walk(node, path):
        at = tree + node * size
        own, flags = struct.unpack_from(">IH", b, at)
        path = f"{path}/{name(own)}" if node else ""
        if flags & 2:
            count, first = struct.unpack_from(">II", b, at + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
        elif SOUND.search(path) and not flags & 4:
            start = data + word(b, at + 10, ">I")
            x = b[start + 4 : start + 4 + word(b, start, ">I")]
            yield path, zlib.decompress(x[4:]) if flags & 1 else x

    return walk(0, "") if b[:4] == b"qres" else iter(())


def openttd(_, b):
    for i in range((word(b, 0) & 0x7FFFFFFF) // 8):
        at = word(b, 8 * i) & 0x7FFFFFFF
        name = re.sub(r"[^a-zA-Z0-9]+", "_", b[at + 1 : at + 1 + b[at]].split(b"\0")[0].decode("latin1"))
        riff = b.find(b"RIFF", at)
        if riff >= 0:
            yield f"{i:02}_{name}.wav", b[riff : riff + word(b, riff + 4) + 8]


def doom(_, b):
    count, directory = struct.unpack_from("<II", b, 4)
    for i in range(count):
        at, length, name = struct.unpack_from("<II8s", b, directory + 16 * i)
        name = name.rstrip(b"\0").decode("latin1")
        if name.startswith("DS") and length > 40 and b[at : at + 2] == b"\x03\0":
            rate, samples = word(b, at + 2, "<H"), word(b, at + 4)
            yield name.lower() + ".wav", wav(rate, b[at + 24 : at + samples - 8], 8)


def soundfont(_, b):
    start, heads = b.find(b"smpl", b.find(b"sdta")) + 8, b.rfind(b"shdr")
    for at in range(heads + 8, heads + 8 + word(b, heads + 4) - 46, 46):
        name = re.sub(r"[^A-Za-z0-9]+", "_", b[at : at + 20].split(b"\0")[0].decode("latin1"))
        first, end, rate = word(b, at + 20), word(b, at + 24), word(b, at + 36)
        yield name + ".wav", wav(rate, b[start + 2 * first : start + 2 * end], 16)


def gravis(path, b):
    """The first sample of each layer."""
    at = 129 + 63
    for _ in range(max(b[129 + 22], 1) if b[:4] == b"GF1P" else 0):
        samples, at = b[at + 6], at + 47
        for k in range(samples):
            size, rate, mode = word(b, at + 8), word(b, at + 20, "<H"), b[at + 55]
            x = b[at + 96 : at + 96 + size]
            if k == 0 and mode & 1:
                if mode & 2:
                    x = array.array("H", [v ^ 0x8000 for v in array.array("H", x[: len(x) // 2 * 2])]).tobytes()
                yield path.stem + ".wav", wav(rate, x, 16)
            at += 96 + size


READERS = {".pk3": zipped, ".zip": zipped, ".love": zipped, ".jar": zipped, ".rcc": qt_resources, ".cat": openttd, ".wad": doom, ".sf2": soundfont,
           ".pat": gravis}


def main():
    for folder in map(Path, sys.argv[1:]):
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in READERS and p.is_file()):
            try:
                for name, sound in READERS[path.suffix.lower()](path, b"" if path.suffix in (".pk3", ".zip") else path.read_bytes()):
                    to = folder / "x" / path.stem / name.lstrip("/")
                    to.parent.mkdir(parents=True, exist_ok=True)
                    to.write_bytes(sound)
            except (zipfile.BadZipFile, struct.error, IndexError, zlib.error, OSError, RuntimeError, UnicodeDecodeError) as e:
                print(f"containers: {path}: {e!r}", file=sys.stderr)


if __name__ == "__main__":
    main()
