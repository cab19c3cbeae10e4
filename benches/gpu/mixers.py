"""The mixers of a generator compared as SaShiMi's and Mamba's authors did: equal parameters, data, steps and sweep of the learning rate, three seeds.

    python benches/gpu/mixers.py cut data/music data/mixers            # its train, and pieces of 20 s of its valid and test; needs soundfile
    python benches/gpu/mixers.py run BIN data/mixers OUT [--minutes 20] [--only s4d+mamba,mamba] [--jobs 1]
    python benches/gpu/mixers.py lstm data/mixers OUT [--minutes 20]    # the LSTM's share of it, by benches/peers/lstm.py; needs torch
    python benches/gpu/mixers.py table OUT

BIN is cascabel, built with train-cuda. Every seed-1 run of a rate of RATES first, of the LSTM of two more; then seeds 2 and 3 at the rate whose bits on valid are lowest; then the two
best of all but the LSTM (of three kinds at least) at a longer context, windows eight times as long in a batch an eighth as large. What is done stands in OUT, a file a run, and is not done again; what has begun, NAME.begun
too, so that several calls may share the work (remove those of runs that were killed from outside). Bits a sample are of whole pieces with carried state; the table's are of test, the mean of pieces and seeds, with the 95% interval of a bootstrap over pieces.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

RATE, PIECE_S, PIECES = 16000, 20, {"valid": 12, "test": 30}
RATES, SEEDS, STEPS, BATCH, SECONDS, WINDOWS, LONGER = (2e-3, 4e-3, 8e-3, 1.6e-2), (1, 2, 3), 1200, 32, 0.25, 16, 8

S4D = '{{ kind = "s4d", d_state = 16 }}\nfeed_forward = 2'
MAMBA = '{{ kind = "mamba", d_state = 16 }}'
COMPLEX = '{{ kind = "mamba", d_state = 8, complex = true }}'
# Name: mixers of the three tiers, blocks of each, shift of the pooled ones.
TIERS = {
    "s4d": ((S4D, S4D, S4D), (2, 2, 4), 1),
    "mamba": ((MAMBA, MAMBA, MAMBA), (2, 2, 4), 1),
    "s4d+mamba": ((S4D, S4D, MAMBA), (2, 2, 4), 1),
    "s4d+complex": ((S4D, S4D, COMPLEX), (2, 2, 4), 1),
    "s4d+mamba-shift2": ((S4D, S4D, MAMBA), (2, 2, 4), 2),
}
WIDTHS, POOLS = (64, 128, 192), (1, 4, 4)
LSTM_HIDDEN = 584
# The LSTM's best of RATES was the highest.
MORE_RATES = {"lstm": (3.2e-2, 6.4e-2)}


def recipe(name, data, seed, peak, longer):
    mixers, blocks, shift = TIERS[name]
    times = LONGER if longer else 1
    tiers = "".join(
        f"[[model.tiers]]\nd_model = {width}\npool = {pool}\nshift = {shift if pool > 1 else 1}\nblocks = {count}\nmixer = {mixer.format()}\n"
        for width, pool, count, mixer in zip(WIDTHS, POOLS, blocks, mixers))
    return f"""name = "model"
