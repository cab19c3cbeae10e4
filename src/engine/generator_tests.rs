use super::*;
use crate::model::Card;
use crate::plan::Weights;

fn model(text: &str) -> Model {
    let config: Config = serde_json::from_str(text).unwrap();
    let mut weights = Weights::random(&config.plan().unwrap(), 5);
    // Logits of some size, so that tokens depend on what was heard.
    let plan = config.plan().unwrap();
    for (param, tensor) in plan.params.iter().zip(weights.tensors_mut()) {
        let by = match param.name.split('.').next() {
            Some("embedding" | "head") => 30.0,
            Some("class") => 2.0,
            _ => 1.0,
        };
        tensor.iter_mut().for_each(|x| *x *= by);
    }
    Model::new(config, weights, Card::default()).unwrap()
}

/// S4D outside, Mamba within, tiers of 1, 2 and 8 samples.
fn tiers() -> Model {
    model(
        r#"{"kind": "generator", "rate": 8000, "tiers": [
            {"d_model": 8, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 3}, "feed_forward": 2},
            {"d_model": 12, "blocks": 1, "pool": 2, "mixer": {"kind": "mamba", "d_state": 4, "complex": true}},
            {"d_model": 16, "blocks": 1, "pool": 4, "shift": 2, "mixer": {"kind": "mamba", "d_state": 4}}]}"#,
    )
}

fn opened(model: &Model, streams: usize, first: u64) -> Generator {
    Generator::open(model, GeneratorOptions { seed: 9, streams, first, ..GeneratorOptions::default() })
        .unwrap()
}

fn said(generator: &mut Generator, count: usize) -> Vec<u32> {
    let mut tokens = vec![0; count];
    generator.generate(&mut tokens).unwrap();
    tokens
}

#[test]
fn cuts_and_streams_beside_change_nothing() {
    let model = tiers();
    let alone: Vec<Vec<u32>> = (0..5).map(|first| said(&mut opened(&model, 1, first), 203)).collect();
    assert!(alone.iter().skip(1).all(|other| *other != alone[0]), "each stream draws for itself");
    for count in [2, 3, 5] {
        let mut together = opened(&model, count, 0);
        let mut rows = Vec::new();
        for cut in [1, 2, 7, 93, 100] {
            rows.extend(said(&mut together, cut * count));
        }
        for (stream, alone) in alone.iter().take(count).enumerate() {
            assert!(rows.iter().skip(stream).step_by(count).eq(alone), "stream {stream} of {count}");
        }
    }
}

#[test]
fn what_is_heard_counts_as_if_it_had_been_said_whatever_the_cuts() {
    let model = tiers();
    let whole = said(&mut opened(&model, 1, 3), 400);
    for cuts in [vec![150], vec![1, 149], vec![7, 0, 90, 53], (0..150).map(|_| 1).collect()] {
        let (mut listener, mut from) = (opened(&model, 1, 3), 0);
        for cut in cuts {
            listener.hear(0, &whole[from..from + cut]).unwrap();
            from += cut;
        }
        assert_eq!(said(&mut listener, 250), whole[150..]);
    }
}

#[test]
fn logits_of_generation_are_those_of_the_whole_heard_at_once() {
    // Teacher-forced in one call, each token is the one that the same draw gives.
    let model = tiers();
    let tokens = said(&mut opened(&model, 1, 0), 300);
    let mut cpu = open(&model, Limits { max_rows: 300, max_streams: 1 }).unwrap();
    let heard: Vec<u32> = [SILENCE].into_iter().chain(tokens[..299].iter().copied()).collect();
    let mut logits = vec![0.0; 300 * 256];
    cpu.advance(&[Feed { stream: 0, rows: 300 }], Rows::Tokens(&heard), &mut logits).unwrap();
    let mut sampler = Sampler::open(Sampling::default(), 9, 256).unwrap();
    let again: Vec<u32> =
        logits.chunks(256).zip(1..).map(|(logits, position)| sampler.draw(logits, 0, position)).collect();
    assert_eq!(again, tokens);
}

