//! `cascabel info`: a model's card, its size and its plan.

use serde::Serialize;

use super::exit::Tally;
use super::{SCHEMA, named, print};
use crate::Result;
use crate::model::{Card, Config, Model};

/// Show what a model is: its card, latency, size and, op by op, its plan
#[derive(clap::Args)]
pub struct Args {
    /// The name of a bundled model, or a model file
    model: String,
    /// Also show every op: shape, tier, operations, bytes, state
    #[arg(long)]
    plan: bool,
    /// Write one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    kind: &'static str,
    rate: Option<u32>,
    channels: Option<usize>,
    latency_frames: usize,
    parameters: usize,
    file_bytes: usize,
    state_bytes: usize,
    settled: bool,
    gmac_per_second: Option<f64>,
    card: &'a Card,
    config: &'a Config,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Vec<OpLine>>,
}

#[derive(Serialize)]
struct OpLine {
    name: String,
    op: &'static str,
    inputs: Vec<usize>,
    output: usize,
    period: usize,
    flop: usize,
    exp: usize,
    weight_bytes: usize,
    state_bytes: usize,
}

pub fn run(args: &Args) -> Result<Tally> {
    let opened = named::open(&args.model)?;
    let model = &opened.model;
    let document = Document {
        schema: SCHEMA,
        kind: model.config.kind(),
        rate: model.rate(),
        channels: model.config.channels(),
        latency_frames: model.latency(),
        parameters: model.plan.param_count(),
        file_bytes: opened.file_len,
        state_bytes: 4 * model.plan.state_len(),
        settled: model.settled.is_some(),
        gmac_per_second: model.rate().map(|rate| model.plan.cost().flop_per_row() * f64::from(rate) / 2e9),
        card: &model.card,
        config: &model.config,
        plan: args.plan.then(|| ops(model)),
    };
    if args.json {
        print::json(&document)?;
    } else {
        print::text(&page(&document))?;
        if args.plan {
            print::text(&format!("\n{}\n", model.plan.cost()))?;
        }
    }
    Ok(Tally::ONE)
}

/// Each op with its shape and cost for one of its rows.
fn ops(model: &Model) -> Vec<OpLine> {
    let (plan, cost) = (&model.plan, model.plan.cost());
    let line = |(op, (_, period, cost)): (&crate::plan::Op, (&str, usize, crate::plan::Cost))| OpLine {
        name: op.name.clone(),
        op: op.kind.name(),
        inputs: op.inputs.iter().map(|view| view.width).collect(),
        output: plan.value(op.output).width,
        period,
        flop: cost.flop,
        exp: cost.exp,
        weight_bytes: cost.weight_bytes,
        state_bytes: cost.state_bytes,
    };
    plan.ops.iter().zip(cost.ops()).map(line).collect()
}

/// The document for people.
fn page(d: &Document<'_>) -> String {
    let mut lines = vec![("name", d.card.name.clone()), ("kind", d.kind.into())];
    if let Some(rate) = d.rate {
        let channels = d.channels.unwrap_or(1);
        lines.push((
            "sound",
            format!("{rate} Hz, {channels} channel{}", if channels == 1 { "" } else { "s" }),
        ));
        let ms = 1e3 * d.latency_frames as f64 / f64::from(rate);
        lines.push(("latency", format!("{} frames, {ms:.3} ms", d.latency_frames)));
    }
    lines.push(("parameters", format!("{} in a file of {} bytes", d.parameters, d.file_bytes)));
    let from = if d.settled { "a settled state" } else { "zeros" };
    lines.push(("state", format!("{} bytes a stream, beginning from {from}", d.state_bytes)));
    if let Some(gmac) = d.gmac_per_second {
        lines.push(("work", format!("{gmac:.4} GMAC/s")));
    }
    lines.push(("data", d.card.data.clone()));
    lines.push(("licence", d.card.licence.clone()));
    lines.push(("seed", d.card.seed.to_string()));
    lines.push(("commit", d.card.commit.clone()));
    let figures = d.card.figures.iter().map(|(name, value)| (name.as_str(), format!("{value:.4}")));
    let shown = lines.into_iter().filter(|(_, value)| !value.is_empty()).chain(figures);
    shown.map(|(name, value)| format!("{name:<24}{value}\n")).collect()
}
