//! Whole Mamba language models, imported from both namings, against Transformers' `MambaForCausalLM`.

use candle_core::{D, DType, Device, Tensor, Var};
use cascabel::engine::{Generator, GeneratorOptions};
use cascabel::exec::candle::{CandleInput, CandleModel, CandleState};
use cascabel::exec::cpu::Cpu;
use cascabel::exec::reference::{Reference, Scalar};
use cascabel::exec::{Executor, Feed, Limits, Rows, Sampling, State};
use cascabel::model::{Model, import};

use crate::bounds;
use crate::golden::{Golden, error, folder, largest_difference};
use crate::report::Report;
use crate::run::{isas, numbers, tensor};

const NAMES: [&str; 2] = ["tiny", "odd"];
const PROMPT: usize = 40;
const STREAMS: usize = 2;
const LIMITS: Limits = Limits { max_rows: 64, max_streams: STREAMS };

fn load(name: &str, naming: &str) -> (Golden, Model) {
    let model = import(&folder().join("mamba_lm").join(name).join(naming)).unwrap();
    (Golden::load(&format!("mamba_lm/{name}/golden")), model)
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// Takes the same rows of both streams (`[2, rows]` tokens) and gives `[2, rows, V]` logits.
fn advance(executor: &mut dyn Executor, tokens: &[u32]) -> Vec<f32> {
    let rows = tokens.len() / STREAMS;
    let feeds = [0, 1].map(|stream| Feed { stream, rows });
    let width = executor.plan().value(executor.plan().output).width;
    let mut y = vec![f32::NAN; tokens.len() * width];
    executor.advance(&feeds, Rows::Tokens(tokens), &mut y).unwrap();
    y
}

/// As [`advance`], one stream after the other in calls of 1, 2, … 7 rows, again and again.
fn in_pieces(executor: &mut dyn Executor, tokens: &[u32]) -> Vec<f32> {
    let width = executor.plan().value(executor.plan().output).width;
    let mut y = Vec::new();
    for (stream, mut rest) in tokens.chunks(tokens.len() / STREAMS).enumerate() {
        for rows in (1..=7).cycle() {
            let (now, later) = rest.split_at(rows.min(rest.len()));
            let mut part = vec![f32::NAN; now.len() * width];
            executor.advance(&[Feed { stream, rows: now.len() }], Rows::Tokens(now), &mut part).unwrap();
            y.extend(part);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
    }
    y
}

/// Logits of the prompt and the state after it.
struct Judge<'a> {
    report: &'a mut Report,
    golden: &'a Golden,
}

impl Judge<'_> {
    fn logits(&mut self, executor: &str, logits: &[f32]) {
        for against in ["logits", "logits_float64"] {
            let worst = largest_difference(&wide(logits), self.golden.get(against));
            self.report.check(
                &self.golden.name,
                executor,
                &format!("{against}, absolute"),
                worst,
                bounds::LOGITS,
            );
        }
    }

    /// A layer has two slots: the convolution's rows, as the judge holds them, and h `[N, d_inner]`.
    fn states(&mut self, executor: &str, states: &[State]) {
        let count = states[0].slots.len();
        for slot in 0..count {
            let got: Vec<f64> = states.iter().flat_map(|s| wide(&s.slots[slot])).collect();
            let layer = slot / 2;
            let (quantity, want) = match slot % 2 {
                0 => ("state, convolution", self.golden.get(&format!("state.{layer}.conv")).to_vec()),
                _ => {
                    let name = format!("state.{layer}.h");
                    let shape = self.golden.shape(&name);
                    ("state, h", crate::golden::to_slot(self.golden.get(&name), shape[1], shape[2], false))
                }
            };
            self.report.check(&self.golden.name, executor, quantity, error(&got, &want), bounds::MODEL);
        }
    }

    fn executor(&mut self, name: &str, executor: &mut dyn Executor, pieces: bool) {
        let tokens = self.golden.tokens("prompts");
        let y = if pieces { in_pieces(executor, &tokens) } else { advance(executor, &tokens) };
        self.logits(name, &y);
        self.states(name, &[executor.save(0), executor.save(1)]);
    }
}

fn reference<F: Scalar>(model: &Model) -> Reference<F> {
    Reference::open(&model.plan, &model.weights, LIMITS)
}

fn tokens_of(tokens: &[u32]) -> Tensor {
    Tensor::from_slice(tokens, (STREAMS, tokens.len() / STREAMS), &Device::Cpu).unwrap()
}