#[test]
fn surprise_is_what_the_logits_say_and_counts_as_hearing() {
    let model = tiers();
    let tokens = said(&mut opened(&model, 1, 0), 300);
    let mut cpu = open(&model, Limits { max_rows: 64, max_streams: 1 }).unwrap();
    let heard: Vec<u32> = [SILENCE].into_iter().chain(tokens[..299].iter().copied()).collect();
    let mut logits = vec![0.0; 300 * 256];
    cpu.advance(&[Feed { stream: 0, rows: 300 }], Rows::Tokens(&heard), &mut logits).unwrap();
    let nats = |(logits, token): (&[f32], &u32)| {
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        total.ln() - f64::from(logits[*token as usize])
    };
    let want: f64 = logits.chunks(256).zip(&tokens).map(nats).sum();
    let (mut whole, mut parts) = (opened(&model, 1, 0), opened(&model, 1, 0));
    let found = whole.surprise(0, &tokens).unwrap();
    assert!((found - want).abs() < 1e-9 * want, "{found} {want}");
    let sum: f64 =
        [0..7, 7..7, 7..299, 299..300].map(|cut| parts.surprise(0, &tokens[cut]).unwrap()).iter().sum();
    assert!((sum - found).abs() < 1e-9 * found);
    assert_eq!(said(&mut whole, 50), said(&mut parts, 50));
    let text = self::model(r#"{"kind": "language", "vocabulary": 11, "d_model": 8, "layers": 1}"#);
    let mut generator = opened(&text, 1, 0);
    assert_eq!(generator.surprise(0, &[3]).unwrap(), 0.0);
    assert!(generator.surprise(0, &[3, 4]).unwrap() > 0.0);
}

#[test]
fn a_stream_goes_on_from_its_spot() {
    let model = tiers();
    let mut first = opened(&model, 2, 0);
    said(&mut first, 2 * 77);
    let spots: Vec<Spot> = (0..2).map(|stream| first.spot(stream).unwrap()).collect();
    let rest = said(&mut first, 2 * 50);
    let mut second = opened(&model, 2, 0);
    for (stream, spot) in spots.iter().enumerate() {
        let bytes = spot.to_bytes(&model.plan).unwrap();
        second.go_to(stream, &Spot::from_bytes(&model.plan, &bytes).unwrap()).unwrap();
        assert!(Spot::from_bytes(&model.plan, &spot.state.to_bytes(&model.plan).unwrap()).is_err());
    }
    assert_eq!(said(&mut second, 2 * 50), rest);
    let far = Spot { last: 256, ..spots[0].clone() };
    assert!(second.go_to(0, &far).unwrap_err().to_string().contains("below the vocabulary's size, got 256"));
}

/// Under the real-time sanitizer: see `exec/cpu/rtsan_tests.rs`.
#[test]
fn rtsan_generation() {
    let model = tiers();
    let random = |top_k, top_p| Sampling::Random { temperature: 0.9, top_k, top_p };
    for sampling in [Sampling::Greedy, random(None, None), random(Some(20), Some(0.9))] {
        let options = GeneratorOptions { sampling, streams: 3, ..GeneratorOptions::default() };
        let mut generator = Generator::open(&model, options).unwrap();
        said(&mut generator, 3 * 40);
    }
    let text = r#"{"kind": "generator", "rate": 8000, "classes": ["zero"], "nameless": true,
        "tiers": [{"d_model": 8, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 4}}]}"#;
    said(&mut guided(&self::model(text), 2.0), 2 * 40);
}

fn guided(model: &Model, guidance: f32) -> Generator {
    let options = GeneratorOptions { seed: 9, streams: 2, guidance, ..GeneratorOptions::default() };
    Generator::open(model, options).unwrap()
}

#[test]
fn guidance_leads_from_no_class_to_the_class_and_beyond() {
    let text = r#"{"kind": "generator", "rate": 8000, "classes": ["zero", "one"], "nameless": true, "tiers": [
        {"d_model": 8, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 4, "d_conv": 1}},
        {"d_model": 8, "blocks": 1, "pool": 2, "shift": 2, "mixer": {"kind": "mamba", "d_state": 4}}]}"#;
    let model = model(text);
    let from = |mut generator: Generator, class: usize, cuts: &[usize]| {
        (0..2).for_each(|stream| generator.set_class(stream, class).unwrap());
        (0..2).for_each(|stream| generator.hear(stream, &[5, 90 + stream as u32, 200]).unwrap());
        cuts.iter().flat_map(|rows| said(&mut generator, 2 * rows)).collect::<Vec<u32>>()
    };
    let (plain, all) = (|| guided(&model, 1.0), [120]);
    // 0 is no class at all; near 1 it is the class; beyond it is neither.
    assert_eq!(from(guided(&model, 0.0), 1, &all), from(plain(), 2, &all));
    assert_eq!(from(guided(&model, 1.0 + 1e-6), 1, &all), from(plain(), 1, &all));
    let beyond = from(guided(&model, 3.0), 1, &all);
    assert!(beyond != from(plain(), 1, &all) && beyond != from(plain(), 2, &all));
    assert_eq!(from(guided(&model, 3.0), 1, &[1, 40, 79]), beyond);
    // A spot has both states; a convolution of one tap has none.
    let (mut first, mut second) = (guided(&model, 3.0), guided(&model, 3.0));
    said(&mut first, 2 * 31);
    for stream in 0..2 {
        let spot = first.spot(stream).unwrap();
        let bytes = spot.to_bytes(&model.plan).unwrap();
        assert_eq!(Spot::from_bytes(&model.plan, &bytes).unwrap(), spot);
        second.go_to(stream, &spot).unwrap();
        assert!(plain().go_to(stream, &spot).is_err());
        assert!(first.go_to(stream, &Spot { beside: None, ..spot }).is_err());
    }
    assert_eq!(said(&mut first, 2 * 50), said(&mut second, 2 * 50));
    let wrong = |guidance| {
        let options = GeneratorOptions { guidance, ..GeneratorOptions::default() };
        Generator::open(&tiers(), options).err().map(|e| e.to_string())
    };
    assert!(wrong(2.0).unwrap().contains("knows no sound without a class"));
    assert!(wrong(f32::NAN).is_some() && wrong(1.0).is_none());
    let options = GeneratorOptions { guidance: 1e30, ..GeneratorOptions::default() };
    assert!(
        options
            .check(&model)
            .unwrap_err()
            .to_string()
            .ends_with("expected 0 to 100, got 1000000000000000000000000000000")
    );
}

