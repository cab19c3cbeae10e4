//! A training run from its recipe to a model file: steps, validations, checkpoints, the log.
//!
//! ```text
//! task ─► examples ─► candle on the plan ─► loss ─► gradient ─► AdamW ─► weights, their moving average ─► model file
//! ```

mod event;
mod open;

pub use event::{Event, Files};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Device;

use super::adamw::{AdamW, StepReport};
#[cfg(feature = "train-cuda")]
use super::ahead::Ahead;
#[cfg(feature = "train-cuda")]
use super::batch::Graph;
use super::batch::{Step, Worker, mean, sums};
use super::begins::{Begins, Settling};
use super::checkpoint::{self, Progress};
#[cfg(feature = "train-cuda")]
use super::learner::Learner;
use super::log;
use super::peers::{Peers, Place};
use super::recipe::{Lesson, Recipe, Store};
use super::task::{Filter, Generator, Recall, Task, Validation};
use crate::audio::could_be_folder;
use crate::exec::State;
use crate::exec::candle::{CandleModel, CandleState, Dropout};
use crate::model::filter::keep_dry;
use crate::model::{Card, Config, Model};
use crate::plan::{Plan, Weights};
use crate::{Error, Result};

/// How a run is started.
pub struct RunOptions<'a> {
    /// Where checkpoint, log and model go.
    pub out: PathBuf,
    /// Continue from the checkpoint there, if there is one.
    pub resume: bool,
    /// A model of the same shape to begin with, where there is no checkpoint; random weights without it.
    pub from: Option<Model>,
    /// Stop, with a checkpoint, after so many minutes.
    pub minutes: Option<f64>,
    /// Where the model learns: the CPU, or a GPU.
    pub device: Device,
    /// Threads; all cores without it.
    pub threads: Option<usize>,
    /// Which of the processes that train together this is; alone without it.
    pub place: Option<Place>,
    /// The commit of this program, for the card.
    pub commit: String,
    /// When set from elsewhere, the run stops after the step with a checkpoint.
    pub stop: Arc<AtomicBool>,
    /// Told what happens.
    pub observe: &'a mut dyn FnMut(&Event),
}

impl<'a> RunOptions<'a> {
    /// A run from its beginning to its end, alone, on all cores or on a GPU.
    pub fn new(out: PathBuf, device: Device, observe: &'a mut dyn FnMut(&Event)) -> Self {
        Self {
            out,
            resume: false,
            from: None,
            minutes: None,
            device,
            threads: None,
            place: None,
            commit: String::new(),
            stop: Arc::default(),
            observe,
        }
    }
}

/// Trains as the recipe says; returns the model of the averaged weights, which is also written to the run's folder. Among processes
/// that train together that of rank 0 does so; the others return nothing.
pub fn train(recipe: &Recipe, options: &mut RunOptions<'_>) -> Result<Option<Model>> {
    could_be_folder(&options.out)?;
    let plan = recipe.model.plan()?;
    open::divides(recipe, options)?;
    let threads =
        options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())).max(1);
    match recipe.lesson()? {
        Lesson::Filter(model, mix, loss) => {
            let task = Filter::read(recipe, (model, &mix, loss), &plan, threads)?;
            through(Run::open(recipe, task, plan, threads, options)?, options)
        }
        Lesson::Generator(model, clips) => {
            let task = Generator::read(recipe, (model, &clips), &plan, threads)?;
            through(Run::open(recipe, task, plan, threads, options)?, options)
        }
        Lesson::Recall(model, recall) => {
            let task = Recall::new(recipe, model, recall, threads);
            through(Run::open(recipe, task, plan, threads, options)?, options)
        }
    }
}