fn f32s(x: &Tensor) -> Vec<f32> {
    x.flatten_all().and_then(|x| x.to_dtype(DType::F32)?.to_vec1()).unwrap()
}

#[test]
fn imported_models_give_the_judges_logits_and_states() {
    let mut report = Report::new("language models");
    for name in NAMES {
        for naming in ["hf", "original"] {
            let (golden, model) = load(name, naming);
            let mut judge = Judge { report: &mut report, golden: &golden };
            judge.executor("reference f64", &mut reference::<f64>(&model), false);
            judge.executor("reference f32", &mut reference::<f32>(&model), false);
            for isa in isas() {
                for (how, pieces) in [("whole", false), ("in pieces", true)] {
                    let mut cpu = Cpu::open_with(&model.plan, &model.weights, LIMITS, isa);
                    judge.executor(&format!("cpu {isa:?} {how}"), &mut cpu, pieces);
                }
            }
            for dtype in [DType::F64, DType::F32] {
                let candle = CandleModel::new(&model.plan, &model.weights, dtype).unwrap();
                let tokens = tokens_of(&golden.tokens("prompts"));
                let zero = candle.zero_state(STREAMS).unwrap();
                let (y, end) = candle.forward(&zero, CandleInput::Tokens(&tokens)).unwrap();
                let executor = format!("candle {}", dtype.as_str());
                judge.logits(&executor, &f32s(&y));
                judge.states(&executor, &[0, 1].map(|s| end.stream(&model.plan, s).unwrap()));
            }
        }
    }
    report.finish();
}

/// The greatest and how far ahead of the second it is.
fn best(logits: &[f32]) -> (u32, f64) {
    let (mut first, mut second) = ((0, f32::NEG_INFINITY), f32::NEG_INFINITY);
    for (i, x) in logits.iter().enumerate() {
        if *x > first.1 {
            (second, first) = (first.1, (i as u32, *x));
        } else {
            second = second.max(*x);
        }
    }
    (first.0, f64::from(first.1) - f64::from(second))
}

/// Continues both prompts by the most likely token, 64 times; every token, its logits and its margin are judged.
fn greedy(report: &mut Report, golden: &Golden, executor: &str, mut step: impl FnMut(&[u32]) -> Vec<f32>) {
    let (want, margins) = (golden.tokens("next_tokens"), golden.get("margins"));
    let steps = want.len() / STREAMS;
    let vocabulary = *golden.shape("next_logits").last().unwrap();
    let mut logits = step(&golden.tokens("prompts"));
    let (mut least, mut moved, mut worst) = (f64::INFINITY, 0f64, 0f64);
    for t in 0..steps {
        let chosen: Vec<u32> = logits
            .chunks(logits.len() / STREAMS)
            .enumerate()
            .map(|(stream, rows)| {
                let last = &rows[rows.len() - vocabulary..];
                let at = stream * steps + t;
                let (token, margin) = best(last);
                assert_eq!(token, want[at], "{}, {executor}, stream {stream}, token {t}", golden.name);
                (least, moved) = (least.min(margin), moved.max((margin - margins[at]).abs()));
                let judged = &golden.get("next_logits")[at * vocabulary..][..vocabulary];
                worst = worst.max(largest_difference(&wide(last), judged));
                token
            })
            .collect();
        logits = step(&chosen);
    }
    let judged = margins.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        "{}, {executor}: {} tokens equal, least margin {least:.3e} (judge {judged:.3e})",
        golden.name,
        want.len()
    );
    report.check(&golden.name, executor, "next logits, absolute", worst, bounds::LOGITS);
    report.check(&golden.name, executor, "margin's difference", moved, bounds::LOGITS);
}

