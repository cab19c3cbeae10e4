//! `generate`.

use cascabel::audio::{SampleRate, read_bytes};
use cascabel::model::{Card, Config, Model};
use cascabel::plan::Weights;

use crate::support::Folder;

/// An untrained generator of two classes, 8 kHz.
fn generator(folder: &Folder, name: &str) {
    generator_with(folder, name, "");
}

/// The same, with more of a configuration.
fn generator_with(folder: &Folder, name: &str, more: &str) {
    let config = format!(
        r#"{{"kind": "generator", "rate": 8000, "classes": ["zero", "one"], {more} "tiers": [
            {{"d_model": 8, "blocks": 1, "mixer": {{"kind": "s4d", "d_state": 4}}}},
            {{"d_model": 12, "blocks": 1, "pool": 4, "mixer": {{"kind": "mamba", "d_state": 4}}}}]}}"#
    );
    let config: Config = serde_json::from_str(&config).unwrap();
    let weights = Weights::random(&config.plan().unwrap(), 3);
    Model::new(config, weights, Card::default()).unwrap().save(folder.path(name)).unwrap();
}

#[test]
fn a_sound_is_a_function_of_seed_class_and_number() {
    let folder = Folder::new();
    generator(&folder, "g.safetensors");
    let make = |rest: &str| folder.run(&format!("generate --model g.safetensors --seconds 0.25 {rest}")).ok();
    let said = make("--class one --seed 1 -o a.wav").text();
    assert!(said.starts_with("a.wav: 0.250 s at 8000 Hz, ") && said.ends_with(" × real time\n"), "{said}");
    let sound = folder.sound("a.wav");
    assert_eq!(
        (sound.rate(), sound.channel_count(), sound.frames()),
        (SampleRate::new(8_000).unwrap(), 1, 2_000)
    );
    make("--class one --seed 1 -o b.wav");
    make("--class one --seed 2 -o c.wav");
    make("--class zero --seed 1 -o d.wav");
    let a = folder.bytes("a.wav");
    assert!(a == folder.bytes("b.wav") && a != folder.bytes("c.wav") && a != folder.bytes("d.wav"));
    // To standard output as it goes: the same bytes.
    assert_eq!(make("--class one --seed 1 -o -").out, a);
    // Many at once: each as alone, but that its number draws.
    make("--class one --seed 1 --count 3 -o one/");
    assert_eq!(folder.bytes("one/one-0000.wav"), a);
    make("--seed 1 --count 66 -o all/");
    let files = folder.files();
    let of_all = |class: &str| files.iter().filter(|name| name.starts_with(&format!("all/{class}-"))).count();
    assert_eq!((of_all("zero"), of_all("one")), (33, 33));
    assert_eq!(folder.bytes("all/one-0001.wav"), folder.bytes("one/one-0001.wav"));
    assert_eq!(folder.bytes("all/zero-0000.wav"), folder.bytes("d.wav"));
    // Settings count.
    make("--class one --seed 1 --greedy -o e.wav");
    make("--class one --seed 1 --temperature 0.8 --top-k 50 --top-p 0.9 --depth 32f -o f.wav");
    assert!(folder.bytes("e.wav") != a && folder.sound("f.wav") != sound);
}

#[test]
fn what_is_made_can_be_seen() {
    let folder = Folder::new();
    generator(&folder, "g.safetensors");
    let line = "generate --model g.safetensors --seconds 0.1";
    folder.run(&format!("{line} -o a.wav --picture a.png")).ok();
    folder.run(&format!("{line} --count 10 -o many/ --picture many.png")).ok();
    // 1,200 pixels wide, 500 high a sound, of eight at most: the size stands in a PNG's first chunk.
    let size = |name: &str| {
        let bytes = folder.bytes(name);
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        (number(16), number(20))
    };
    assert_eq!((size("a.png"), size("many.png")), ((1200, 500), (1200, 4000)));
    for (rest, parts) in [
        ("-o - --picture b.png", ["--picture", "a sound that goes to a file"]),
        ("-o b.wav --picture b.wav", ["--picture", "another file than the others"]),
        ("-o b.wav --picture no/b.png", ["--picture", "a file in a folder that is there"]),
        ("-o b.wav --save-state b.png --picture b.png", ["--picture", "another file than the others"]),
    ] {
        folder.run(&format!("{line} {rest}")).refused(2, &parts);
    }
    assert!(!folder.files().iter().any(|name| name.starts_with("b.")));
}