/// Takes a run to its end, or to where it is stopped.
fn through<T: Task>(mut run: Run<'_, T>, options: &mut RunOptions<'_>) -> Result<Option<Model>> {
    let recipe = run.recipe;
    let begun = Instant::now();
    let (mut saved, mut judged) = (Instant::now(), None);
    while run.progress.step < recipe.schedule.steps && !run.wishes.stop {
        let late = options.minutes.is_some_and(|m| begun.elapsed().as_secs_f64() > m * 60.0);
        let stop = late || options.stop.load(Ordering::Relaxed);
        if stop && run.peers.world() == 1 {
            break;
        }
        let save = run.leads() && saved.elapsed().as_secs_f64() > recipe.run.checkpoint_minutes * 60.0;
        let event = run.step(Wishes { stop, save }).map_err(|error| run.broken(error))?;
        if run.leads() {
            run.tell(options, &event)?;
            if run.progress.step.is_multiple_of(recipe.run.valid_every) {
                judged = Some((run.progress.step, run.judge(options)?));
            }
        }
        if run.wishes.save {
            run.save(options).map_err(|error| run.broken(error))?;
            saved = Instant::now();
        }
    }
    run.save(options).map_err(|error| run.broken(error))?;
    // Nobody leaves while another is still adding up.
    run.peers.sum(&mut [0.0])?;
    if !run.leads() {
        return Ok(None);
    }
    let figures = match judged {
        Some((step, figures)) if step == run.progress.step => figures,
        _ => run.judge(options)?,
    };
    let model = run.model(options, figures)?;
    model.save(&run.files.model)?;
    Ok(Some(model))
}

/// Who makes a step's examples.
enum Makes<T: Task> {
    /// Each thread its own, as it goes: the CPU has nothing else to do.
    Workers(Vec<Worker<T>>),
    /// Threads ahead of the GPU, which judges and learns.
    #[cfg(feature = "train-cuda")]
    Ahead(Ahead<T::Row>, T::Judge, Box<Learner>),
}

/// What a step is given.
struct Drawn {
    /// Its first example's index.
    first: u64,
    rate: f32,
    dropout: Dropout,
    /// What this process wants after it.
    wishes: Wishes,
}

/// What is to follow a step, if one process wants it.
#[derive(Clone, Copy, Default)]
struct Wishes {
    /// It is the last.
    stop: bool,
    /// A checkpoint.
    save: bool,
}

impl Wishes {
    /// As they are summed over processes, behind the losses.
    fn numbers(self) -> [f32; 2] {
        [f32::from(self.stop), f32::from(self.save)]
    }

    /// What such sums end with.
    fn told(sums: &[f32]) -> Self {
        let wanted = |from_end: usize| sums.iter().rev().nth(from_end).is_some_and(|sum| *sum > 0.0);
        Self { stop: wanted(1), save: wanted(0) }
    }
}

struct Run<'a, T: Task> {
    recipe: &'a Recipe,
    task: T,
    plan: Plan,
    files: Files,
    makes: Makes<T>,
    /// Of sound in a step.
    seconds: f64,
    model: CandleModel,
    weights: Weights,
    optimiser: AdamW,
    begins: Begins,
    progress: Progress,
    peers: Box<dyn Peers>,
    /// What processes wanted after the last step.
    wishes: Wishes,
    /// Seconds that the last step waited for its examples.
    waited: f64,
    /// Whether there is a checkpoint of this run.
    saved: bool,
}

