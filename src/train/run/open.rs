//! What a run is opened from: data, examples, the checkpoint if there is one, the model where it learns, the other processes.

use candle_core::{DType, Device};

use super::{Event, Files, Makes, Run, RunOptions, Wishes};
use crate::exec::candle::CandleModel;
use crate::model::{Card, Model};
use crate::plan::{Dynamics, OpKind, Param, Plan, Weights};
use crate::train::adamw::{AdamW, Group};
#[cfg(feature = "train-cuda")]
use crate::train::ahead::{Ahead, Share};
use crate::train::batch::Worker;
use crate::train::begins::Begins;
use crate::train::checkpoint::{self, Heard, Progress};
use crate::train::examples::Maker;
#[cfg(feature = "train-cuda")]
use crate::train::learner::Learner;
use crate::train::log;
#[cfg(feature = "train-cuda")]
use crate::train::peers::Nccl;
use crate::train::peers::{Alone, Peers, Tcp};
use crate::train::recipe::{About, Recipe};
use crate::train::task::Task;
use crate::{Error, Result};

/// Refuses a batch that the processes, and on the CPU the groups, cannot share.
pub(super) fn divides(recipe: &Recipe, options: &RunOptions<'_>) -> Result<()> {
    let world = options.place.as_ref().map_or(1, |place| place.world);
    let at_once = if options.device.is_cpu() { recipe.run.group } else { 1 };
    if recipe.run.batch.is_multiple_of(world * at_once) {
        return Ok(());
    }
    let expected = format!("a multiple of {} for {world} processes", world * at_once);
    Err(Error::input("recipe [run] batch", expected, recipe.run.batch.to_string()))
}

impl<'a, T: Task> Run<'a, T> {
    /// Everything is read and checked before anything is left behind.
    pub(super) fn open(
        recipe: &'a Recipe,
        task: T,
        plan: Plan,
        threads: usize,
        options: &mut RunOptions<'_>,
    ) -> Result<Self> {
        let files = Files::of(recipe, &options.out);
        let Start { weights, optimiser, progress, heard, resumed, other } =
            start(recipe, &plan, &files, options)?;
        let model = CandleModel::on(&options.device, &plan, &weights, DType::F32)?;
        let model = model.with_products(recipe.run.products);
        let world = options.place.as_ref().map_or(1, |place| place.world);
        let group = if options.device.is_cpu() { recipe.run.group } else { recipe.run.batch / world };
        let mut begins = Begins::new(task.course(), recipe.run.batch / group);
        begins.restore(&model, group, &heard)?;
        let makes = match &options.device {
            #[cfg(feature = "train-cuda")]
            device if device.is_cuda() => {
                let rank = options.place.as_ref().map_or(0, |place| place.rank);
                let share =
                    Share { step: progress.step, batch: recipe.run.batch, from: rank * group, count: group };
                let learner = Box::new(Learner::new(&optimiser, &model)?);
                let ahead = Ahead::start(vec![task.maker(); threads], share, 4 * group, &options.device);
                Makes::Ahead(ahead, task.judge(&options.device)?, learner)
            }
            device => {
                let worker = |_| Ok(Worker { maker: task.maker(), judge: task.judge(device)? });
                Makes::Workers((0..threads).map(worker).collect::<Result<_>>()?)
            }
        };
        let data = task.data();
        let peers: Box<dyn Peers> = match &options.place {
            None => Box::new(Alone),
            Some(place) => {
                let of = (progress.step, &data.hashes, &progress.recipe, hash_of(&weights));
                let tcp = Tcp::connect(place, *blake3::hash(format!("{of:?}").as_bytes()).as_bytes())?;
                together(tcp, &options.device)?
            }
        };
        let told = Event::Data {
            clean_seconds: data.seconds,
            noise_seconds: data.noise_seconds,
            hashes: data.hashes.clone(),
            parameters: plan.param_count(),
        };
        let together =
            (peers.world() > 1).then(|| Event::Together { processes: peers.world(), way: peers.way() });
        let seconds =
            (recipe.run.batch * task.maker().rows()) as f64 / f64::from(recipe.model.rate().unwrap_or(1));
        let run = Self {
            recipe,
            task,
            plan,
            files,
            makes,
            seconds,
            model,
            weights,
            optimiser,
            begins,
            progress,
            peers,
            wishes: Wishes::default(),
            waited: 0.0,
            saved: resumed,
        };
        if run.leads() {
            run.leave(options, [Some(told), together, other].into_iter().flatten())?;
        }
        Ok(run)
    }

