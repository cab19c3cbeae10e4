"""Decodes, filters, joins and splits the corpora into OUT/{train,valid,test,test-multi}/clean and OUT/{train,valid,test}/noise.

    python corpus.py PACKAGES MORE NOISE OUT

PACKAGES is the root that the Debian packages were unpacked into, MORE holds those of noises_more.py in a folder each, NOISE holds 0 A.D.'s `ambient`, `attack` and `resource`.
The result is a function of its input: no random number, no clock, sorted names. Every clip that was kept is a row of
OUT/manifest.tsv, every one that was not a row of OUT/dropped.tsv with the reason.
"""

import hashlib
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

import audio
import noises
import noises_more
import speakers

# Clips shorter than this are joined, in the order of their names, with others of their speaker …
SHORT_S = 3.0
# … until the piece is at least this long.
JOINED_S = 5.0
LEAST_S = 1.0
# The share of samples at full scale above which a clip counts as clipped.
CLIPPED = 1e-3
# A noise that never gets above this is an empty file.
SILENT_PEAK = 1e-3
# Speech has pauses: loud frames at least this far above quiet ones. Applies to the games, whose folders hold effects too.
RANGE_DB = 25.0
RANGE_MINOR_DB = 30.0

ASTERISK = {"en_US_f_Allison": "train", "es_MX_f_Allison": "train", "it_IT_m_Carlo": "train", "fr_CA_f_June": "valid",
            "ru_RU_f_IvrvoiceRU": "test"}
# Tones and animals among the prompts.
NOT_SPEECH = re.compile(r"^(beep|beeperr|ascending-2tone|descending-2tone|confbridge-(join|leave)|tt-monkeys|tt-weasels)$")
KTUBERLING_TEST = {"ca", "lt", "nn"}

# Families of noise (the stem's first word): nothing of a family is in two splits. `snowstorm` and `wind…` go together, for they
# are recordings of the same length and kind.
NOISE_TEST = {"amb_trade", "day_tropical", "rain", "thunder", "shield", "sword", "swordhit", "lumber"}
NOISE_VALID = {"amb_port", "wave", "wavecrash", "waverocky", "building", "bow", "hoe"}


@dataclass
class Clip:
    split: str
    source: str
    speaker: str
    name: str
    x: np.ndarray


def noise_family(stem):
    """`lumber_treeexpire_03` → `lumber`, `amb_farm_10` → `amb_farm`."""
    return re.match(r"(amb|day)_[a-z]+|[a-z]+?(?=expire|[_\d]|$)", stem.lower()).group(0)


def fillets_speaker(stem):
    """(who, is one of the two leads). Names are `scene-who-line`, `who-line` or `line-who`; leads are m and v."""
    parts = stem.split("-")
    for p in parts:
        if p in ("m", "v"):
            return p, True
    return "-".join(parts[:2]) if len(parts) > 2 else parts[0], False


def find_sources(root):
    """Yields (split, source, speaker, name, path, least range in dB or None)."""
    share = root / "usr/share"
    for p in sorted(share.glob("festival/voices/russian/*/wav/*.wav")):
        yield "train", "festvox-ru", "ru", p.stem, p, None
    for voice, split in ASTERISK.items():
        base = share / "asterisk/sounds" / voice
        for p in sorted(base.rglob("*.g722")):
            rel = p.relative_to(base).with_suffix("")
            if rel.parts[0] != "silence" and not NOT_SPEECH.match(rel.name):
                yield split, f"asterisk-{voice[:2]}", voice, "-".join(rel.parts), p, None
    base = share / "games/fillets-ng/sound"
    for p in sorted(base.glob("**/*.ogg")):
        lang, level = p.parent.name, p.parent.parent.name
        if lang in ("cs", "nl") and level != "cancan":
            who, lead = fillets_speaker(p.stem)
            who = who if lead else f"{level}-{who}"
            yield "train", f"fillets-{lang}", who, f"{level}-{p.stem}", p, RANGE_DB if lead else RANGE_MINOR_DB
    for p in sorted((root / "voices").glob("kokoro_*.flac")):
        who, number = p.stem.removeprefix("kokoro_").rsplit("_", 1)
        yield "train", "kokoro", who, number, p, None
    for p in sorted((share / "ktuberling/sounds").glob("*/*.*")):
        lang = p.parent.name
        if p.suffix in (".ogg", ".wav", ".opus"):
            split = "test-multi" if lang in KTUBERLING_TEST else "train"
            yield split, "ktuberling", lang, p.stem, p, RANGE_DB


def load(rows):
    """(row, samples, reason to drop it or None) for each row."""
    g722 = [r[4] for r in rows if r[4].suffix == ".g722"]
    with tempfile.TemporaryDirectory() as tmp:
        decoded = dict(zip(g722, audio.decode_g722(g722, Path(tmp))))
        for row in rows:
            frames, rate = audio.read_native(decoded.get(row[4], row[4]))
            clipped = float(np.mean(np.abs(frames) >= 0.999)) if len(frames) else 1.0
            x = audio.to_mono_16k(frames, rate)
            lo, hi = audio.frame_range(x)
            if clipped > CLIPPED:
                yield row, x, f"clipped: {clipped:.4f} of samples"
            elif row[5] is not None and hi - lo < row[5]:
                yield row, x, f"range {hi - lo:.1f} dB"
            else:
                peak = float(np.max(np.abs(x), initial=0.0))
                yield row, x / peak * np.float32(0.99) if peak > 0.99 else x, None


def gap(name):
    """0.2 to 0.5 s of silence, a function of the clip's name."""
    r = hashlib.sha256(name.encode()).digest()[0] / 255
    return np.zeros(int((0.2 + 0.3 * r) * audio.RATE), np.float32)


