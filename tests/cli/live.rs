//! Live through files and nothing: the same engine without a sound card.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cascabel::audio::{SampleRate, resample_to_length};
use serde_json::Value;

use super::support::{Folder, Run};

/// The lines that a run told.
fn told(run: &Run) -> Vec<Value> {
    run.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(line: &Value, path: &str) -> f64 {
    line.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {line}"))
}

#[test]
fn files_are_processed_bit_for_bit_at_the_reported_latency() {
    let folder = Folder::new();
    folder.filter("model");
    folder.tone("in.wav", 16_000, 2, 20_001);
    for depth in ["16", "32f"] {
        folder.run(&format!("process in.wav -o whole.wav --model model --depth {depth}")).ok();
        let whole = folder.sound("whole.wav");
        for (block, margin) in [(1, 0), (64, 0), (100, 0), (4_096, 0), (64, 100)] {
            let run = folder.run(&format!(
                "live --model model --input file:in.wav --output file:out.wav --block {block} --margin {margin} --depth {depth}"
            ));
            let lines = told(&run.ok());
            let latency = number(&lines[0], "/latency_ms/total_frames") as usize;
            assert_eq!(latency, 69 + margin, "the model's own");
            let out = folder.sound("out.wav");
            assert_eq!(out.frames(), 20_001 + latency);
            for (live, whole) in out.channels().iter().zip(whole.channels()) {
                assert!(live[latency..] == whole[..], "{depth} bits, blocks of {block}");
            }
            let last = lines.last().unwrap();
            assert_eq!(last["state"], "done");
            let counts =
                ["missing", "dropped", "lost", "xruns"].map(|name| number(last, &format!("/{name}")));
            assert_eq!(counts, [0.0; 4]);
        }
    }
    assert_eq!(folder.files(), ["in.wav", "model", "out.wav", "whole.wav"]);
}

#[test]
fn other_rates_are_late_as_reported() {
    let folder = Folder::new();
    folder.tone("in.wav", 44_100, 1, 44_100);
    // The dry sound is what came in: what comes out at another rate is it, resampled and late.
    let run = folder.run("live --input file:in.wav --output file:out.wav --rate 48000 --mix 0 --depth 32f");
    let latency = number(&told(&run.ok())[0], "/latency_ms/total_frames") as usize;
    let out = folder.sound("out.wav");
    assert_eq!((out.rate().hz(), out.frames()), (48_000, 48_000 + latency));
    let expected =
        resample_to_length(&folder.sound("in.wav"), SampleRate::new(48_000).unwrap(), 48_000).unwrap();
    let off = out.channels()[0][latency..].iter().zip(&expected.channels()[0]).skip(500).take(47_000);
    let most = off.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most < 1e-3, "{most}");
}

#[test]
fn by_the_clock_a_take_is_recorded_at_both_ends() {
    let folder = Folder::new();
    folder.filter("model");
    folder.tone("in.wav", 16_000, 1, 8_000);
    let begun = Instant::now();
    let line = "live --model model --input file:in.wav --output file:out.wav --realtime --block 160 --depth 32f \
                --record said.wav --record-input heard.wav";
    folder.run(line).ok();
    assert!(begun.elapsed() > Duration::from_millis(450));
    assert_eq!(folder.bytes("said.wav"), folder.bytes("out.wav"));
    let heard = folder.sound("heard.wav");
    assert!(heard.channels()[0][..8_000] == folder.sound("in.wav").channels()[0][..]);
}

