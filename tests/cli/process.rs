//! `process`: one file, many, pipes, options.

use cascabel::audio::WavDepth;
use cascabel::engine::{ProcessOptions, Processor, Stereo};

use crate::support::{Folder, filter};

#[test]
fn a_file_becomes_what_the_library_makes_of_it() {
    let folder = Folder::new();
    folder.tone("in.wav", 44_100, 2, 9_001);
    let model = folder.filter("m.safetensors");
    for (flags, options) in [
        ("", ProcessOptions::default()),
        ("--mix 0.25", ProcessOptions { mix: 0.25, ..Default::default() }),
        ("--no-align", ProcessOptions { align: false, ..Default::default() }),
        ("--stereo linked", ProcessOptions { stereo: Stereo::Linked, ..Default::default() }),
    ] {
        let line = format!("process in.wav -o out.wav --model m.safetensors --depth 32f {flags}");
        let run = folder.run(&line).ok();
        assert!(run.text().starts_with("out.wav: 0.204 s at 44100 Hz, 2 channel(s), "), "{}", run.text());
        let expected = Processor::open(&model, options).unwrap().process(&folder.sound("in.wav")).unwrap();
        assert_eq!(folder.sound("out.wav").channels(), expected.channels(), "{flags}");
    }
    assert_eq!(folder.files(), ["in.wav", "m.safetensors", "out.wav"]);
}

#[test]
fn odd_rates_and_channels_keep_their_length() {
    let folder = Folder::new();
    for (i, (rate, channels, frames)) in
        [(8_000, 1, 1), (11_025, 3, 777), (16_000, 6, 68), (22_050, 1, 15_001), (96_000, 2, 10_007)]
            .into_iter()
            .enumerate()
    {
        folder.tone("in.wav", rate, channels, frames);
        let depth = ["16", "24", "32f"][i % 3];
        folder.run(&format!("process in.wav -o out.wav --depth {depth}")).ok();
        let out = folder.sound("out.wav");
        assert_eq!((out.rate().hz(), out.channel_count(), out.frames()), (rate, channels, frames));
        let bytes = [WavDepth::Int16, WavDepth::Int24, WavDepth::Float32][i % 3].bytes() * channels * frames;
        assert!((bytes..bytes + 128).contains(&folder.bytes("out.wav").len()), "{depth}");
    }
}

#[test]
fn every_format_that_is_read_is_processed() {
    let folder = Folder::new();
    folder.filter("m.safetensors");
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let formats = ["wav", "aiff", "caf", "flac", "mkv", "ogg", "mp3", "mp2", "m4a", "aac"];
    let names: Vec<_> = formats.iter().map(|end| fixtures.join(format!("chirp.{end}"))).collect();
    for (end, name) in formats.iter().zip(&names) {
        let out = format!("{end}.wav");
        folder.run(&format!("process {} -o {out} --model m.safetensors", name.display())).ok();
        let before = cascabel::audio::read_path(name).unwrap();
        let after = folder.sound(&out);
        assert_eq!((after.rate(), after.frames()), (before.rate(), before.frames()), "{end}");
        // The untrained filter follows its input.
        let energy = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
        let share = energy(&after.channels()[0]) / energy(&before.channels()[0]);
        assert!((0.3..1.5).contains(&share), "{end}: {share}");
    }
}

#[test]
fn a_pipe_gives_the_bytes_that_files_give() {
    let folder = Folder::new();
    folder.tone("in.wav", 16_000, 1, 5_000);
    folder.run("process in.wav -o file.wav").ok();
    let (input, expected) = (folder.bytes("in.wav"), folder.bytes("file.wav"));
    assert_eq!(folder.run_with("process - -o -", &input).ok().out, expected);
    assert_eq!(folder.run("process in.wav -o -").ok().out, expected);
    folder.run_with("process - -o piped.wav", &input).ok();
    assert_eq!(folder.bytes("piped.wav"), expected);
    folder.run_with("process - -o -", b"").refused(2, &["standard input", "an empty file"]);
}