#[test]
fn guidance_needs_a_model_that_knows_sound_without_a_class() {
    let folder = Folder::new();
    generator(&folder, "g.safetensors");
    generator_with(&folder, "n.safetensors", r#""nameless": true,"#);
    let make = |model: &str, rest: &str| {
        folder
            .run(&format!("generate --model {model}.safetensors --class one --seconds 0.25 --seed 1 {rest}"))
    };
    make("n", "-o plain.wav").ok();
    make("n", "-o one.wav --guidance 1").ok();
    make("n", "-o far.wav --guidance 3").ok();
    make("n", "-o on.wav --guidance 3 --prompt far.wav").ok();
    make("n", "--count 3 -o many/ --guidance 3").ok();
    assert_eq!(folder.bytes("plain.wav"), folder.bytes("one.wav"));
    assert!(folder.bytes("far.wav") != folder.bytes("plain.wav"));
    assert_eq!(folder.bytes("far.wav"), folder.bytes("many/one-0000.wav"));
    assert_eq!(folder.sound("on.wav").frames(), 4_000);
    for (model, given, expected) in [
        ("g", "--guidance 2", "knows no sound without a class"),
        ("n", "--guidance nan", "expected 0 to 100"),
        ("n", "--guidance 101", "expected 0 to 100"),
    ] {
        for to in ["-o no.wav", "--count 3 -o no/"] {
            make(model, &format!("{to} {given}")).refused(2, &["guidance", expected]);
        }
    }
    assert!(!folder.path("no.wav").exists() && !folder.path("no").exists());
    // A state has both halves, and goes on with guidance alone.
    make("n", "-o first.wav --guidance 3 --save-state s").ok();
    assert_eq!(folder.bytes("first.wav"), folder.bytes("far.wav"));
    make("n", "-o second.wav --guidance 3 --state s").ok();
    make("n", "-o no.wav --state s").refused(2, &["state", "one of a stream without guidance"]);
    assert!(!folder.files().iter().any(|name| name == "no.wav"));
    // What the model says counts where nothing is said.
    generator_with(&folder, "d.safetensors", r#""nameless": true, "draw": {"guidance": 3.0},"#);
    make("d", "-o own.wav").ok();
    make("d", "-o plain.wav --guidance 1").ok();
    assert_eq!(folder.bytes("own.wav"), folder.bytes("far.wav"));
    assert_eq!(folder.bytes("plain.wav"), folder.bytes("one.wav"));
}

#[test]
fn the_bundled_digits_are_heard_and_known_as_what_they_are() {
    let folder = Folder::new();
    folder.run("generate --model digits --class seven --seconds 0.4 --seed 1 -o made/").ok();
    let sound = folder.sound("made/seven-0000.wav");
    let power = sound.channels()[0].iter().map(|x| f64::from(x * x)).sum::<f64>() / sound.frames() as f64;
    assert!(10.0 * power.log10() > -50.0, "{power}");
    // To the model itself the sound costs more as another class.
    std::fs::copy(folder.path("made/seven-0000.wav"), folder.path("made/two-0000.wav")).unwrap();
    let text = folder.run("eval --model digits made --json").ok().text();
    let scores: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bits = |file: usize| scores["files"][file]["bits_per_sample"].as_f64().unwrap();
    assert_eq!(scores["files"][0]["file"], "seven-0000.wav");
    assert!(bits(0) < bits(1) - 0.01 && bits(0) < 7.0, "{scores}");
    folder
        .run("generate --model digits --class ten -o ten.wav")
        .refused(2, &["--class", "zero, one, two, three, four, five, six, seven, eight, nine"]);
}

#[test]
fn the_bundled_music_goes_on_from_what_it_heard() {
    let folder = Folder::new();
    let line = "generate --model music --seconds 0.2 --seed 1";
    folder.tone("tone.wav", 16_000, 1, 3_200);
    std::fs::create_dir(folder.path("made")).unwrap();
    folder.run(&format!("{line} -o made/first.wav")).ok();
    folder.run(&format!("{line} --prompt tone.wav -o made/second.wav")).ok();
    // What was heard comes first.
    for (name, heard) in [("made/first.wav", 0), ("made/second.wav", 3_200)] {
        let sound = folder.sound(name);
        assert_eq!((sound.rate().hz(), sound.frames()), (16_000, heard + 3_200));
        let power = sound.channels()[0][heard..].iter().map(|x| f64::from(x * x)).sum::<f64>() / 3_200.0;
        assert!(10.0 * power.log10() > -50.0, "{name}: {power}");
    }
    assert!(
        folder.sound("made/first.wav").channels()[0]
            != folder.sound("made/second.wav").channels()[0][3_200..]
    );
    // What it makes costs the model less than an even draw of 256 tokens would.
    let text = folder.run("eval --model music made --json").ok().text();
    let scores: serde_json::Value = serde_json::from_str(&text).unwrap();
    for file in scores["files"].as_array().unwrap() {
        assert!(file["bits_per_sample"].as_f64().unwrap() < 7.0, "{scores}");
    }
    folder
        .run("generate --model music --class zero -o zero.wav")
        .refused(2, &["--class", "this model has none"]);
}

#[test]
fn it_goes_on_from_a_prompt_and_from_a_state() {
    let folder = Folder::new();
    generator(&folder, "g.safetensors");
    let line = "generate --model g.safetensors --class one --seed 4";
    folder.run(&format!("{line} --seconds 0.5 -o whole.wav --depth 32f")).ok();
    let whole = folder.sound("whole.wav");
    // What it said itself, heard again (in floats, for 16 bits would round), is gone on from as if it had not stopped.
    let half =
        cascabel::audio::Sound::new(whole.rate(), vec![whole.channels()[0][..1_500].to_vec()]).unwrap();
    cascabel::audio::write_path(&folder.path("half.wav"), &half, cascabel::audio::WavDepth::Float32).unwrap();
    folder.run(&format!("{line} --seconds 0.3125 --prompt half.wav -o again.wav --depth 32f")).ok();
    assert_eq!(folder.sound("again.wav"), whole);
    folder.run(&format!("{line} --seconds 0.1875 -o first.wav --depth 32f --save-state s.state")).ok();
    folder.run(&format!("{line} --seconds 0.3125 -o second.wav --depth 32f --state s.state")).ok();
    // Its class is in the state.
    let bare = "generate --model g.safetensors --seed 4 --seconds 0.3125 --depth 32f --state s.state";
    folder.run(&format!("{bare} -o third.wav")).ok();
    assert_eq!(folder.bytes("third.wav"), folder.bytes("second.wav"));
    folder.run(&format!("{bare} --class zero -o fourth.wav")).ok();
    assert!(folder.bytes("fourth.wav") != folder.bytes("second.wav"));
    let parts = [folder.sound("first.wav"), folder.sound("second.wav")];
    let parts: Vec<f32> = parts.iter().flat_map(|part| part.channels()[0].clone()).collect();
    assert_eq!(parts, whole.channels()[0]);
    // A prompt of another rate and of two channels is heard at the model's, and that is said.
    folder.tone("other.wav", 44_100, 2, 4_410);
    let run = folder.run(&format!("{line} --seconds 0.1 --prompt other.wav -o o.wav"));
    assert_eq!(
        (run.code, run.err.as_str()),
        (0, "cascabel: other.wav: resampled from 44100 Hz to the model's 8000 Hz\n")
    );
    assert!(run.text().contains("0.100 s at 8000 Hz after 0.100 s heard"), "{}", run.text());
    assert_eq!(folder.sound("o.wav").frames(), 1_600);
    // Many go on from one prompt, each as alone.
    let many = "generate --model g.safetensors --seed 4 --seconds 0.1 --prompt half.wav --count 4";
    folder.run(&format!("{many} -o many/")).ok();
    folder.run(&format!("{many} --class one -o ones/")).ok();
    assert_eq!(folder.bytes("many/one-0003.wav"), folder.bytes("ones/one-0003.wav"));
    assert!(folder.bytes("ones/one-0002.wav") != folder.bytes("ones/one-0003.wav"));
}

#[test]
fn what_cannot_be_made_is_said_and_leaves_nothing() {
    let folder = Folder::new();
    generator(&folder, "g.safetensors");
    folder.filter("f.safetensors");
    folder.write("empty.wav", b"");
    let wide: Config = serde_json::from_str(
        r#"{"kind": "generator", "rate": 8000, "vocabulary": 300, "tiers": [{"d_model": 8, "blocks": 1, "mixer": {"kind": "mamba"}}]}"#,
    )
    .unwrap();
    let weights = Weights::random(&wide.plan().unwrap(), 3);
    Model::new(wide, weights, Card::default()).unwrap().save(folder.path("wide.safetensors")).unwrap();
    folder.write("no.state", b"not a state");
    let before = folder.files();
    for (rest, parts) in [
        (
            "--model f.safetensors -o a.wav",
            &["expected a generator or a language model (process runs a filter), got filter"][..],
        ),
        ("--model denoise -o a.wav", &["process runs a filter"]),
        ("--model none.safetensors -o a.wav", &["none.safetensors", "no such file"]),
        ("--model g.safetensors --class two -o a.wav", &["--class: expected one of zero, one, got two"]),
        (
            "--model g.safetensors --temperature 0 -o a.wav",
            &["temperature: expected a number above 0, got 0"],
        ),
        (
            "--model g.safetensors --temperature -1 -o a.wav",
            &["temperature: expected a number above 0, got -1"],
        ),
        (
            "--model g.safetensors --temperature NaN -o a.wav",
            &["temperature: expected a number above 0, got NaN"],
        ),
        ("--model g.safetensors --top-p 2 -o a.wav", &["top-p: expected a share above 0"]),
        ("--model g.safetensors --top-k 0 -o a.wav", &["top-k: expected at least 1 token"]),
        ("--model g.safetensors --greedy --top-k 3 -o a.wav", &["cannot be used with"]),
        ("--model g.safetensors", &["-o: expected where the sound is to go"]),
        (
            "--model g.safetensors --tokens 3 -o a.wav",
            &["--tokens: expected no such option with a generator of sound"],
        ),
        ("--model g.safetensors --seconds 0 -o a.wav", &["--seconds: expected a sample at least"]),
        ("--model g.safetensors --seconds NaN -o a.wav", &["--seconds: expected a sample at least"]),
        ("--model g.safetensors --count 0 -o a/", &["--count: expected 1 to 1,000,000, got 0"]),
        ("--model g.safetensors --count 2 -o -", &["standard output: expected one sound, got 2"]),
        ("--model g.safetensors --count 2 --save-state s -o a/", &["--save-state: expected one sound"]),
        (
            "--model g.safetensors --save-state none/s -o a.wav",
            &["--save-state: expected a file in a folder that is there"],
        ),
        (
            "--model g.safetensors --save-state a.wav -o a.wav",
            &["--save-state: expected another file than the others"],
        ),
        ("--model wide.safetensors -o a.wav", &["a generator of mu-law's 256 tokens, got one of 300 tokens"]),
        ("--model g.safetensors --prompt empty.wav -o a.wav", &["empty.wav"]),
        ("--model g.safetensors --prompt none.wav -o a.wav", &["none.wav"]),
        ("--model g.safetensors --state no.state -o a.wav", &["state: expected"]),
        ("--model g.safetensors -o none/a.wav", &["none/a.wav"]),
        ("--model g.safetensors -o a.mp3", &["a.mp3: expected a name that ends in .wav"]),
    ] {
        folder.run(&format!("generate {rest}")).refused(2, parts);
        assert_eq!(folder.files(), before, "{rest}");
    }
    folder.run("process empty.wav -o a.wav --model g.safetensors").refused(2, &["a filter", "generator"]);
    #[cfg(target_os = "linux")]
    folder.run("generate --model g.safetensors -o /dev/full").refused(2, &["cannot write /dev/full: "]);
    // The state of another model.
    folder.run("generate --model g.safetensors --seconds 0.1 -o a.wav --save-state s.state").ok();
    let config: Config = serde_json::from_str(
        r#"{"kind": "generator", "rate": 8000, "tiers": [{"d_model": 8, "blocks": 1, "mixer": {"kind": "mamba"}}]}"#,
    )
    .unwrap();
    let weights = Weights::random(&config.plan().unwrap(), 3);
    Model::new(config, weights, Card::default()).unwrap().save(folder.path("h.safetensors")).unwrap();
    let other = folder.run("generate --model h.safetensors --state s.state -o b.wav");
    other.refused(2, &["state: expected the state of this model"]);
    folder
        .run("generate --model h.safetensors --class zero -o b.wav")
        .refused(2, &["no class: this model has none"]);
    // Without classes a sound's name is its number.
    folder.run("generate --model h.safetensors --seconds 0.01 -o c/").ok();
    assert_eq!(read_bytes(folder.bytes("c/0000.wav"), "c").unwrap().frames(), 80);
}

#[test]
fn eval_counts_the_bits_of_a_sample() {
    let folder = Folder::new();
    generator(&folder, "g.safetensors");
    for (name, rate, channels) in
        [("zero-a.wav", 8_000, 1), ("one-a.wav", 16_000, 2), ("one-b.wav", 8_000, 1)]
    {
        folder.tone(&format!("clips/{name}"), rate, channels, rate as usize / 4);
    }
    let line = "eval --model g.safetensors clips";
    let document: serde_json::Value =
        serde_json::from_str(&folder.run(&format!("{line} --json")).ok().text()).unwrap();
    let files = document["files"].as_array().unwrap();
    let of = |file: &serde_json::Value, name: &str| file[name].as_f64().unwrap();
    assert_eq!(
        files.iter().map(|f| f["class"].as_str().unwrap()).collect::<Vec<_>>(),
        ["one", "one", "zero"]
    );
    assert!(files.iter().all(|file| of(file, "samples") == 2_000.0));
    // Untrained it knows little: eight bits, more or less.
    assert!(files.iter().all(|file| (7.0..9.0).contains(&of(file, "bits_per_sample"))), "{document}");
    // The same tone costs what it costs by its class; one channel what the mean of two does, here not the same tones.
    assert!(of(&files[1], "bits_per_sample") != of(&files[2], "bits_per_sample"));
    let mean = files.iter().map(|file| of(file, "bits_per_sample")).sum::<f64>() / 3.0;
    assert!((of(&document["mean"], "bits_per_sample") - mean).abs() < 1e-12);
    let [low, high] = [0, 1].map(|end| document["mean"]["interval"][end].as_f64().unwrap());
    assert!(low <= mean && mean <= high && high - low < 1.0);
    let table = folder.run(line).ok().text();
    assert!(
        table.contains("bits per sample") && table.contains("mean of 3") && table.contains("× real time"),
        "{table}"
    );
    folder
        .run(&format!("{line} --reference clips"))
        .refused(2, &["--reference: expected not with a generator"]);
    folder.run("eval --model denoise clips").refused(2, &["--reference: expected the folder of clean files"]);
    folder.write("other/two.wav", &folder.bytes("clips/one-b.wav"));
    folder
        .run("eval --model g.safetensors other")
        .refused(2, &["a name that begins with one of zero, one, got two"]);
}

/// An untrained language model of so many tokens.
fn language(folder: &Folder, name: &str, vocabulary: usize) {
    let text = format!(r#"{{"kind": "language", "vocabulary": {vocabulary}, "d_model": 8, "layers": 1}}"#);
    let config: Config = serde_json::from_str(&text).unwrap();
    let weights = Weights::random(&config.plan().unwrap(), 3);
    std::fs::create_dir_all(folder.path(name).parent().unwrap()).unwrap();
    Model::new(config, weights, Card::default()).unwrap().save(folder.path(name)).unwrap();
}

/// Four words, the first of which ends a text.
const WORDS: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
    {"id": 0, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "vocab": {"<end>": 0, "a": 1, "rose": 2, "is": 3}, "unk_token": "<end>"}}"#;

#[test]
fn a_language_model_goes_on_with_a_text() {
    let folder = Folder::new();
    language(&folder, "m.safetensors", 4);
    folder.write("tokenizer.json", WORDS.as_bytes());
    let line = "generate --model m.safetensors --tokens 40";
    let text = folder.run(&format!("{line} --prompt rose --seed 2")).ok().text();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(text.starts_with("rose") && text.ends_with('\n') && words.len() < 42, "{text}");
    assert!(words.len() > 1 && words.iter().all(|word| ["a", "rose", "is"].contains(word)), "{text}");
    assert!((0..20).any(|seed| folder.run(&format!("{line} --prompt rose --seed {seed}")).text() != text));
    // The end of a text is not said.
    let lengths = (0..20).map(|seed| folder.run(&format!("{line} --prompt rose --seed {seed}")).text());
    assert!(lengths.map(|text| text.split_whitespace().count()).min().unwrap() < 20);
    folder.run(&format!("{line} --prompt rose --seed 2 -o t.txt")).ok();
    assert_eq!(folder.bytes("t.txt"), text.as_bytes());

    // A vocabulary of bytes needs no tokenizer: DNA, say.
    language(&folder, "b/bytes.safetensors", 256);
    let line = "generate --model b/bytes.safetensors --seed 5";
    let whole = folder.run(&format!("{line} --prompt ACGT --tokens 30")).ok().out;
    assert_eq!((&whole[..4], whole.len(), whole[34]), (&b"ACGT"[..], 35, b'\n'));
    folder.run(&format!("{line} --prompt ACGT --tokens 10 --save-state s.state -o first")).ok();
    let rest = folder.run(&format!("{line} --tokens 20 --state s.state")).ok().out;
    assert_eq!([&folder.bytes("first")[..14], &rest].concat(), whole);

    let before = folder.files();
    folder.write("c/none", b"");
    language(&folder, "c/m.safetensors", 4);
    for (rest, parts) in [
        ("--model m.safetensors", &["--prompt: expected a text to go on from, or --state, got none"][..]),
        (
            "--model m.safetensors --prompt a --seconds 3",
            &["--seconds: expected no such option with a language model"],
        ),
        ("--model m.safetensors --prompt a --count 3", &["--count of texts: expected 1, got 3"]),
        (
            "--model c/m.safetensors --prompt a",
            &["tokenizer: expected c/m.tokenizer.json or c/tokenizer.json"],
        ),
    ] {
        folder.run(&format!("generate {rest}")).refused(2, parts);
    }
    folder.write("c/tokenizer.json", b"{}");
    folder.run("generate --model c/m.safetensors --prompt a").refused(2, &["c/tokenizer.json"]);
    let wide = WORDS.replace(r#""is": 3"#, r#""is": 300"#);
    folder.write("c/tokenizer.json", wide.as_bytes());
    folder
        .run("generate --model c/m.safetensors --prompt is")
        .refused(2, &["tokens of the model's, below 4, got 300"]);
    assert!(before.iter().all(|file| folder.files().contains(file)));
}
