//! `train`: runs that are cut, killed and resumed.

use std::process::{Command, Stdio};

use cascabel::plan::Weights;
use serde_json::Value;

use crate::support::Folder;

/// Sounds to learn from, and the recipe.
fn folder() -> Folder {
    let folder = Folder::new();
    for (name, frames) in [("clean/a.wav", 20_000), ("noise/wind/b.wav", 24_000)] {
        folder.tone(name, 8_000, 1, frames);
    }
    folder.write("small.toml", RECIPE.as_bytes());
    folder
}

#[track_caller]
fn train(folder: &Folder, line: &str) -> String {
    let run = folder.run(&format!("train small.toml {line}"));
    assert_eq!(run.code, 0, "{}", run.err);
    run.err
}

fn weights(folder: &Folder, run: &str) -> Weights {
    cascabel::model::Model::load(folder.path(&format!("{run}/small.safetensors"))).unwrap().weights
}

/// The numbers of one kind of event in a run's log; a line cut in two has none.
fn logged(folder: &Folder, run: &str, event: &str) -> Vec<u64> {
    let bytes = folder.bytes(&format!("{run}/small.log.jsonl"));
    let lines = String::from_utf8(bytes).unwrap();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event"] == event).map(|line| line["step"].as_u64().unwrap()).collect()
}

/// Starts one of two processes that train together.
pub fn one_of_two(folder: &Folder, rank: usize, port: u16, line: &str) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_cascabel"))
        .args(line.split(' '))
        .current_dir(folder.path("."))
        .envs([("RANK", rank.to_string()), ("WORLD_SIZE", "2".into()), ("MASTER_PORT", port.to_string())])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn two_processes_learn_what_one_learns() {
    let folder = folder();
    let recipe = RECIPE.replace("batch = 2", "batch = 6").replace("steps = 6", "steps = 8");
    folder.write("small.toml", recipe.as_bytes());
    train(&folder, "--out one --threads 2");
    let two = |line: &str| {
        let port = free_port();
        for process in [1, 0].map(|rank| one_of_two(&folder, rank, port, line)) {
            let ended = process.wait_with_output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        }
    };
    two("train small.toml --out two --threads 1");
    let one = weights(&folder, "one");
    assert!(one == weights(&folder, "two"), "two processes give other bits");
    assert_eq!(logged(&folder, "two", "step"), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(logged(&folder, "two", "valid"), [3, 6, 8]);
    // Cut, they go on where all their streams were.
    two("train small.toml --out cut --threads 1 --minutes 0.00001");
    let cut = *logged(&folder, "cut", "saved").last().unwrap();
    assert!((1..8).contains(&cut), "stopped after {cut} steps");
    two("train small.toml --out cut --threads 1 --resume");
    assert!(one == weights(&folder, "cut"), "two processes that were cut give other bits");
}

/// Two processes, started by each of these launchers as a user would, give the bits of one.
fn learn_what_one_learns(launchers: &[String]) {
    let folder = folder();
    folder.write("small.toml", RECIPE.replace("batch = 2", "batch = 6").as_bytes());
    train(&folder, "--out one --threads 2");
    for launcher in launchers {
        let program = env!("CARGO_BIN_EXE_cascabel");
        let line = format!("{launcher} {program} train small.toml --out two --threads 1");
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(folder.path(".")).env("MASTER_PORT", free_port().to_string());
        let ended = command.output().unwrap_or_else(|e| panic!("{}: {e}", words[0]));
        assert!(ended.status.success(), "{launcher}: {}", String::from_utf8_lossy(&ended.stderr));
        assert!(weights(&folder, "one") == weights(&folder, "two"), "{launcher} gives other bits");
        std::fs::remove_dir_all(folder.path("two")).unwrap();
    }
}

#[test]
#[ignore = "needs Open MPI's mpirun: make launchers"]
fn mpirun_starts_processes_that_learn_what_one_learns() {
    learn_what_one_learns(&["mpirun --allow-run-as-root --oversubscribe -np 2".into()]);
}

#[test]
#[ignore = "needs PyTorch's torchrun: make launchers"]
fn torchrun_starts_processes_that_learn_what_one_learns() {
    let meeting = [format!("--master_port {}", free_port()), "--standalone".into()];
    learn_what_one_learns(
        &meeting.map(|at| format!("torchrun {at} --nproc_per_node 2 -r 1 -t 1 --no_python")),
    );
}

#[cfg(unix)]
#[test]
fn stopped_by_ctrl_c_it_says_how_far_it_came() {
    let folder = folder();
    folder.write("small.toml", RECIPE.replace("steps = 6", "steps = 1000000").as_bytes());
    let child = Command::new(env!("CARGO_BIN_EXE_cascabel"))
        .args("train small.toml --out cut".split(' '))
        .current_dir(folder.path("."))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    while !folder.path("cut/small.log.jsonl").exists() || logged(&folder, "cut", "step").is_empty() {
        assert!(begun.elapsed().as_secs() < 60, "no step in a minute");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let sent = Command::new("bash").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{told}");
    let reached = *logged(&folder, "cut", "saved").last().unwrap();
    let line = format!("cut/small.safetensors: {reached} of 1000000 steps trained; --resume goes on");
    assert!(reached > 0 && told.contains(&line), "{told}");
}

#[test]
fn segments_teach_the_same() {
    let folder = folder();
    train(&folder, "--out whole");
    folder.write("small.toml", RECIPE.replace("[run]", "[run]\nsegment = 900").as_bytes());
    train(&folder, "--out parts");
    let (whole, parts) = (weights(&folder, "whole"), weights(&folder, "parts"));
    assert!(whole != parts, "the segments were not used");
    for (a, b) in whole.tensors().iter().zip(parts.tensors()) {
        let most = a.iter().fold(0f32, |m, x| m.max(x.abs()));
        let off = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off <= 1e-3 * most.max(1e-2), "{off:e} of {most}");
    }
}

#[test]
fn processes_of_different_recipes_do_not_train_together() {
    let folder = folder();
    folder.write("other.toml", RECIPE.replace("peak = 1e-3", "peak = 2e-3").as_bytes());
    let port = free_port();
    let first = one_of_two(&folder, 0, port, "train small.toml --out a");
    let second = one_of_two(&folder, 1, port, "train other.toml --out b");
    for process in [first, second] {
        let ended = process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(2) && text.contains("the same recipe"), "{text}");
    }
    assert!(!folder.path("a").exists() && !folder.path("b").exists());
    folder.write("small.toml", RECIPE.replace("batch = 2", "batch = 3").as_bytes());
    let odd = one_of_two(&folder, 0, free_port(), "train small.toml --out a").wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&odd.stderr);
    assert!(odd.status.code() == Some(2) && text.contains("recipe [run] batch"), "{text}");
}