#[test]
fn a_class_is_heard_at_every_row_and_may_change() {
    let model = model(
        r#"{"kind": "generator", "rate": 8000, "classes": ["zero", "one"],
            "tiers": [{"d_model": 8, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 4}}]}"#,
    );
    let of = |classes: [usize; 2]| {
        let mut generator = opened(&model, 1, 0);
        classes
            .iter()
            .flat_map(|class| {
                generator.set_class(0, *class).unwrap();
                said(&mut generator, 60)
            })
            .collect::<Vec<u32>>()
    };
    let (zero, one, changed) = (of([0, 0]), of([1, 1]), of([0, 1]));
    assert!(zero != one && zero[..60] == changed[..60] && zero[60..] != changed[60..]);
    let mut generator = opened(&model, 1, 0);
    assert_eq!(generator.set_class(0, 2).unwrap_err().to_string(), "class: expected below 2, got 2");
    assert!(generator.set_class(1, 0).is_err());
    assert!(generator.hear(0, &[256]).is_err(), "a class is no token to be heard");
}

#[test]
fn a_text_needs_something_to_go_on_from_and_a_filter_makes_nothing() {
    let text = model(r#"{"kind": "language", "vocabulary": 11, "d_model": 8, "layers": 1}"#);
    let mut generator = opened(&text, 1, 0);
    assert_eq!(generator.generate(&mut [0; 3]), Err(Misuse::Unbegun(0)));
    assert_eq!(generator.spot(0), None);
    assert!(generator.hear(0, &[3, 11]).is_err());
    assert!(generator.hear(1, &[3]).is_err());
    generator.hear(0, &[]).unwrap();
    generator.hear(0, &[3]).unwrap();
    assert!(said(&mut generator, 20).iter().all(|token| *token < 11));

    let filter = crate::engine::bundled::open("denoise").unwrap();
    let error = Generator::open(&filter, GeneratorOptions::default()).err().unwrap().to_string();
    assert_eq!(error, "model: expected a generator or a language model (process runs a filter), got filter");
    let small = model(
        r#"{"kind": "generator", "rate": 8000, "vocabulary": 16,
            "tiers": [{"d_model": 8, "blocks": 1, "mixer": {"kind": "mamba"}}]}"#,
    );
    assert!(Generator::open(&small, GeneratorOptions::default()).is_err());
}

#[test]
fn a_stream_goes_back_to_where_it_was_kept() {
    let text = r#"{"kind": "generator", "rate": 8000, "classes": ["zero"], "nameless": true, "tiers": [
        {"d_model": 8, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 4}},
        {"d_model": 8, "blocks": 1, "pool": 2, "shift": 2, "mixer": {"kind": "mamba", "d_state": 4}}]}"#;
    for (model, guidance) in [(tiers(), 1.0), (model(text), 2.0)] {
        let options =
            GeneratorOptions { seed: 9, streams: 2, guidance, live: true, ..GeneratorOptions::default() };
        let mut live = Generator::open(&model, options).unwrap();
        let mut plain = Generator::open(&model, GeneratorOptions { live: false, ..options }).unwrap();
        for generator in [&mut live, &mut plain] {
            generator.hear(0, &[5, 7, 200]).unwrap();
        }
        live.keep(0);
        live.keep(1);
        let first = said(&mut live, 2 * 33);
        live.hear(0, &[1; 77]).unwrap();
        live.go_back(0);
        live.go_back(1);
        assert_eq!(said(&mut live, 2 * 33), first);
        assert_eq!(said(&mut plain, 2 * 33), first);
        plain.keep(0);
    }
}
