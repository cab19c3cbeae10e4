//! The scan: the selective one, split over length (see `kernels/scan.cuh` for what each kernel does), and the choice between it and [`invariant`].

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{Result, Tensor, bail};

use super::super::scan::ScanShape;
use super::call::{
    Kernels, Launch, SHARED, each, kernels, launch, launch_on, multiprocessors, room, tensor, with_all,
};
use super::invariant;
use super::linear::sum;

const FORWARD: Kernels = kernels!("scan_forward");
const RELAY: Kernels = kernels!("scan_relay");
const BACKWARD: Kernels = kernels!("scan_backward");

/// Rows whose B and C a block stages together, twice.
const STAGED: usize = 16;
/// Rows of a segment, at least: shorter ones cost more than they fill.
const LEAST: usize = 64;
/// Blocks of 128 threads that a multiprocessor holds, by the kernels' registers.
const RESIDENT: usize = 3;
/// States a channel, at most: more lanes a channel than a warp has are not met before. (A GPU with less shared memory than an A100 or
/// H100 may refuse the largest, see `launch_on`.)
const MOST_STATES: usize = 64;

/// Rows from one saved state to the next.
const CHUNK: usize = 16;

/// How the rows of a call are cut: the segments of all streams and channels fill the chip once.
#[derive(Clone, Copy, Debug)]
struct Cut {
    rows: usize,
    segments: usize,
}

impl Cut {
    /// For `blocks` blocks a segment, `resident` of which a multiprocessor holds.
    fn new(multiprocessors: usize, t: usize, (blocks, resident): (usize, usize)) -> Self {
        let wanted = (multiprocessors * resident / blocks).clamp(1, t.div_ceil(LEAST));
        let rows = t.div_ceil(wanted).next_multiple_of(CHUNK);
        Self { rows, segments: t.div_ceil(rows) }
    }
}

/// A kernel that walks rows with K states of a channel a lane, or of two channels.
struct Walk {
    name: String,
    /// Lanes that share a channel.
    lanes: usize,
    blocks: usize,
    threads: usize,
    /// Bytes of shared memory: the staged B, C or both.
    staged: usize,
}

impl Walk {
    /// `kernel` is scan_ends, scan_rows or back_ends.
    fn new(kernel: &str, shape: ScanShape) -> Self {
        let (rows, back) = (kernel == "scan_rows", kernel == "back_ends");
        let k = match shape.complex {
            true => 8,
            false if shape.n <= 4 => 4,
            false if back => 8,
            false => 16,
        };
        let lanes = shape.n.div_ceil(k).next_power_of_two();
        let two = rows && k == 16 && lanes == 1 && shape.d.is_multiple_of(64);
        let of_warp = 32 / lanes * if two { 2 } else { 1 };
        let warps = shape.d.div_ceil(of_warp).min(4);
        let name = format!("{kernel}_{}_{k}{}", variant(shape), if two { "x2" } else { "" });
        let (parts, numbers) = (if rows { 2 } else { 1 }, shape.numbers());
        let staged = 2 * STAGED * parts * k * lanes * numbers * size_of::<f32>();
        Self { name, lanes, blocks: shape.d.div_ceil(of_warp * warps), threads: 32 * warps, staged }
    }

    /// How rows are cut for `RESIDENT` times 128 threads of this a multiprocessor.
    fn cut(&self, multiprocessors: usize, (streams, t): (usize, usize)) -> Cut {
        Cut::new(multiprocessors, t, (self.blocks * streams, RESIDENT * 128 / self.threads))
    }

    fn launch(&self, segments: usize, streams: usize) -> Launch {
        Launch { grid: [self.blocks, segments, streams], block: [self.threads, 1], shared: self.staged }
    }
}

/// The forward without segments, by warps that take turns: real states, where streams and channels alone nearly fill the chip and
/// segments would be needed otherwise.
pub(super) struct Relay {
    blocks: usize,
    warps: usize,
}

impl Relay {
    /// Channels of a block, and its states of each at most.
    const WIDE: usize = 16;
    /// Rows of a warp's turn; tiles of so many, the one it is at and those under way.
    const ROWS: usize = 8;
    const TILES: usize = 3;
    /// Warps of a multiprocessor, by the kernel's registers; of a block, at least.
    const WARPS: usize = 12;
    const LEAST_WARPS: usize = 3;