#[test]
fn a_run_begins_from_another_model() {
    let folder = folder();
    train(&folder, "--out first");
    let still = RECIPE.replace("peak = 1e-3", "peak = 1e-12").replace("last = 1e-4", "last = 1e-12");
    folder.write("small.toml", still.as_bytes());
    train(&folder, "--out second --from first/small.safetensors");
    let (first, second) = (weights(&folder, "first"), weights(&folder, "second"));
    let pairs = first.tensors().iter().flatten().zip(second.tensors().iter().flatten());
    let off = pairs.fold(0f32, |off, (a, b)| off.max((a - b).abs()));
    assert!(off < 1e-6, "weights moved by {off}");
    let card = cascabel::model::Model::load(folder.path("second/small.safetensors")).unwrap().card;
    assert!(card.data.contains("Begun with the weights of small"), "{}", card.data);
    folder.run("train small.toml --out third --from denoise").refused(2, &["--from denoise: expected"]);
    assert!(!folder.path("third").exists());
}

#[test]
fn a_run_that_was_cut_ends_as_one_that_was_not() {
    let folder = folder();
    train(&folder, "--out whole --threads 2");
    train(&folder, "--out cut --threads 1 --minutes 0.00001");
    let cut = *logged(&folder, "cut", "saved").last().unwrap();
    assert!((1..6).contains(&cut), "stopped after {cut} steps");
    train(&folder, "--out cut --resume");
    assert!(weights(&folder, "whole") == weights(&folder, "cut"), "the resumed run went another way");
    assert_eq!(logged(&folder, "cut", "step"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(logged(&folder, "whole", "valid"), [3, 6]);
    let model = cascabel::model::Model::load(folder.path("whole/small.safetensors")).unwrap();
    assert_eq!(model.card.commit, option_env!("CASCABEL_COMMIT").unwrap_or(""), "the program's commit");
    for end in [".checkpoint.safetensors", ".log.jsonl", ".loss.png"] {
        assert!(folder.path(&format!("whole/small{end}")).exists(), "{end}");
    }
    let page = folder.run("info whole/small.safetensors").ok().text();
    assert!(page.contains("a settled state") && page.contains("steps                   6.0000"), "{page}");
    folder.run("process clean/a.wav -o out.wav --model whole/small.safetensors").ok();
    assert_eq!(folder.sound("out.wav").frames(), 20_000);
    folder.write(
        "small.toml",
        RECIPE.replace("settle_seconds = 1", "").replace("settled = 0.3", "settled = 0.0").as_bytes(),
    );
    assert_eq!(folder.run("train small.toml --out plain").code, 0);
    assert!(folder.run("info plain/small.safetensors").ok().text().contains("beginning from zeros"));
}

#[cfg(unix)]
#[test]
fn a_run_that_was_killed_goes_on_from_its_checkpoint() {
    let folder = folder();
    let long = RECIPE.replace("steps = 6", "steps = 200") + "checkpoint_minutes = 0.0002\n";
    folder.write("small.toml", long.replace("valid_every = 3", "valid_every = 1000").as_bytes());
    train(&folder, "--out whole --threads 1");
    let mut child = Command::new(env!("CARGO_BIN_EXE_cascabel"))
        .args(["train", "small.toml", "--out", "killed", "--threads", "1"])
        .current_dir(folder.path(""))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !folder.path("killed/small.checkpoint.safetensors").exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!folder.path("killed/small.safetensors").exists(), "it ended before it was killed");
    let told = logged(&folder, "killed", "step").len();
    assert!((1..200).contains(&told), "{told} steps");
    // Of a kill in the middle of a line, and of steps that no checkpoint knows.
    let log = folder.bytes("killed/small.log.jsonl");
    folder
        .write("killed/small.log.jsonl", &[&log[..], b"{\"event\":\"step\",\"step\":199}\n{\"eve"].concat());

    train(&folder, "--out killed --resume");
    assert!(weights(&folder, "whole") == weights(&folder, "killed"), "the resumed run went another way");
    assert!(logged(&folder, "killed", "step").into_iter().eq(0..200), "each step once");
}

#[test]
fn another_recipe_is_told_once_and_gone_on_with() {
    let folder = folder();
    train(&folder, "--out run --minutes 0.00001");
    assert!(!train(&folder, "--out run --minutes 0.00001 --resume").contains("recipe"));
    folder.write("small.toml", RECIPE.replace("peak = 1e-3", "peak = 2e-3").as_bytes());
    let told = train(&folder, "--out run --minutes 0.00001 --resume");
    let line =
        told.lines().find(|line| line.contains("the recipe is not the checkpoint's")).unwrap_or_default();
    assert!(line.contains("`peak = 0.002") && line.contains("`peak = 0.001"), "{told}");
    assert_eq!(logged(&folder, "run", "recipe").len(), 1);
    assert!(!train(&folder, "--out run --resume").contains("recipe"), "its checkpoint has the new one");
    assert!(folder.run("info run/small.safetensors --json").ok().text().contains("small"));
}

pub const RECIPE: &str = r#"
name = "small"
seed = 1
[model]
kind = "filter"
rate = 8000
hop = 16
window = 64
basis_window = 32
[[model.tiers]]
d_model = 8
blocks = 1
mixer = { kind = "mamba", d_state = 4 }
[data]
clean = ["clean"]
noise = ["noise"]
valid_clean = ["clean"]
valid_noise = ["noise"]
[mix]
seconds = 0.5
[loss]
l1 = 1.0
resolutions = [[64, 16]]
[schedule]
peak = 1e-3
last = 1e-4
warm_up = 1
steps = 6
[run]
batch = 2
valid_every = 3
valid_examples = 2
settle_seconds = 1
begin = { settled = 0.3, carried = 0.5 }
"#;
