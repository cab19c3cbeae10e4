"""Judges enhanced speech: PESQ-WB, STOI, SI-SDR, and whether a difference between two systems is more than chance.

    python evaluate.py --set eval/test NAME=FOLDER ... [--known peers-test.jsonl] [--scores OUT.jsonl] [--table OUT.md]
                       [--against RNNoise] [--speeds SPEEDS.json]

SET holds noisy/ID.wav and clean/ID.wav; each FOLDER one ID.wav a file, 16 kHz, longer than the clean one or not. `noisy` is
always judged too. `--known` takes scores of an earlier run instead of judging those systems again.

One routine aligns every system: the lag within ±80 ms with the greatest cross-correlation with the clean file, its median over
all files, the same for each file of a system. Differences: paired bootstrap over files, 10,000 resamples, seed 1, 95% interval.

Needs requirements-eval.txt.
"""

import argparse
import json
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from pesq import pesq
from pystoi import stoi
from scipy.signal import fftconvolve

import audio

LAG = int(0.080 * audio.RATE)
METRICS = {"pesq": "PESQ-WB", "stoi": "STOI", "sisdr": "SI-SDR, dB"}
RESAMPLES = 10_000


def lag_of(clean, enhanced):
    """Samples by which `enhanced` is late."""
    n = min(len(clean), len(enhanced))
    c = fftconvolve(enhanced[:n], clean[:n][::-1])[n - 1 - LAG : n + LAG]
    return int(np.argmax(c)) - LAG


def shift(x, lag, n):
    """n samples of x from `lag` on, zeros outside."""
    out = np.zeros(n, np.float32)
    a, b = max(lag, 0), min(lag + n, len(x))
    if b > a:
        out[a - lag : b - lag] = x[a:b]
    return out


def si_sdr(clean, x):
    """Scale-invariant SDR (Le Roux et al. 2019), means removed, dB."""
    s, x = clean.astype(np.float64) - clean.mean(), x.astype(np.float64) - x.mean()
    target = s * (np.dot(x, s) / np.dot(s, s))
    return 10 * np.log10((np.dot(target, target) + 1e-12) / (np.sum((x - target) ** 2) + 1e-12))


def find_lag(job):
    clean, enhanced = job
    return lag_of(audio.read(clean), audio.read(enhanced))


def judge(job):
    name, lag, clean, enhanced = job
    s = audio.read(clean)
    x = shift(audio.read(enhanced), lag, len(s))
    row = {"system": name, "id": clean.stem, "lag": lag}
    return row | {
        "pesq": round(float(pesq(audio.RATE, s, x, "wb")), 4),
        "stoi": round(float(stoi(s, x, audio.RATE)), 5),
        "sisdr": round(float(si_sdr(s, x)), 3),
    }


def judge_all(pool, folder, systems):
    cleans = sorted((folder / "clean").glob("*.wav"))
    rows = []
    for name, where in systems.items():
        pairs = [(c, where / c.name) for c in cleans]
        missing = [str(e) for _, e in pairs if not e.exists()]
        if missing or not pairs:
            sys.exit(f"evaluate: {name}: {len(missing)} of {len(pairs)} files are missing, the first {missing[:1]}")
        lag = int(np.median(pool.map(find_lag, pairs, chunksize=4)))
        rows += pool.map(judge, [(name, lag, c, e) for c, e in pairs], chunksize=4)
        print(f"{name}: {len(pairs)} files, lag {lag} samples", file=sys.stderr)
    return rows


def by_system(rows):
    table = {}
    for r in rows:
        table.setdefault(r["system"], {})[r["id"]] = r
    return table


def interval(a, b, metric):
    """(mean of a − b, low, high) over the files that both have."""
    ids = sorted(a.keys() & b.keys())
    d = np.array([a[i][metric] - b[i][metric] for i in ids])
    picks = np.random.Generator(np.random.PCG64(1)).integers(len(d), size=(RESAMPLES, len(d)))
    low, high = np.percentile(d[picks].mean(axis=1), [2.5, 97.5])
    return d.mean(), low, high


def mean_table(table, speeds):
    head = ["system", "files", *METRICS.values(), "lag, ms", "× real time, one core", "latency, ms"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, rows in table.items():
        means = [np.mean([r[m] for r in rows.values()]) for m in METRICS]
        lag = next(iter(rows.values()))["lag"] / audio.RATE * 1000
        speed = speeds.get(name, {})
        cells = [name, str(len(rows)), f"{means[0]:.3f}", f"{means[1]:.4f}", f"{means[2]:.2f}", f"{lag:.1f}",
                 f"{speed['realtime']:.0f}" if speed else "–", f"{speed['latency_ms']:g}" if speed else "–"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def difference_table(table, against):
    lines = [f"| minus {against} | " + " | ".join(METRICS.values()) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for name, rows in table.items():
        if name != against:
            cells = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval(rows, table[against], m)) for m in METRICS]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("systems", nargs="*", help="NAME=FOLDER")
    p.add_argument("--set", required=True, type=Path, dest="folder")
    p.add_argument("--known", type=Path)
    p.add_argument("--scores", type=Path)
    p.add_argument("--table", type=Path)
    p.add_argument("--against", action="append", default=[])
    p.add_argument("--speeds", type=Path)
    p.add_argument("--jobs", type=int, default=2)
    args = p.parse_args()
    if bad := [s for s in args.systems if "=" not in s]:
        p.error(f"expected NAME=FOLDER, got {bad[0]}")
    return args


def main():
    args = arguments()
    known = [json.loads(line) for line in args.known.read_text().splitlines()] if args.known else []
    have = {r["system"] for r in known}
    systems = {} if "noisy" in have else {"noisy": args.folder / "noisy"}
    for name, where in (s.split("=", 1) for s in args.systems):
        systems[name] = Path(where)
        known = [r for r in known if r["system"] != name]
    with Pool(args.jobs) as pool:
        rows = known + judge_all(pool, args.folder, systems)
    table = by_system(rows)
    speeds = json.loads(args.speeds.read_text()) if args.speeds else {}
    lines = mean_table(table, speeds)
    for against in args.against:
        if against not in table:
            sys.exit(f"evaluate: --against {against}: expected one of {', '.join(table)}")
        lines += ["", *difference_table(table, against)]
    print("\n".join(lines))
    if args.scores:
        args.scores.write_text("".join(json.dumps(r) + "\n" for r in rows))
    if args.table:
        args.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