    /// None where segments are better, or sixteen bytes are not whole channels and states.
    pub(super) fn new(
        multiprocessors: usize,
        shape: ScanShape,
        (streams, t): (usize, usize),
    ) -> Option<Self> {
        let cut = Walk::new("scan_rows", shape).cut(multiprocessors, (streams, t));
        let fits = !shape.complex && (5..=Self::WIDE).contains(&shape.n);
        let whole = shape.n.is_multiple_of(4) && shape.d.is_multiple_of(4);
        let blocks = shape.d.div_ceil(Self::WIDE);
        let (all, most) = (blocks * streams, Self::WARPS / Self::LEAST_WARPS);
        let resident = all.div_ceil(multiprocessors).min(most);
        let (places, warps) = (resident * multiprocessors, Self::WARPS / resident);
        let filled = 4 * streams * shape.d >= 3 * Self::WIDE * places * all.div_ceil(places);
        (cut.segments > 1 && fits && whole && filled && t >= 4 * warps * Self::ROWS)
            .then_some(Self { blocks, warps })
    }

    fn launch(&self, streams: usize) -> Launch {
        let tile = Self::ROWS * 4 * Self::WIDE * size_of::<f32>();
        let shared = self.warps * (64 * 16 + Self::TILES * tile);
        Launch { grid: [self.blocks, 1, streams], block: [32 * self.warps, 1], shared }
    }
}

fn variant(shape: ScanShape) -> String {
    format!("{}_selective", if shape.complex { "complex" } else { "real" })
}

