"""Speech inside two games' archives, as ScummVM plays them: Flight of the Amazon Queen and Beneath a Steel Sky.

    for name, samples, rate in queen("queen.1c"): ...       # 6,745 clips, MP3
    for name, samples, rate in sky("sky.dnr", "sky.dsk"): ...   # 3,491 clips, eight bits packed by RNC method 1

Samples are float32 in [-1, 1], [frames].
"""

import io
import struct

import numpy as np
import soundfile

SKY_RATE = 11025
# Numbers of files that are speech; above are effects and tunes.
SKY_SPEECH = range(50000, 56000)
SKY_HEADER = 22


def queen(path):
    """queen.1c: 13 bytes of header, the number of files, and 21 bytes for each: its name of at most 12, a bundle, offset and size. Speech ends in .SB."""
    b = path.read_bytes()
    if b[:4] != b"QTBL":
        raise ValueError(f"{path}: expected a file that begins with QTBL, got {b[:4]!r}")
    for i in range(int.from_bytes(b[13:15], "big")):
        name, _, at, size = struct.unpack_from(">12sBII", b, 15 + 21 * i)
        name = name.split(b"\0")[0].decode("latin-1")
        if name.endswith(".SB"):
            x, rate = soundfile.read(io.BytesIO(b[at : at + size]), dtype="float32")
            yield name.removesuffix(".SB"), x, rate


def sky(table, data):
    """sky.dnr: a number of files, and 8 bytes for each: its number, 24 bits of offset (the top one: in sixteens) and of size (the top two: not packed)."""
    t, b = table.read_bytes(), data.read_bytes()
    for i in range(int.from_bytes(t[:4], "little")):
        e = t[4 + 8 * i : 12 + 8 * i]
        number, at, size = (int.from_bytes(e[a:z], "little") for a, z in ((0, 2), (2, 5), (5, 8)))
        if number in SKY_SPEECH:
            at = (at & 0x7FFFFF) << (4 if at >> 23 else 0)
            x = np.frombuffer(unpacked(b[at + SKY_HEADER : at + (size & 0x3FFFFF)]), np.uint8)
            yield str(number), (x.astype(np.float32) - 128) / 128, SKY_RATE


class Bits:
    """Bits of little-endian words of 16, the lowest first. Bytes are taken between them from where the next word is."""

    def __init__(self, data, at):
        self.data, self.at, self.held, self.count = data + bytes(2), at, 0, 0

    def take(self, n):
        while self.count < n:
            self.held |= (self.data[self.at] | self.data[self.at + 1] << 8) << self.count
            self.at, self.count = self.at + 2, self.count + 16
        value = self.held & ((1 << n) - 1)
        self.held, self.count = self.held >> n, self.count - n
        return value

    def bytes(self, n):
        self.at += n
        return self.data[self.at - n : self.at]

    def codes(self):
        """A canonical Huffman code, by (length, code read backwards)."""
        lengths = [self.take(4) for _ in range(self.take(5))]
        table, code = {}, 0
        for length in range(1, 16):
            for symbol, own in enumerate(lengths):
                if own == length:
                    table[length, int(f"{code:0{length}b}"[::-1], 2)] = symbol
                    code += 1
            code <<= 1
        return table

    def value(self, table):
        """A symbol is how many bits the value has, but its leading one."""
        code = 0
        for length in range(1, 16):
            code |= self.take(1) << (length - 1)
            symbol = table.get((length, code))
            if symbol is not None:
                return symbol if symbol < 2 else 1 << (symbol - 1) | self.take(symbol - 1)
        raise ValueError("RNC: a code that is not in its table")


def unpacked(b):
    """Rob Northen's compression, method 1: chunks with three codes each, of runs of bytes, and of copies' distances and lengths in turn."""
    if b[:4] != b"RNC\x01":
        raise ValueError(f"RNC: expected RNC and 1, got {b[:4]!r}")
    size, chunks = int.from_bytes(b[4:8], "big"), b[17]
    bits, out = Bits(b, 18), bytearray()
    bits.take(2)
    for _ in range(chunks):
        runs, distances, lengths = bits.codes(), bits.codes(), bits.codes()
        for left in reversed(range(bits.take(16))):
            out += bits.bytes(bits.value(runs))
            if left:
                back, n = bits.value(distances) + 1, bits.value(lengths) + 2
                if back > len(out):
                    raise ValueError("RNC: a copy from before the beginning")
                out += (out[-back:] * (n // back + 1))[:n]
    if len(out) != size:
        raise ValueError(f"RNC: expected {size} bytes, got {len(out)}")
    return bytes(out)