#[test]
fn wishes_come_by_lines_and_an_end_by_q() {
    let folder = Folder::new();
    folder.filter("model");
    let mut live = Command::new(env!("CARGO_BIN_EXE_cascabel"))
        .args(
            "live --model model --swap denoise --input null --output file:out.wav --block 64 --rate 16000"
                .split(' '),
        )
        .current_dir(folder.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut wishes = live.stdin.take().unwrap();
    let mut lines = BufReader::new(live.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap();
    assert_eq!(next()["state"], "opening");
    wishes.write_all(b"b\n-\n-\ns\nx\n").unwrap();
    let mut line = next();
    for _ in 0..10 {
        if number(&line, "/swapped") > 0.0 {
            break;
        }
        line = next();
    }
    assert_eq!(
        (&line["bypass"], &line["model"], &line["state"]),
        (&true.into(), &"denoise".into(), &"running".into())
    );
    assert!(line.to_string().contains("\"mix\":0.9,"), "{line}");
    assert!(number(&line, "/output/frames") > 8_000.0 && number(&line, "/load/blocks") > 100.0);
    wishes.write_all(b"q\n").unwrap();
    let output = live.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(complaint, "cascabel: expected b, +, -, r, s or q, got \"x\"\n");
    assert!(folder.sound("out.wav").frames() > 8_000);
}

#[test]
fn what_cannot_be_is_one_line_and_leaves_nothing() {
    let folder = Folder::new();
    folder.filter("model");
    folder.tone("in.wav", 16_000, 1, 800);
    let before = folder.files();
    let files = "live --input file:in.wav --output file:out.wav";
    for (line, parts) in [
        (format!("{files} --mix 2"), ["--mix", "0 to 1", "2"]),
        (format!("{files} --block 0"), ["--block", "1 to 65536", "0"]),
        (format!("{files} --channels 27"), ["--channels", "1 to 26", "27"]),
        (format!("{files} --margin 2000000"), ["--margin", "0 to 1048576", "2000000"]),
        (format!("{files} --margin -1"), ["--margin", "-1", "invalid"]),
        (format!("{files} --realtime --record -"), ["--record", "a file", "-"]),
        (format!("{files} --model digits --mode answer --above 3"), ["above", "-100 to 0", "3"]),
        (format!("{files} --rate 7"), ["--rate", "1000 to 768000", "7 Hz"]),
        (format!("{files} --seconds -1"), ["--seconds", "more than 0", "-1"]),
        (format!("{files} --model nosuch"), ["model nosuch", "denoise", "no such file"]),
        (format!("{files} --model digits"), ["model", "a filter", "generator"]),
        (format!("{files} --swap digits"), ["model", "a filter", "generator"]),
        (format!("{files} --record a.wav"), ["--record", "--realtime", "as fast as they go"]),
        ("live --input file:in.wav --output file:./in.wav".into(), ["--output", "another file", "in.wav"]),
        (format!("{files} --class seven"), ["--class", "--mode answer beside it", "filter"]),
        (format!("{files} --mode answer --model none"), ["--mode answer", "a generator", "--model none"]),
        (format!("{files} --pause 1"), ["--pause", "--mode answer beside it", "filter"]),
        (format!("{files} --above -30"), ["--above", "--mode answer beside it", "filter"]),
        ("live --input file: --output null".into(), ["--input", "file:PATH", "without a path"]),
        (format!("{files} --realtime --record a.mp3"), ["a.mp3", "ends in .wav", ".mp3"]),
        ("live --input file:in.wav --output file:out.flac".into(), ["out.flac", "ends in .wav", ".flac"]),
        (format!("{files} --worker"), ["--worker", "--realtime", "as fast as they go"]),
        (format!("{files} --realtime --record out.wav"), ["--record", "another file", "out.wav"]),
        ("live --input file:no.wav --output null".into(), ["open", "no.wav", "No such file"]),
        ("live --input file:model --output null".into(), ["model", "sound", "got"]),
        (
            "live --input file:in.wav --output file:no/out.wav".into(),
            ["--output", "a folder that is there", "no"],
        ),
        ("live --input file:in.wav --output file:.".into(), [".", "a file to write", "a folder"]),
    ] {
        folder.run(&line).refused(2, &parts);
        assert_eq!(folder.files(), before, "{line}");
    }
}

#[cfg(feature = "devices")]
#[test]
fn devices_that_are_not_there_are_named_beside_those_that_are() {
    let folder = Folder::new();
    for way in
        ["--input nosuch --output null", "--input null --output nosuch", "--input alsa:nosuch --output null"]
    {
        folder.run(&format!("live {way}")).refused(2, &["nosuch", "file:PATH or null"]);
    }
    let list = folder.run("devices --json").ok();
    let list: Value = serde_json::from_slice(&list.out).unwrap();
    // ALSA has a device of nothing that has no clock.
    assert!(!list.to_string().contains("alsa:null"));
    folder.run("live --input alsa:null --output null").refused(2, &["alsa:null", "file:PATH or null"]);
    assert!(list["hosts"].as_array().unwrap().iter().all(|host| host["name"].is_string()));
    assert!(folder.run("devices").ok().text().contains(list["hosts"][0]["name"].as_str().unwrap()));
}

/// A limit on the size of files, as a disk that is full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_recording_and_not_the_sound() {
    let folder = Folder::new();
    folder.filter("model");
    let live = "live --model model --input null --output null --rate 48000 --seconds 2.5 --record take.wav";
    let run = Command::new("bash")
        .args(["-c", &format!("trap '' XFSZ; ulimit -f 100; exec {} {live}", env!("CARGO_BIN_EXE_cascabel"))])
        .current_dir(folder.path(""))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let complaint = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(1), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(complaint.contains("take.wav ends here, the sound goes on"), "{complaint}");
    let kept = folder.sound("take.wav").frames();
    assert!((30_000..=51_200).contains(&kept), "{kept}");
    let last: Value = serde_json::from_slice(run.stdout.split(|b| *b == b'\n').nth_back(1).unwrap()).unwrap();
    assert!(number(&last, "/output/frames") > 100_000.0, "{last}");
    let all = number(&last, "/unrecorded") + kept as f64;
    assert!((100_000.0..=number(&last, "/output/frames")).contains(&all), "{last}");
}

#[test]
fn a_generator_answers_when_what_it_hears_ends() {
    let folder = Folder::new();
    // Something, and time to answer.
    let mut samples = vec![0.0; 8_000];
    samples.extend(super::support::tone(8_000, 1, 8_000).into_channels().remove(0));
    samples.resize(30_000, 0.0);
    let heard = cascabel::audio::Sound::new(SampleRate::new(8_000).unwrap(), vec![samples]).unwrap();
    cascabel::audio::write_path(&folder.path("in.wav"), &heard, Default::default()).unwrap();
    let live = "live --model digits --mode answer --input file:in.wav --block 256 --longest 1 --pause 0.4";
    for (name, more) in [
        ("a", "--class seven"),
        ("b", "--class seven"),
        ("c", "--class two"),
        ("d", "--class seven --seed 1"),
    ] {
        folder.run(&format!("{live} --output file:{name}.wav {more}")).ok();
    }
    assert_eq!(folder.bytes("a.wav"), folder.bytes("b.wav"));
    assert!(folder.bytes("a.wav") != folder.bytes("c.wav") && folder.bytes("a.wav") != folder.bytes("d.wav"));
    let out = folder.sound("a.wav");
    let said = |from: f64, to: f64| {
        let part = &out.channels()[0][(from * 8_000.0) as usize..(to * 8_000.0) as usize];
        part.iter().any(|y| y.abs() > 1e-3)
    };
    assert!(
        !said(0.0, 2.38) && said(2.42, 3.4) && !said(3.45, 3.75),
        "from 0.4 s after the end on, for a second"
    );
    folder
        .run(&format!("{live} --output file:x.wav --class eleven"))
        .refused(2, &["--class", "one of zero", "eleven"]);
    folder
        .run("live --mode answer --input file:in.wav --output file:x.wav")
        .refused(2, &["a generator", "filter"]);
    assert!(!folder.path("x.wav").exists());
    // A file that ends is heard to stop.
    folder.tone("short.wav", 8_000, 1, 4_000);
    let live = "live --model digits --mode answer --input file:short.wav --output file:y.wav --longest 0.2 --pause 0.1";
    folder.run(live).ok();
    assert!(folder.sound("y.wav").channels()[0][4_000..].iter().any(|y| y.abs() > 1e-4));
}

#[test]
fn a_worker_is_two_blocks_later() {
    let folder = Folder::new();
    folder.filter("model");
    folder.tone("in.wav", 16_000, 1, 16_000);
    folder.run("process in.wav -o whole.wav --model model --depth 32f").ok();
    let live = "live --model model --input file:in.wav --output file:out.wav --realtime --block 160 --depth 32f --worker";
    let run = folder.run(live);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.is_empty() || run.err.contains("no real-time priority"), "{}", run.err);
    let latency = number(&told(&run)[0], "/latency_ms/total_frames") as usize;
    assert_eq!(latency, 69 + 320);
    // On a machine that others share some blocks may be late; most are whole, at their place.
    let (out, whole) = (folder.sound("out.wav"), folder.sound("whole.wav"));
    let same = |late: usize| {
        out.channels()[0][late..].iter().zip(&whole.channels()[0]).filter(|(a, b)| a == b).count()
    };
    let most = (latency - 160..=latency + 160).map(same).max().unwrap();
    assert!(most > 8_000, "{most} of 16,000");
}

#[test]
fn a_model_that_cannot_keep_up_is_refused_before_it_starts() {
    let folder = Folder::new();
    let config: cascabel::model::Config = serde_json::from_str(
        r#"{"kind": "filter", "rate": 48000, "hop": 1, "window": 4, "basis_window": 4,
            "tiers": [{"d_model": 192, "blocks": 8, "mixer": {"kind": "mamba"}}]}"#,
    )
    .unwrap();
    let weights = cascabel::plan::Weights::random(&config.plan().unwrap(), 3);
    cascabel::model::Model::new(config, weights, Default::default())
        .unwrap()
        .save(folder.path("slow"))
        .unwrap();
    let parts = ["model slow", "takes at most 0.9 of the time", "fewer --channels", "cascabel bench"];
    folder.run("live --model slow --input null --output null").refused(2, &parts);
    // Between files it may take as long as it wants.
    folder.tone("in.wav", 48_000, 1, 480);
    folder.run("live --model slow --input file:in.wav --output file:out.wav").ok();
}