/// The states in which segments begin, from their own last states in `ends`.
fn carry(
    device: &CudaDevice,
    shape: ScanShape,
    (params, initial, sums): (&CudaView<'_, f32>, &CudaView<'_, f32>, &CudaView<'_, f32>),
    ends: &mut CudaSlice<f32>,
    (streams, t, cut, stride, back): (usize, usize, Cut, usize, bool),
) -> Result<()> {
    let name = format!("scan_carry_{}", variant(shape));
    let grid = Launch { grid: [(shape.n * shape.d).div_ceil(128), streams, 1], block: [128, 1], shared: 0 };
    let sizes = [t, shape.d, shape.n, cut.rows, cut.segments, stride, usize::from(back)];
    let results = &mut [&mut ends.slice_mut(..)];
    launch_on(device, (&FORWARD, &name), grid, &[params, initial, sums], results, &sizes)
}

/// Refuses what the kernels are not made for.
fn check(shape: ScanShape, streams: usize) -> Result<()> {
    if shape.n > MOST_STATES || streams == 0 {
        bail!(
            "scan on the GPU: expected at most {MOST_STATES} states a channel and a stream, got {} and {streams} streams",
            shape.n
        );
    }
    Ok(())
}

/// y and the last and saved states of `t` rows a stream.
pub fn forward(shape: ScanShape, given: [&Tensor; 3], sizes: (usize, usize)) -> Result<(Tensor, Tensor)> {
    check(shape, sizes.0)?;
    if !shape.selective {
        return invariant::forward(shape, given, sizes);
    }
    // Rows that begin where a view does, not where memory was given, are not copied by sixteen bytes.
    let aligned = given[0].layout().start_offset().is_multiple_of(4);
    with_all(given, |device, [rows, params, h0]| run(device, shape, [&rows, &params, &h0], sizes, aligned))
}

fn run(
    device: &CudaDevice,
    shape: ScanShape,
    [rows, params, h0]: [&CudaView<'_, f32>; 3],
    (streams, t): (usize, usize),
    aligned: bool,
) -> Result<(Tensor, Tensor)> {
    let (walk, ends_walk) = (Walk::new("scan_rows", shape), Walk::new("scan_ends", shape));
    let (state, kept) = (shape.state_rows() * shape.d, shape.states_len(t, CHUNK));
    let (mut y, mut states) = (room(device, streams * t * shape.d)?, room(device, streams * kept)?);
    let multiprocessors = multiprocessors(device)?;
    let cut = walk.cut(multiprocessors, (streams, t));
    if let (true, Some(relay)) = (aligned, Relay::new(multiprocessors, shape, (streams, t))) {
        let name = format!("scan_relay_{}", variant(shape));
        let results = &mut [&mut y.slice_mut(..), &mut states.slice_mut(..)];
        let sizes = [t, shape.d, shape.n, t * shape.d, kept];
        launch_on(device, (&RELAY, &name), relay.launch(streams), &[rows, params, h0], results, &sizes)?;
        return Ok((tensor(y, device, (streams, t, shape.d)), tensor(states, device, (streams, kept))));
    }
    let sizes = |lanes| [t, shape.d, shape.n, lanes, cut.rows, cut.segments];
    let mut starts = None;
    if cut.segments > 1 {
        let mut ends = room(device, streams * cut.segments * state)?;
        let mut sums = room(device, streams * cut.segments * shape.numbers() * shape.d)?;
        let (grid, sizes) = (ends_walk.launch(cut.segments - 1, streams), sizes(ends_walk.lanes));
        let results = &mut [&mut ends.slice_mut(..), &mut sums.slice_mut(..)];
        launch_on(device, (&FORWARD, &ends_walk.name), grid, &[rows, params], results, &sizes)?;
        carry(device, shape, (params, h0, &sums.slice(..)), &mut ends, (streams, t, cut, state, false))?;
        starts = Some(ends);
    }
    let begin = starts.as_ref().map_or_else(|| h0.slice(..), |starts| starts.slice(..));
    let grid = walk.launch(cut.segments, streams);
    let sizes = [sizes(walk.lanes).as_slice(), &[t * shape.d, kept]].concat();
    let results = &mut [&mut y.slice_mut(..), &mut states.slice_mut(..)];
    launch_on(device, (&FORWARD, &walk.name), grid, &[rows, params, &begin], results, &sizes)?;
    Ok((tensor(y, device, (streams, t, shape.d)), tensor(states, device, (streams, kept))))
}

/// Threads of a block of `back_rows` and its shared memory: columns of states, B and C of a chunk, their gradients by warp.
fn back_block(shape: ScanShape) -> (usize, usize) {
    let r = shape.state_rows();
    let bytes = |threads: usize| {
        size_of::<f32>() * (r * (3 * threads + 2 * (CHUNK + 4) + threads + 1) + CHUNK * threads)
    };
    let threads = [128, 64, 32].into_iter().find(|threads| bytes(*threads) <= SHARED).unwrap_or(32);
    let threads = threads.min(shape.d.next_multiple_of(32));
    (threads, bytes(threads))
}

/// Gradients of rows, params and h₀ from (rows, params, h₀, states, gradients of y and of the final state).
pub fn backward(shape: ScanShape, given: [&Tensor; 6], (streams, t): (usize, usize)) -> Result<[Tensor; 3]> {
    check(shape, streams)?;
    if !shape.selective {
        return invariant::backward(shape, given, (streams, t));
    }
    let (d, n, r) = (shape.d, shape.n, shape.state_rows());
    let (threads, shared) = back_block(shape);
    let (walk, blocks, state) = (Walk::new("back_ends", shape), d.div_ceil(threads), r * d);
    let kept = shape.states_len(t, CHUNK);
    with_all(given, |device, [rows, params, h0, states, grad, end]| {
        let resident = if shape.complex { 2 } else { RESIDENT } * 128 / threads;
        let cut = Cut::new(multiprocessors(device)?, t, (blocks * streams, resident));
        let mut starts = room(device, streams * cut.segments * state)?;
        let mut sums = room(device, streams * cut.segments * shape.numbers() * d)?;
        if cut.segments > 1 {
            let sizes = [t, d, n, walk.lanes, cut.rows, cut.segments, t * d];
            let grid = walk.launch(cut.segments - 1, streams);
            let results = &mut [&mut starts.slice_mut(..), &mut sums.slice_mut(..)];
            launch_on(device, (&FORWARD, &walk.name), grid, &[&rows, &params, &grad], results, &sizes)?;
        }
        carry(device, shape, (&params, &end, &sums.slice(..)), &mut starts, (streams, t, cut, state, true))?;

        let count = streams * t * 2 * r;
        let (mut grows, mut gh0) = (room(device, rows.len())?, room(device, h0.len())?);
        let mut mix = room(device, blocks * count)?;
        let mut gparams = room(device, streams * cut.segments * params.len())?;
        let inputs = [&rows, &params, &h0, &states, &grad, &starts.slice(..)];
        let sizes = [t, d, n, cut.rows, cut.segments, kept, t * d];
        let grid = Launch { grid: [blocks, cut.segments, streams], block: [threads, 1], shared };
        let [mut a, mut b, mut c, mut e] =
            [&mut grows, &mut mix, &mut gparams, &mut gh0].map(|x| x.slice_mut(..));
        let results = &mut [&mut a, &mut b, &mut c, &mut e];
        launch_on(
            device,
            (&BACKWARD, &format!("back_rows_{}", variant(shape))),
            grid,
            &inputs,
            results,
            &sizes,
        )?;
        let (inputs, results) = ([&mix.slice(..)], &mut [&mut grows]);
        launch(device, (&BACKWARD, "scan_mix"), each(count), &inputs, results, &[count, d, r, blocks])?;
        let gparams = sum(device, &gparams.slice(..), params.len())?;
        let [rows, params, h0] = [given[0], given[1], given[2]].map(Tensor::shape);
        Ok([tensor(grows, device, rows), tensor(gparams, device, params), tensor(gh0, device, h0)])
    })
}