    /// The input is good: from here on the run leaves something behind. Its log, without what a checkpoint does not know, and these events.
    fn leave(&self, options: &mut RunOptions<'_>, events: impl Iterator<Item = Event>) -> Result<()> {
        std::fs::create_dir_all(&options.out).map_err(|e| Error::io("create", &options.out, e))?;
        if self.saved {
            log::keep_until(&self.files.log, self.progress.step)?;
        } else {
            let _ = std::fs::remove_file(&self.files.log);
        }
        for event in events {
            self.tell(options, &event)?;
        }
        Ok(())
    }
}

/// What a run starts with.
struct Start {
    weights: Weights,
    optimiser: AdamW,
    progress: Progress,
    /// The states that examples may begin from.
    heard: Heard,
    /// Whether all this is a checkpoint's.
    resumed: bool,
    /// Told when that was written by another recipe.
    other: Option<Event>,
}

/// The run's own checkpoint, if it is to be resumed and there is one; else another model's weights, or random ones.
fn start(recipe: &Recipe, plan: &Plan, files: &Files, options: &RunOptions<'_>) -> Result<Start> {
    let mut weights = match &options.from {
        Some(model) => weights_of(model, plan)?,
        None => Weights::random(plan, recipe.seed),
    };
    let mut optimiser = AdamW::new(&recipe.optimiser, groups(plan, &weights, recipe.run.dynamics_rate))?;
    let begun_from = options
        .from
        .as_ref()
        .map(|model| begun_from(&model.card, &model.weights, &recipe.about))
        .unwrap_or_default();
    let fresh = Progress { step: 0, optimiser_steps: 0, recipe: recipe.to_text(), seconds: 0.0, begun_from };
    let resumed = options.resume && files.checkpoint.exists();
    let (mut progress, heard) = if resumed {
        checkpoint::load(&files.checkpoint, plan, &mut weights, &mut optimiser)?
    } else {
        (fresh, Heard::new())
    };
    let other = other_recipe(&progress, &recipe.to_text());
    progress.recipe = recipe.to_text();
    Ok(Start { weights, optimiser, progress, heard, resumed, other })
}

/// The weights of a model of the recipe's plan.
fn weights_of(model: &Model, plan: &Plan) -> Result<Weights> {
    let what = format!("--from {}", model.card.name);
    let shape =
        |plan: &Plan| plan.params.iter().map(|p| (p.name.clone(), p.shape.clone())).collect::<Vec<_>>();
    let (own, wanted) = (shape(&model.plan), shape(plan));
    if let Some(((name, shape), (other, of))) = wanted.iter().zip(&own).find(|(a, b)| a != b) {
        return Err(Error::input(
            what,
            format!("{name} {shape:?}, as the recipe has"),
            format!("{other} {of:?}"),
        ));
    }
    if own.len() != wanted.len() || model.plan.hash() != plan.hash() {
        return Err(Error::input(what, "a model with the recipe's [model]", "another of like tensors"));
    }
    let dry = Recipe::parse(&model.card.recipe, "card").is_ok_and(|recipe| recipe.run.dry != 0.0);
    if dry {
        return Err(Error::input(what, "a model without a dry share", "one that has it in its weights"));
    }
    Ok(model.weights.clone())
}

/// What a card says of the model that its run began with. What both learned from stands once; what that one began with follows.
fn begun_from(card: &Card, weights: &Weights, about: &About) -> String {
    let (name, hash) = (&card.name, hash_of(weights).to_hex());
    let hash = &hash[..16];
    let before = card.data.strip_prefix(about.data.as_str()).filter(|rest| {
        !about.data.is_empty() && (rest.is_empty() || rest.starts_with(" Begun with the weights of "))
    });
    match before {
        Some(before) if card.licence == about.licence => {
            format!(" Begun with the weights of {name}, of the same data and licence, BLAKE3 {hash}.{before}")
        }
        _ => {
            let Card { data, licence, .. } = card;
            format!(" Begun with the weights of {name} ({data}; licence: {licence}), BLAKE3 {hash}.")
        }
    }
}