seed = {seed}
[model]
kind = "generator"
rate = {RATE}
{tiers}
[data]
clean = ["{data}/train"]
valid_clean = ["{data}/valid"]
[clips]
seconds = {SECONDS * times}
windows = {max(WINDOWS // times, 1)}
valid_seconds = 1.0
[optimiser]
betas = [0.9, 0.99]
weight_decay = 0.02
clip = 1.0
ema = 0.999
[schedule]
peak = {peak}
last = {peak / 100}
warm_up = {STEPS // 10}
steps = {STEPS}
[run]
batch = {BATCH // times}
products = "tf32"
valid_every = {STEPS}
valid_examples = 4
checkpoint_minutes = 60.0
dynamics_rate = 0.5
"""


def named(name, seed, peak, longer=False):
    return f"{name}-seed{seed}-{peak}" + ("-long" if longer else "")


def found(out, *run):
    path = out / f"{named(*run)}.json"
    return json.loads(path.read_text()) if path.exists() else None


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def rates(name):
    return RATES + MORE_RATES.get(name, ())


def best_rate(out, name):
    """The rate of the seed-1 run that costs valid least; none before all have run."""
    runs = {peak: found(out, name, 1, peak) for peak in rates(name)}
    if not all(runs.values()):
        return None
    costs = {peak: mean(run["valid"].values()) for peak, run in runs.items()}
    # NaN, where a run was lost, is no cost.
    return min((peak for peak in costs if costs[peak] == costs[peak]), key=costs.get)


def missing(out, names):
    """What can run now, most wanted first."""
    first = sorted(((n, 1, p) for n in names for p in rates(n)), key=lambda run: run[2] != 4e-3)
    wanted = [run for run in first if not found(out, *run)]
    best = {n: best_rate(out, n) for n in names}
    wanted += [(n, s, best[n]) for s in SEEDS[1:] for n in names if best[n] and not found(out, n, s, best[n])]
    return wanted


def longer(out, names):
    runs = {n: [found(out, n, s, best_rate(out, n)) for s in SEEDS] for n in names if n != "s4d+mamba-shift2" and best_rate(out, n)}
    runs = {n: mean(mean(r["valid"].values()) for r in of) for n, of in runs.items() if all(of)}
    two = sorted(runs, key=runs.get)[:2] if len(runs) > 2 else []
    return [(n, s, best_rate(out, n), True) for s in SEEDS for n in two if not found(out, n, s, best_rate(out, n), True)]


def claim(out, runs):
    """The first of the runs that nobody has begun."""
    for run in runs:
        try:
            (out / f"{named(*run)}.begun").touch(exist_ok=False)
            return run
        except FileExistsError:
            pass
    return None


@contextmanager
def begun(out, run):
    """A run that fails is one that nobody has begun."""
    try:
        yield
    except BaseException:
        (out / f"{named(*run)}.begun").unlink(missing_ok=True)
        raise


def bits(binary, model, folder):
    text = subprocess.run([binary, "eval", "--model", model, folder, "--json"], check=True, capture_output=True, text=True).stdout
    return {line["file"]: line["bits_per_sample"] for line in json.loads(text)["files"]}


def keep(out, run, record):
    """Writes a run's record, whole or not at all."""
    part = out / f"{named(*run)}.part"
    part.write_text(json.dumps(record))
    part.rename(out / f"{named(*run)}.json")
    print(f"{named(*run)}: {record['parameters']} parameters, {record['seconds']:.0f} s, valid {mean(record['valid'].values()):.4f}", flush=True)


def train(binary, data, out, run):
    folder = out / "runs" / named(*run)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(recipe(run[0], data, run[1], run[2], len(run) > 3))
    start = time.time()
    with open(folder / "log", "w") as log:
        subprocess.run([binary, "train", folder / "recipe.toml", "--device", "cuda", "--out", folder], check=True, stderr=log, stdout=log)
    return folder, time.time() - start


def judged(binary, data, out, run, folder, seconds):
    with begun(out, run):
        judge(binary, data, out, run, folder, seconds)


def judge(binary, data, out, run, folder, seconds):
    model = folder / "model.safetensors"
    lines = [json.loads(line) for line in (folder / "model.log.jsonl").read_text().splitlines()]
    of = next(line["parameters"] for line in lines if line["event"] == "data")
    keep(out, run, {"parameters": of, "seconds": seconds, **{split: bits(binary, model, data / split) for split in ("valid", "test")}})
    for path in folder.glob("*.checkpoint*"):
        path.unlink()


def run(args):
    args.out.mkdir(parents=True, exist_ok=True)
    names, until, judging = args.only or list(TIERS), time.time() + 60 * args.minutes, []
    with ThreadPoolExecutor(args.jobs) as judges:
        while time.time() < until:
            wanted = missing(args.out, names) or longer(args.out, names)
            if not wanted:
                break
            if next_run := claim(args.out, wanted):
                with begun(args.out, next_run):
                    folder, seconds = train(args.binary, args.data, args.out, next_run)
                judging.append(judges.submit(judged, args.binary, args.data, args.out, next_run, folder, seconds))
            else:
                time.sleep(1)
            for job in [job for job in judging if job.done()]:
                job.result()
    for job in judging:
        job.result()


def lstm(args):
    args.out.mkdir(parents=True, exist_ok=True)
    script, until = Path(__file__).parent.parent / "peers/lstm.py", time.time() + 60 * args.minutes
    while time.time() < until and (wanted := missing(args.out, ["lstm"])):
        run = claim(args.out, wanted)
        if not run:
            time.sleep(1)
            continue
        _, seed, peak = run
        whole = args.out / f"{named(*run)}.lstm"
        command = [sys.executable, script, "sound", args.data / "train", args.data / "valid", "--test", args.data / "test", "--rate", RATE, "--seconds", SECONDS, "--windows", WINDOWS,
                   "--batch", BATCH, "--steps", STEPS, "--peak", peak, "--seed", seed, "--hidden", LSTM_HIDDEN, "--json", whole]
        with begun(args.out, run), open(whole.with_suffix(".log"), "w") as log:
            subprocess.run(list(map(str, command)), check=True, stdout=log, stderr=log)
        record = json.loads(whole.read_text())["runs"][0]
        keep(args.out, run, {"parameters": record["parameters"], "seconds": record["seconds_a_step"] * STEPS, "valid": record["bits"], "test": record["test"]})


def interval(values):
    draw = random.Random(1)
    means = sorted(mean(draw.choices(values, k=len(values))) for _ in range(2000))
    return means[50], means[1949]


def table(args):
    names, rows = [*TIERS, "lstm"], {}
    for name in names:
        peak = best_rate(args.out, name)
        for long in (False, True):
            runs = [r for s in SEEDS if peak and (r := found(args.out, name, s, peak, long))]
            if runs:
                rows[name, long] = peak, runs
    by_piece = lambda runs: {f: mean(r["test"][f] for r in runs) for f in runs[0]["test"]}
    against = by_piece(rows["lstm", False][1]) if ("lstm", False) in rows else None
    best = min((by_piece(runs) for _, runs in rows.values()), key=lambda pieces: mean(pieces.values()), default={})
    print("| mixers | parameters | best rate | seeds | valid | test, bits a sample | each seed | above the best, by piece | less than the LSTM |\n|---|---|---|---|---|---|---|---|---|")
    for (name, long), (peak, runs) in rows.items():
        pieces = by_piece(runs)
        low, high = interval(list(pieces.values()))
        above = [pieces[f] - best[f] for f in pieces]
        above = "{:.3f} [{:.3f}, {:.3f}]".format(mean(above), *interval(above))
        less = ""
        if against and name != "lstm":
            gains = [against[f] - pieces[f] for f in pieces]
            less = "{:.3f} [{:.3f}, {:.3f}]".format(mean(gains), *interval(gains))
        each = ", ".join(f"{mean(r['test'].values()):.4f}" for r in runs)
        valid = mean(mean(r["valid"].values()) for r in runs)
        print(f"| {name}{f', windows of {SECONDS * LONGER:g} s' if long else ''} | {runs[0]['parameters']:,} | {peak:g} | {len(runs)} | {valid:.4f} | {mean(pieces.values()):.4f} [{low:.4f}, {high:.4f}] | {each} | {above} | {less} |")
    sweeps = {n: ", ".join(f"{p:g}: {mean(r['valid'].values()):.4f}" for p in rates(n) if (r := found(args.out, n, 1, p))) for n in names}
    print("\nValid, seed 1, by rate. " + ". ".join(f"{n}: {text}" for n, text in sweeps.items() if text) + ".")


def cut(args):
    import soundfile

    for split in ("train", "valid", "test"):
        (args.out / split).mkdir(parents=True, exist_ok=True)
        paths = sorted(p for p in (args.music / split).iterdir() if p.suffix in (".flac", ".wav"))
        if not paths:
            sys.exit(f"mixers: {args.music / split}: expected FLAC or WAV files, found none")
        for path in paths:
            x, rate = soundfile.read(path, dtype="int16")
            count = 1 if split == "train" else max(PIECES[split] // len(paths), 1)
            length = len(x) if split == "train" else PIECE_S * rate
            for i in range(count):
                # The first and last twentieth, where pieces fade, are left out.
                at = 0 if count == 1 else int(len(x) * 0.05 + (0.9 * len(x) - length) * i / (count - 1))
                soundfile.write(args.out / split / f"{path.stem}-{i:02}.wav", x[at : at + length], rate)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(required=True)
    for name, what, places in (("cut", cut, ("music", "out")), ("run", run, ("binary", "data", "out")), ("lstm", lstm, ("data", "out")), ("table", table, ("out",))):
        c = commands.add_parser(name)
        c.set_defaults(what=what)
        for place in places:
            c.add_argument(place, type=lambda text: Path(text).resolve())
        if name in ("run", "lstm"):
            c.add_argument("--minutes", type=float, default=1e6, help="begin nothing after so many")
        if name == "run":
            c.add_argument("--only", type=lambda text: text.split(","))
            c.add_argument("--jobs", type=int, default=4, help="models that are judged beside the training")
    args = p.parse_args()
    args.what(args)


if __name__ == "__main__":
    main()
