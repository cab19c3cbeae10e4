//! `eval`, `info`, `import`, `completions`, help.

use serde_json::Value;

use crate::support::Folder;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn info_tells_a_models_facts() {
    let folder = Folder::new();
    let model = folder.filter("m.safetensors");
    let page = folder.run("info m.safetensors").ok().text();
    for part in ["untrained", "filter", "16000 Hz, 1 channel", "69 frames, 4.312 ms", "beginning from zeros"]
    {
        assert!(page.contains(part), "no {part} in {page}");
    }
    assert!(!page.contains("FLOP"));
    let page = folder.run("info m.safetensors --plan").ok().text();
    assert!(page.contains("FLOP/row") && page.contains("encoder") && page.contains("overlap"), "{page}");
    let document = json(&folder.run("info m.safetensors --plan --json").ok().text());
    assert_eq!(document["schema"], 1);
    assert_eq!(document["latency_frames"], 69);
    assert_eq!(document["parameters"], model.plan.param_count());
    let ops = document["plan"].as_array().unwrap();
    assert_eq!(ops.len(), model.plan.ops.len());
    let state: u64 = ops.iter().map(|op| op["state_bytes"].as_u64().unwrap()).sum();
    assert_eq!(document["state_bytes"], state);
    let denoise = json(&folder.run("info denoise --json").ok().text());
    assert!(denoise.get("plan").is_none());
    assert!(denoise["gmac_per_second"].as_f64().unwrap() <= 0.5);
    assert!(denoise["latency_frames"].as_u64().unwrap() <= 128, "8 ms at 16 kHz");
}

#[test]
fn eval_measures_each_file_and_the_mean() {
    let folder = Folder::new();
    folder.filter("m.safetensors");
    for (name, rate, channels) in [("a", 16_000, 1), ("b", 44_100, 2)] {
        folder.tone(&format!("clean/{name}.wav"), rate, channels, 20_000);
        folder.tone(&format!("noisy/{name}.wav"), rate, channels, 20_000);
    }
    let line = "eval --model m.safetensors noisy --reference clean";
    let document = json(&folder.run(&format!("{line} --json")).ok().text());
    assert_eq!(document["schema"], 1);
    assert_eq!(document["latency_ms"], 4.3125);
    let files = document["files"].as_array().unwrap();
    assert_eq!(files.iter().map(|f| f["file"].as_str().unwrap()).collect::<Vec<_>>(), ["a.wav", "b.wav"]);
    let number = |line: &Value, side: &str, name: &str| line[side][name].as_f64().unwrap();
    for file in files {
        // The noisy side is the clean one; the untrained filter follows it, a little off.
        assert_eq!((number(file, "noisy", "si_sdr"), number(file, "noisy", "stft")), (120.0, 0.0));
        assert!((5.0..119.0).contains(&number(file, "processed", "si_sdr")), "{file}");
        assert!(file["times_real_time"].as_f64().unwrap() > 0.0);
    }
    let mean = (number(&files[0], "processed", "snr") + number(&files[1], "processed", "snr")) / 2.0;
    assert!((number(&document["mean"], "processed", "snr") - mean).abs() < 1e-9);
    let table = folder.run(line).ok().text();
    assert!(table.contains("SI-SDR, dB") && table.contains("\nmean"), "{table}");

    folder.tone("noisy/c.wav", 16_000, 1, 20_000);
    folder.run(line).refused(2, &["c.wav: expected a clean file of that name in clean, got none"]);
    folder.tone("clean/c.wav", 16_000, 1, 19_000);
    folder.run(line).refused(1, &["clean/c.wav at 16000 Hz: expected 1 channels of 20000 frames"]);
}