fn hash_of(weights: &Weights) -> blake3::Hash {
    let mut hash = blake3::Hasher::new();
    for tensor in weights.tensors() {
        hash.update(&tensor.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
    }
    hash.finalize()
}

/// Processes with GPUs add up from one to the other, if they can.
#[cfg(feature = "train-cuda")]
fn together(tcp: Tcp, device: &Device) -> Result<Box<dyn Peers>> {
    Nccl::join(tcp, device)
}

#[cfg(not(feature = "train-cuda"))]
fn together(tcp: Tcp, _: &Device) -> Result<Box<dyn Peers>> {
    Ok(Box::new(tcp))
}

/// Told when the recipe is not the one of the checkpoint.
fn other_recipe(progress: &Progress, now: &str) -> Option<Event> {
    let (mut was, mut now) = (progress.recipe.lines(), now.lines());
    loop {
        match (was.next(), now.next()) {
            (None, None) => return None,
            (was, now) if was != now => {
                let line = |line: Option<&str>| line.unwrap_or_default().to_string();
                return Some(Event::Recipe { step: progress.step, was: line(was), now: line(now) });
            }
            _ => {}
        }
    }
}

/// One optimiser group a parameter: decay as the plan says, the dynamics (A, Δ) at their own rate.
fn groups(plan: &Plan, weights: &Weights, dynamics_rate: f32) -> Vec<Group> {
    let dynamics: Vec<_> = plan
        .ops
        .iter()
        .filter_map(|op| match &op.kind {
            OpKind::Scan(scan) => {
                let step = match scan.dynamics {
                    Dynamics::Invariant { log_dt, .. } => Some(log_dt),
                    Dynamics::Selective => None,
                };
                Some([Some(scan.a_log), scan.a_imag, step])
            }
            _ => None,
        })
        .flatten()
        .flatten()
        .collect();
    let group = |(i, (param, values)): (usize, (&Param, &Vec<f32>))| {
        let group = Group::new(&param.name, values);
        let group = if param.decay { group } else { group.no_decay() };
        if dynamics.iter().any(|id| id.0 == i) { group.rate(dynamics_rate) } else { group }
    };
    plan.params.iter().zip(weights.tensors()).enumerate().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_tells_of_each_beginning_once() {
        let about = About { data: "Birds.".into(), licence: "MIT".into() };
        let weights = Weights::new(&plan(), vec![vec![1.0; 2]]).unwrap();
        let card = |data: String| Card { name: "x".into(), data, licence: "MIT".into(), ..Card::default() };
        let hash = &hash_of(&weights).to_hex()[..16];
        let first = begun_from(&card("Bells.".into()), &weights, &about);
        assert_eq!(first, format!(" Begun with the weights of x (Bells.; licence: MIT), BLAKE3 {hash}."));
        let second = begun_from(&card(format!("Birds.{first}")), &weights, &about);
        let same = format!(" Begun with the weights of x, of the same data and licence, BLAKE3 {hash}.");
        assert_eq!(second, format!("{same}{first}"));
        let third = begun_from(&card(format!("Birds.{second}")), &weights, &about);
        assert_eq!(third, format!("{same}{same}{first}"));
        let more = begun_from(&card("Birds. And bells.".into()), &weights, &about);
        assert!(more.contains("(Birds. And bells.; licence: MIT)"), "{more}");
        let unsaid = begun_from(&card("Bells.".into()), &weights, &About::default());
        assert!(unsaid.contains("(Bells.; licence: MIT)"), "{unsaid}");
    }

    fn plan() -> Plan {
        let mut b = crate::plan::PlanBuilder::new();
        let x = b.embed("embedding", 2, 1).unwrap();
        b.build(x).unwrap()
    }
}