impl<T: Task> Run<'_, T> {
    /// An error in the middle, with where the run can be taken up again.
    fn broken(&self, error: Error) -> Error {
        match error {
            Error::Train(text) if self.saved => {
                let at = self.files.checkpoint.display();
                Error::Train(format!("step {}: {text}; {at} is whole, --resume goes on", self.progress.step))
            }
            other => other,
        }
    }

    /// Whether this process validates and writes.
    fn leads(&self) -> bool {
        self.peers.rank() == 0
    }

    /// One step, and what this process wants to follow it.
    fn step(&mut self, wishes: Wishes) -> Result<Event> {
        let start = Instant::now();
        let (run, number) = (&self.recipe.run, self.progress.step);
        let first = number * run.batch as u64;
        let settling = settling(self.recipe);
        if self.begins.settles_at(number) {
            self.read_back()?;
        }
        self.begins.refresh(number, &self.plan, &self.weights, settling)?;
        let rate = self.recipe.schedule.at(number);
        let dropout = Dropout { seed: self.recipe.seed, step: number, first_stream: 0 };
        let (told, report, first_graph, ends) = self.learn(&Drawn { first, rate, dropout, wishes })?;
        let mean = mean(&told, run.batch);
        self.wishes = Wishes::told(&told);
        self.begins.keep(first_graph, ends, mean.total);
        let (loss, parts) = T::told(&mean);
        self.progress.step += 1;
        let spent = start.elapsed().as_secs_f64();
        self.progress.seconds += spent;
        Ok(Event::Step {
            step: number,
            steps: self.recipe.schedule.steps,
            loss,
            parts,
            rate,
            report,
            waited: self.waited,
            speed: self.seconds / spent,
            seconds: self.progress.seconds,
        })
    }

    /// Learns from a step's examples: what all processes tell of them, the optimiser's report, where this process's graphs ended
    /// and the number of the first of these.
    fn learn(&mut self, drawn: &Drawn) -> Result<(Vec<f32>, StepReport, usize, Vec<CandleState>)> {
        let (run, first) = (&self.recipe.run, drawn.first);
        let step =
            Step { model: &self.model, begins: &self.begins, dropout: drawn.dropout, segment: run.segment };
        let (rank, world) = (self.peers.rank(), self.peers.world());
        // What processes tell each other beside the gradient: the losses' sums, and how many of them want what.
        let wishes = drawn.wishes.numbers();
        match &mut self.makes {
            Makes::Workers(workers) => {
                let share = run.batch / run.group / world;
                let graphs = rank * share..(rank + 1) * share;
                let mut got = step.gradient(workers, first, graphs, run.group)?;
                got.flat.extend(sums(&got.values));
                got.flat.extend(wishes);
                self.peers.sum(&mut got.flat)?;
                let (grads, told) = got.flat.split_at_mut(self.model.layout().len());
                let mean = 1.0 / run.batch as f32;
                grads.iter_mut().for_each(|g| *g *= mean);
                let mut weights: Vec<&mut [f32]> =
                    self.weights.tensors_mut().iter_mut().map(Vec::as_mut_slice).collect();
                let grads: Vec<&[f32]> = self.model.layout().ranges().map(|r| &grads[r]).collect();
                let report = self.optimiser.step(drawn.rate, &mut weights, &grads)?;
                self.model.load(&self.weights)?;
                Ok((told.to_vec(), report, rank * share, got.ends))
            }
            #[cfg(feature = "train-cuda")]
            Makes::Ahead(ahead, judge, learner) => {
                let asked = Instant::now();
                let examples = ahead.take()?;
                self.waited = asked.elapsed().as_secs_f64();
                let own = first + (rank * examples.count()) as u64;
                let graph = step.graph(judge, &examples, rank, own);
                if graph.is_err() {
                    // The examples are filled again, which the device may still be copying.
                    let _ = self.model.device().synchronize();
                }
                let Graph { verdict, flat, end } = graph?;
                if world == 1 {
                    // The losses are asked for last, so that nothing waits for them.
                    let report = learner.step(&mut self.model, &flat, drawn.rate, run.batch)?;
                    let told = [sums(&verdict.values()?), wishes.to_vec()].concat();
                    return Ok((told, report, rank, vec![end]));
                }
                // The losses go first: who has left is found out before the sum that all wait in.
                let mut told = sums(&verdict.values()?);
                told.extend(wishes);
                self.peers.sum(&mut told)?;
                let flat = self.peers.sum_tensor(flat)?;
                let report = learner.step(&mut self.model, &flat, drawn.rate, run.batch)?;
                Ok((told, report, rank, vec![end]))
            }
        }
    }

    /// Brings weights and optimiser from where the model learns.
    fn read_back(&mut self) -> Result<()> {
        #[cfg(feature = "train-cuda")]
        if let Makes::Ahead(_, _, learner) = &self.makes {
            self.weights = self.model.export()?;
            learner.read_into(self.model.layout(), &mut self.optimiser)?;
        }
        self.progress.optimiser_steps = self.optimiser.steps();
        Ok(())
    }

    /// The weights' moving average, with the dry share and rounded as the recipe asks for: what is validated and saved.
    fn averaged(&self) -> Result<Weights> {
        let averages = self.optimiser.groups().iter().map(|g| g.ema().to_vec()).collect();
        let mut weights = Weights::new(&self.plan, averages)?;
        match &self.recipe.model {
            Config::Filter(filter) if self.recipe.run.dry != 0.0 => {
                keep_dry(filter, &self.plan, &mut weights, self.recipe.run.dry)?;
            }
            _ => {}
        }
        if self.recipe.run.store == Store::F16 {
            weights.round_to_f16();
        }
        Ok(weights)
    }

    /// Where a user's stream begins, if the recipe asks for another place than zeros.
    fn settled(&self, weights: &Weights) -> Result<Option<State>> {
        let settling = settling(self.recipe);
        (settling.seconds > 0).then(|| settling.run(&self.plan, weights)).transpose()
    }

    /// Validates, and tells of it.
    fn judge(&mut self, options: &mut RunOptions<'_>) -> Result<Validation> {
        self.read_back()?;
        let weights = self.averaged()?;
        let settled = self.settled(&weights)?;
        let figures = self.task.validate(&self.plan, &weights, settled.as_ref())?;
        self.tell(options, &Event::Valid { step: self.progress.step, figures })?;
        Ok(figures)
    }

    /// Writes a checkpoint; all processes call this together, for it has the states of all.
    fn save(&mut self, options: &mut RunOptions<'_>) -> Result<()> {
        self.begins.gather(&self.plan, self.peers.as_mut())?;
        if !self.leads() {
            return Ok(());
        }
        self.read_back()?;
        let heard = self.begins.state(&self.plan)?;
        let (to, plan) = (&self.files.checkpoint, &self.plan);
        let limit = match self.recipe.run.checkpoint_mib {
            0 => usize::MAX,
            mib => mib.saturating_mul(1 << 20),
        };
        checkpoint::save(to, plan, &self.weights, &self.optimiser, &heard, &self.progress, limit)?;
        self.saved = true;
        self.tell(options, &Event::Saved { step: self.progress.step })
    }

    fn model(&self, options: &RunOptions<'_>, figures: Validation) -> Result<Model> {
        let weights = self.averaged()?;
        let settled = self.settled(&weights)?.map(|state| state.slots);
        let spent = [("steps", self.progress.step as f64), ("hours", self.progress.seconds / 3600.0)];
        let card = Card {
            name: self.recipe.name.clone(),
            recipe: self.recipe.to_text(),
            data: format!("{}{}", self.recipe.about.data, self.progress.begun_from),
            licence: self.recipe.about.licence.clone(),
            seed: self.recipe.seed,
            commit: options.commit.clone(),
            figures: spent
                .into_iter()
                .chain(figures.named())
                .map(|(name, x)| (name.to_string(), x))
                .collect(),
        };
        let mut model = Model::new(self.recipe.model.clone(), weights, card)?;
        model.settled = settled;
        Ok(model)
    }

    /// Passes an event on and adds it to the log.
    fn tell(&self, options: &mut RunOptions<'_>, event: &Event) -> Result<()> {
        (options.observe)(event);
        log::add(&self.files.log, event)
    }
}

fn settling(recipe: &Recipe) -> Settling {
    Settling { rate: recipe.model.rate().unwrap_or(1) as usize, seconds: recipe.run.settle_seconds }
}