def join(clips, short_s, joined_s):
    """Long clips as they are; short ones of one speaker joined in order."""
    pending = defaultdict(list)
    pieces = defaultdict(int)
    for c in clips:
        if len(c.x) >= short_s * audio.RATE:
            yield c
            continue
        key = (c.split, c.source, c.speaker)
        pending[key] += ([gap(c.name)] if pending[key] else []) + [c.x]
        if sum(map(len, pending[key])) >= joined_s * audio.RATE:
            yield Clip(*key, f"joined-{pieces[key]:04}", np.concatenate(pending.pop(key)))
            pieces[key] += 1
    for key, parts in pending.items():
        yield Clip(*key, f"joined-{pieces[key]:04}", np.concatenate(parts))


def speech(root, more, dropped):
    seen = set()
    rows = list(find_sources(root))
    # The test comes first, so that a clip found twice stays there and leaves the others.
    rows.sort(key=lambda r: ["test", "test-multi", "valid", "train"].index(r[0]))
    for (split, source, who, name, _, _), x, reason in load(rows):
        digest = hashlib.sha256(np.rint(x * 32768).astype(np.int32).tobytes()).digest()
        if reason is None and digest in seen:
            reason = "the same as another clip"
        if reason:
            dropped.append((split, source, who, name, f"{len(x) / audio.RATE:.2f}", reason))
            continue
        seen.add(digest)
        yield Clip(split, source, who, name, x)
    for source, who, clips in speakers.speakers(root, more):
        for name, x in clips:
            peak = float(np.max(np.abs(x)))
            # A source of its own for each: training takes the name's first word for the speaker.
            yield Clip("train", source + re.sub("[^A-Za-z]", "", who), who, name, x / peak * np.float32(0.99) if peak > 0.99 else x)


def noise(root, packages, more, dropped):
    """0 A.D.'s noises, by family into the three splits, and the other packages', for training but for `noises.HELD`."""
    rows = []
    for p in sorted(root.glob("*/*/*.ogg")):
        family = noise_family(p.stem)
        split = "test" if family in NOISE_TEST else "valid" if family in NOISE_VALID else "train"
        rows.append((split, f"0ad-{p.relative_to(root).parts[0]}", family, p.stem.lower(), p, False))
    rows += noises.find(packages)
    rows += noises_more.find(more)
    seen = set()
    for split, source, family, name, path, is_music in rows:
        try:
            x = noises_more.read(path) if source.startswith("x-") else audio.read(path)
        except sf.LibsndfileError:
            dropped.append((split, source, family, name, "0", "cannot be decoded"))
            continue
        x = noises.stretch(x, audio.RATE) if is_music else x
        digest = hashlib.sha256(x.tobytes()).digest()
        peak = float(np.max(np.abs(x), initial=0.0))
        if peak < SILENT_PEAK or digest in seen:
            dropped.append((split, source, family, name, f"{len(x) / audio.RATE:.2f}", "silent" if peak < SILENT_PEAK else "the same as another clip"))
            continue
        seen.add(digest)
        yield Clip(split, source, family, name, x / peak * np.float32(0.99) if peak > 0.99 else x)


def store(out, kind, clips, manifest, dropped):
    for c in clips:
        seconds = len(c.x) / audio.RATE
        if seconds < LEAST_S:
            dropped.append((c.split, c.source, c.speaker, c.name, f"{seconds:.2f}", "short and alone"))
            continue
        folder = out / c.split / kind
        folder.mkdir(parents=True, exist_ok=True)
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{c.source}_{c.speaker}_{c.name}")
        path = folder / f"{safe}.flac"
        if path.exists():
            sys.exit(f"corpus: two clips would be named {path}")
        audio.write(path, c.x)
        lo, hi = audio.frame_range(c.x)
        manifest.append((c.split, kind, str(path.relative_to(out)), c.source, c.speaker, f"{seconds:.3f}",
                         f"{audio.db(np.mean(np.square(c.x, dtype=np.float64))):.1f}", f"{lo:.1f}", f"{hi - lo:.1f}"))


def summary(manifest):
    hours = defaultdict(lambda: [0, 0.0])
    for row in manifest:
        for key in ((row[0], row[1], row[3]), (row[0], row[1], "all")):
            hours[key][0] += 1
            hours[key][1] += float(row[5]) / 3600
    lines = [f"{'split':<11} {'kind':<6} {'source':<13} {'clips':>5} {'hours':>7}"]
    lines += [f"{k[0]:<11} {k[1]:<6} {k[2]:<13} {n:>5} {h:>7.3f}" for k, (n, h) in sorted(hours.items())]
    return "\n".join(lines)


def write_table(path, head, rows):
    path.write_text("\n".join("\t".join(r) for r in [head, *rows]) + "\n")


def main():
    packages, more, noise_dir, out = map(Path, sys.argv[1:5])
    for split in ("train", "valid", "valid-more", "test", "test-multi"):
        shutil.rmtree(out / split, ignore_errors=True)
    manifest, dropped = [], []
    store(out, "noise", join(noise(noise_dir, packages, more, dropped), SHORT_S, JOINED_S), manifest, dropped)
    store(out, "clean", join(speech(packages, more, dropped), SHORT_S, JOINED_S), manifest, dropped)
    manifest.sort(key=lambda r: r[2])
    write_table(out / "dropped.tsv", ("split", "source", "speaker", "name", "seconds", "reason"), dropped)
    (out / "hours.txt").write_text(summary(manifest) + "\n")
    # Last, for the script takes this file as the sign that all is there.
    write_table(out / "manifest.tsv", ("split", "kind", "path", "source", "speaker", "seconds", "rms_db", "floor_db", "range_db"), manifest)


if __name__ == "__main__":
    main()