#[test]
fn a_folder_is_filled_once() {
    let folder = Folder::new();
    folder.filter("m.safetensors");
    for (i, name) in ["a.wav", "b.wav", "c.wav"].into_iter().enumerate() {
        folder.tone(name, 16_000, 1, 3_000 + i);
    }
    let line = "process a.wav b.wav c.wav -o out --model m.safetensors --jobs 2";
    let said = |line: &str| folder.run(line).ok().text();
    assert!(said(line).starts_with("3 files done, 0 done before, 0 failed"));
    let made = folder.bytes("out/b.wav");
    assert_eq!(said(line), "0 files done, 3 done before, 0 failed\n");
    assert!(said(&format!("{line} --force")).starts_with("3 files done, 0 done before"));
    assert!(said(&format!("{line} --mix 0.5")).starts_with("3 files done, 0 done before"));
    assert!(said(line).starts_with("3 files done"), "the options are those of the first run again");
    folder.tone("a.wav", 16_000, 1, 2_000);
    folder.write("out/b.wav", b"overwritten");
    assert!(said(line).starts_with("2 files done, 1 done before, 0 failed"));
    assert_eq!(folder.bytes("out/b.wav"), made);
    let mut other = filter();
    other.card.name = "another".into();
    other.save(folder.path("m.safetensors")).unwrap();
    assert!(said(line).starts_with("3 files done, 0 done before"));
    let hidden: Vec<_> = folder.files().into_iter().filter(|name| name.starts_with("out/.")).collect();
    assert_eq!(hidden, ["out/.cascabel.json"], "nothing temporary stays");
}

#[test]
fn one_bad_file_of_many_is_told_and_the_rest_are_done() {
    let folder = Folder::new();
    folder.tone("a.wav", 16_000, 1, 2_000);
    folder.write("bad.wav", b"no sound at all");
    folder.tone("c.wav", 16_000, 1, 2_000);
    let run = folder.run("process a.wav bad.wav c.wav -o out");
    run.refused(1, &["bad.wav"]);
    assert!(run.text().starts_with("2 files done, 0 done before, 1 failed"), "{}", run.text());
    let files = folder.files();
    assert!(files.contains(&"out/a.wav".into()) && files.contains(&"out/c.wav".into()));
    assert!(!files.contains(&"out/bad.wav".into()));
    folder.write("worse.wav", b"");
    let run = folder.run("process bad.wav worse.wav -o none");
    assert_eq!((run.code, run.err.lines().count()), (2, 2), "{}", run.err);
    assert!(!folder.path("none").exists(), "a folder for nothing");
}

#[test]
fn the_bundled_model_takes_away_noise() {
    let folder = Folder::new();
    let mut state = 1u32;
    let noise = (0..32_000).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0.1 * (state as f32 / u32::MAX as f32 - 0.5)
    });
    let rate = cascabel::audio::SampleRate::new(16_000).unwrap();
    let noise = cascabel::audio::Sound::new(rate, vec![noise.collect()]).unwrap();
    cascabel::audio::write_path(&folder.path("noise.wav"), &noise, WavDepth::Float32).unwrap();
    let nowhere = folder.run("process noise.wav -o out.wav --picture no/p.png");
    nowhere.refused(2, &["--picture: expected a file in a folder that is there, got no"]);
    folder.run("process noise.wav -o out.flac").refused(2, &["out.flac: expected a name that ends in .wav"]);
    assert!(!folder.path("out.wav").exists() && !folder.path("out.flac").exists());
    folder.run("process noise.wav -o out.wav --depth 32f --picture p.png").ok();
    let energy = |x: &[f32]| x[8_000..].iter().map(|x| x * x).sum::<f32>();
    let left = energy(&folder.sound("out.wav").channels()[0]) / energy(&noise.channels()[0]);
    assert!(left < 0.1, "white noise by less than 10 dB: {left}");
    assert!(folder.bytes("p.png").starts_with(b"\x89PNG"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_finished_files() {
    let folder = Folder::new();
    // The second file takes long enough to be interrupted in.
    folder.tone("a.wav", 16_000, 1, 1_600);
    folder.tone("b.wav", 16_000, 1, 16_000 * 600);
    folder.tone("c.wav", 16_000, 1, 1_600);
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_cascabel"))
        .args(["process", "a.wav", "b.wav", "c.wav", "-o", "out", "--jobs", "1"])
        .current_dir(folder.path(""))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while !folder.path("out/a.wav").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // The shell's own: /bin/kill is of a package that may be missing.
    let line = format!("kill -INT {}", child.id());
    let kill = std::process::Command::new("sh").args(["-c", &line]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert_eq!(message, "cascabel: stopped on request: 1 of 3 files done and kept\n");
    assert_eq!(folder.files(), ["a.wav", "b.wav", "c.wav", "out/.cascabel.json", "out/a.wav"]);
}