#[test]
fn a_mamba_checkpoint_is_imported() {
    let folder = Folder::new();
    let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/mamba_lm/tiny");
    for naming in ["original", "hf"] {
        let line = format!("import {} -o lm.safetensors", tiny.join(naming).display());
        let said = folder.run(&line).ok().text();
        assert!(said.starts_with("lm.safetensors: "), "{said}");
        let document = json(&folder.run("info lm.safetensors --json").ok().text());
        assert_eq!((&document["kind"], &document["rate"]), (&Value::from("language"), &Value::Null));
    }
    folder.tone("in.wav", 16_000, 1, 500);
    let line = "process in.wav -o out.wav --model lm.safetensors";
    folder.run(line).refused(2, &["expected a filter (sound to sound), got language"]);
    // The tokenizer comes along, under the model's name.
    for entry in std::fs::read_dir(tiny.join("hf")).unwrap() {
        let path = entry.unwrap().path();
        folder.write(
            &format!("dir/{}", path.file_name().unwrap().to_string_lossy()),
            &std::fs::read(&path).unwrap(),
        );
    }
    folder.write("dir/tokenizer.json", b"words");
    folder.run("import dir -o lm-1.4").ok();
    assert_eq!(folder.bytes("lm-1.4.tokenizer.json"), b"words");
    folder.run("import dir -o named.safetensors").ok();
    assert_eq!(folder.bytes("named.tokenizer.json"), b"words");
    folder.run("import nowhere -o x.safetensors").refused(2, &["nowhere"]);
}

#[test]
fn bench_tells_times_and_the_machines_floors() {
    let folder = Folder::new();
    folder.filter("m.safetensors");
    let line = "bench --model m.safetensors --seconds 0.01";
    let document = json(&folder.run(&format!("{line} --json")).ok().text());
    for floor in ["gflops", "read_half_mb_gb_per_s", "read_256_mb_gb_per_s", "scan_g_per_s"] {
        assert!(document["floors"][floor].as_f64().unwrap() > 0.0, "{floor}");
    }
    let rows = document["models"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|r| r["rows"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 16, 64, 512]);
    assert!(rows.iter().all(|r| r["us_per_row"].as_f64().unwrap() > 0.0));
    assert!(rows.iter().all(|r| r["share_of_floor"].as_f64().unwrap() > 0.0));
    let us = |i: usize| rows[i]["us_per_row"].as_f64().unwrap();
    let ratio = document["models"][0]["long_over_single"].as_f64().unwrap();
    assert!((ratio - us(0) / us(3)).abs() < 1e-9 * ratio, "{ratio}");
    let page = folder.run(line).ok().text();
    assert!(page.contains("G scan elements/s") && page.contains("T = 512 over T = 1: "), "{page}");
    assert!(document["models"][0]["made"].is_null() && !page.contains("as it is made"), "{page}");
    let line = "bench --model digits --seconds 0.01";
    let made = &json(&folder.run(&format!("{line} --json")).ok().text())["models"][0]["made"];
    let of = |name: &str| made[name].as_f64().unwrap();
    assert_eq!((of("budget_us"), of("guidance")), (125.0, 4.0));
    assert!(0.0 < of("mean_us") && of("p99_us") <= of("p999_us"), "{made}");
    assert!(of("p999_of_least_us") <= of("p999_us"), "{made}");
    assert!(folder.run(line).ok().text().contains("a sample as it is made, guidance 4: "));
    folder.run("bench --seconds 0").refused(2, &["--seconds: expected above 0"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_mistake() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_cascabel"))
        .args(["info", "denoise", "--plan"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), [].as_slice()));
}

#[test]
fn help_and_completions_go_to_standard_output() {
    let folder = Folder::new();
    assert!(folder.run("--version").ok().text().starts_with("cascabel "));
    for (line, part) in [
        ("--help", "process"),
        ("process --help", "--no-align"),
        ("eval --help", "--reference"),
        ("info --help", "--plan"),
        ("import --help", "config.json"),
        ("completions bash", "complete -F _cascabel"),
        ("completions zsh", "#compdef cascabel"),
        ("completions fish", "complete -c cascabel"),
    ] {
        let said = folder.run(line).ok().text();
        assert!(said.contains(part), "{line}: {said}");
    }
}