#[test]
fn sixty_four_greedy_tokens_are_the_judges() {
    let mut report = Report::new("greedy decoding");
    for name in NAMES {
        let (golden, model) = load(name, "hf");
        let mut executor = reference::<f32>(&model);
        greedy(&mut report, &golden, "reference f32", |tokens| advance(&mut executor, tokens));
        for isa in isas() {
            let mut cpu = Cpu::open_with(&model.plan, &model.weights, LIMITS, isa);
            greedy(&mut report, &golden, &format!("cpu {isa:?}"), |tokens| advance(&mut cpu, tokens));
        }
        let candle = CandleModel::new(&model.plan, &model.weights, DType::F32).unwrap();
        let mut state: CandleState = candle.zero_state(STREAMS).unwrap();
        greedy(&mut report, &golden, "candle f32", |tokens| {
            let (y, next) = candle.forward(&state, CandleInput::Tokens(&tokens_of(tokens))).unwrap();
            state = next;
            f32s(&y)
        });
        // And as a user generates: both prompts heard, then 64 tokens of both streams side by side.
        let options = GeneratorOptions { sampling: Sampling::Greedy, streams: STREAMS, ..Default::default() };
        let mut generator = Generator::open(&model, options).unwrap();
        let (prompts, want) = (golden.tokens("prompts"), golden.tokens("next_tokens"));
        for (stream, prompt) in prompts.chunks(prompts.len() / STREAMS).enumerate() {
            generator.hear(stream, prompt).unwrap();
        }
        let mut said = vec![0; want.len()];
        generator.generate(&mut said).unwrap();
        for (stream, want) in want.chunks(want.len() / STREAMS).enumerate() {
            assert!(said.iter().skip(stream).step_by(STREAMS).eq(want), "{name}, stream {stream}");
        }
    }
    report.finish();
}

/// Mean −log softmax(x)[target] over rows `[R, V]`, in nats.
fn cross_entropy(x: &Tensor, target: &[u32]) -> candle_core::Result<Tensor> {
    let target = Tensor::from_slice(target, (target.len(), 1), &Device::Cpu)?;
    let x = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    let total = x.exp()?.sum_keepdim(D::Minus1)?.log()?;
    total.sub(&x.gather(&target, 1)?)?.mean_all()
}

#[test]
fn the_loss_of_these_tests_is_torchs() {
    let golden = Golden::load("op_cross_entropy");
    let mut report = Report::new("cross-entropy");
    let x = Var::from_tensor(&tensor(golden.get("x"), golden.shape("x"), DType::F32)).unwrap();
    let loss = cross_entropy(&x, &golden.tokens("target")).unwrap();
    let grads = loss.backward().unwrap();
    report.check(
        "op_cross_entropy",
        "candle f32",
        "loss",
        error(&numbers(&loss), golden.get("loss")),
        bounds::OP,
    );
    let grad = numbers(grads.get(&x).unwrap());
    report.check("op_cross_entropy", "candle f32", "grad_x", error(&grad, golden.get("grad_x")), bounds::OP);
    report.finish();
}

#[test]
fn the_gradient_of_every_weight_of_a_model_is_the_judges() {
    let mut report = Report::new("gradients of a language model");
    let (golden, model) = load("tiny", "hf");
    let prompts = golden.tokens("prompts");
    let inputs: Vec<u32> = prompts.chunks(PROMPT).flat_map(|p| &p[..PROMPT - 1]).copied().collect();
    let targets: Vec<u32> = prompts.chunks(PROMPT).flat_map(|p| &p[1..]).copied().collect();
    for dtype in [DType::F64, DType::F32] {
        let executor = format!("candle {}", dtype.as_str());
        let candle = CandleModel::new(&model.plan, &model.weights, dtype).unwrap();
        let zero = candle.zero_state(STREAMS).unwrap();
        let (y, _, tape) = candle.record(&zero, CandleInput::Tokens(&tokens_of(&inputs)), None).unwrap();
        // The judge's loss is taken by candle; its gradient by y goes back over the plan.
        let y = Var::from_tensor(&y).unwrap();
        let loss = y.flatten(0, 1).and_then(|y| cross_entropy(&y, &targets)).unwrap();
        let worst = error(&numbers(&loss), golden.get("loss"));
        report.check(&golden.name, &executor, "loss", worst, bounds::MODEL);
        let by_y = loss.backward().unwrap().get(&y).cloned().unwrap();
        let grads = tape.backward(&by_y, None).unwrap().params;
        let mut judged = 0;
        for key in golden.keys().filter(|key| key.starts_with("grad.")) {
            let name = key.trim_start_matches("grad.").replace("embeddings", "embedding");
            let id = model.plan.find_param(&name).unwrap_or_else(|| panic!("no {name}"));
            let got = numbers(grads[id.0].as_ref().unwrap_or_else(|| panic!("no gradient of {name}")));
            report.check(key, &executor, "gradient of a weight", error(&got, golden.get(key)), bounds::MODEL);
            judged += 1;
        }
        assert_eq!(judged, model.plan.params.len());
    }
    report.finish();
}
