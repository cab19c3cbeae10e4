//! The time-invariant scan by chunks of rows, as sums of products: see `kernels/invariant.cu` for what each kernel does.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, CudaViewMut};
use candle_core::{Result, Tensor};

use super::super::scan::ScanShape;
use super::call::{Kernels, Launch, kernels, launch_on, multiprocessors, room, tensor, with_all};
use super::linear::sum;

const KERNELS: Kernels = kernels!("invariant");

/// Rows of a chunk, and from one saved state to the next.
const CHUNK: usize = 32;
/// Channels of a block.
const LANES: usize = 16;
/// Numbers of a state, or rows, that a block takes.
const TILE: usize = 16;
/// Chunks that a block takes at once.
const AT_ONCE: usize = 64;
/// Chunks that a block of `invariant_sums` stages, twice, and numbers of one: its rows, 2·TILE numbers of a state, and a gap.
const STAGED: usize = 8;
const PITCH: usize = (CHUNK + 2 * TILE) * LANES + LANES;

/// A call's sizes, on a device.
struct Call<'a> {
    device: &'a CudaDevice,
    shape: ScanShape,
    streams: usize,
    t: usize,
    /// Of a stream, of all, and the rows of a stream's last.
    chunks: usize,
    count: usize,
    last: usize,
    multiprocessors: usize,
}

/// What the parameters come to over a chunk.
struct Tables {
    into: CudaSlice<f32>,
    out: CudaSlice<f32>,
    decays: CudaSlice<f32>,
    lags: CudaSlice<f32>,
}

impl<'a> Call<'a> {
    fn new(device: &'a CudaDevice, shape: ScanShape, (streams, t): (usize, usize)) -> Result<Self> {
        let chunks = t.div_ceil(CHUNK);
        let (count, last) = (streams * chunks, t - (chunks - 1) * CHUNK);
        Ok(Self { device, shape, streams, t, chunks, count, last, multiprocessors: multiprocessors(device)? })
    }

    /// Numbers of a state.
    fn state(&self) -> usize {
        self.shape.state_rows() * self.shape.d
    }

    /// d, n and whether numbers are complex.
    fn poles(&self) -> [usize; 3] {
        [self.shape.d, self.shape.n, usize::from(self.shape.complex)]
    }

    /// Rows, channels, numbers of a state, chunks of a stream and of all.
    fn rows(&self) -> [usize; 5] {
        [self.t, self.shape.d, self.shape.state_rows(), self.chunks, self.count]
    }

    /// Shares of the chunks, for `blocks` blocks a share, `resident` of which a multiprocessor holds.
    fn shares(&self, blocks: usize, resident: usize) -> usize {
        (self.multiprocessors * resident / blocks).clamp(1, self.count.div_ceil(AT_ONCE))
    }

    fn launch(
        &self,
        name: &str,
        launch: ([usize; 3], [usize; 2], usize),
        inputs: &[&CudaView<'_, f32>],
        results: &mut [&mut CudaViewMut<'_, f32>],
        sizes: &[usize],
    ) -> Result<()> {
        let (grid, block, shared) = launch;
        launch_on(self.device, (&KERNELS, name), Launch { grid, block, shared }, inputs, results, sizes)
    }

    /// A grid of a thread a state of a channel, `streams` times.
    fn by_pole(&self, streams: usize) -> ([usize; 3], [usize; 2], usize) {
        ([(self.shape.n * self.shape.d).div_ceil(128), streams, 1], [128, 1], 0)
    }

    fn tables(&self, params: &CudaView<'_, f32>) -> Result<Tables> {
        let (state, d) = (self.state(), self.shape.d);
        let (mut into, mut out) = (room(self.device, CHUNK * state)?, room(self.device, CHUNK * state)?);
        let mut decays = room(self.device, 4 * state)?;
        let mut shares = room(self.device, self.shape.n * CHUNK * d)?;
        let [mut a, mut b, mut c, mut e] =
            [&mut into, &mut out, &mut decays, &mut shares].map(|x| x.slice_mut(..));
        let sizes = [self.poles().as_slice(), &[self.last]].concat();
        let results = &mut [&mut a, &mut b, &mut c, &mut e];
        self.launch("invariant_tables", self.by_pole(1), &[params], results, &sizes)?;
        let lags = sum(self.device, &shares.slice(..), CHUNK * d)?;
        Ok(Tables { into, out, decays, lags })
    }

    /// Each chunk's own share of its last state, or of the gradient of its first.
    fn shares_of_states(
        &self,
        x: &CudaView<'_, f32>,
        table: &CudaSlice<f32>,
        back: bool,
    ) -> Result<CudaSlice<f32>> {
        let (columns, tiles) = (self.shape.d.div_ceil(LANES), self.shape.state_rows().div_ceil(TILE));
        let mut states = room(self.device, self.count * self.state())?;
        let grid = ([columns, tiles, self.shares(columns * tiles, 2)], [32, 4], 0);
        let sizes = [self.rows().as_slice(), &[usize::from(!back)]].concat();
        let results = &mut [&mut states.slice_mut(..)];
        self.launch("invariant_in", grid, &[x, &table.slice(..)], results, &sizes)?;
        Ok(states)
    }

    /// y, or the gradient of u.
    fn out(&self, name: &str, inputs: &[&CudaView<'_, f32>]) -> Result<CudaSlice<f32>> {
        let (columns, tiles) = (self.shape.d.div_ceil(LANES), CHUNK / TILE);
        let numbers = self.shape.state_rows().next_multiple_of(4);
        let shared = size_of::<f32>() * LANES * (TILE * numbers + TILE + CHUNK);
        let mut y = room(self.device, self.streams * self.t * self.shape.d)?;
        // Of 228 KiB a multiprocessor.
        let resident = if shared > 112 << 10 { 1 } else { 2 };
        let grid = ([columns, tiles, self.shares(columns * tiles, resident)], [32, 4], shared);
        self.launch(name, grid, inputs, &mut [&mut y.slice_mut(..)], &self.rows())?;
        Ok(y)
    }

    /// The gradient of a table: over all chunks, rows times states.
    fn table_back(&self, inputs: &[&CudaView<'_, f32>], from_last: bool) -> Result<CudaSlice<f32>> {
        let len = CHUNK * self.state();
        let (columns, tiles) = (self.shape.d.div_ceil(LANES), self.shape.state_rows().div_ceil(2 * TILE));
        let shares = self.shares(columns * tiles, 1);
        let mut part = room(self.device, shares * len)?;
        let sizes = [self.rows().as_slice(), &[usize::from(from_last)]].concat();
        let results = &mut [&mut part.slice_mut(..)];
        let grid = ([columns, tiles, shares], [32, 8], 2 * STAGED * PITCH * size_of::<f32>());
        self.launch("invariant_sums", grid, inputs, results, &sizes)?;
        sum(self.device, &part.slice(..), len)
    }

    /// The gradient of K.
    fn lags_back(&self, u: &CudaView<'_, f32>, gy: &CudaView<'_, f32>) -> Result<CudaSlice<f32>> {
        let (len, columns) = (CHUNK * self.shape.d, self.shape.d.div_ceil(LANES));
        let shares = self.shares(columns, 4);
        let mut part = room(self.device, 4 * shares * len)?;
        let sizes = [self.t, self.shape.d, self.chunks, self.count];
        let results = &mut [&mut part.slice_mut(..)];
        self.launch("invariant_lags_back", ([columns, shares, 1], [32, 4], 0), &[u, gy], results, &sizes)?;
        sum(self.device, &part.slice(..), len)
    }
}

/// y and the last and saved states.
pub fn forward(shape: ScanShape, given: [&Tensor; 3], sizes: (usize, usize)) -> Result<(Tensor, Tensor)> {
    with_all(given, |device, [u, params, h0]| {
        let call = Call::new(device, shape, sizes)?;
        let Tables { into, out, decays, lags } = call.tables(&params)?;
        let mut states = call.shares_of_states(&u, &into, false)?;
        let carry = [call.poles().as_slice(), &[call.chunks]].concat();
        let results = &mut [&mut states.slice_mut(..)];
        let grid = call.by_pole(call.streams);
        call.launch("invariant_carry", grid, &[&decays.slice(..), &h0], results, &carry)?;
        let inputs = [&u, &out.slice(..), &lags.slice(..), &states.slice(..), &h0];
        let y = call.out("invariant_out", &inputs)?;
        let kept = call.chunks * call.state();
        Ok((tensor(y, device, (sizes.0, sizes.1, shape.d)), tensor(states, device, (sizes.0, kept))))
    })
}

/// Gradients of u, params and h₀ from (u, params, h₀, states, gradients of y and of the final state).
pub fn backward(shape: ScanShape, given: [&Tensor; 6], sizes: (usize, usize)) -> Result<[Tensor; 3]> {
    with_all(given, |device, [u, params, h0, states, gy, end]| {
        let call = Call::new(device, shape, sizes)?;
        let Tables { into, out, decays, lags } = call.tables(&params)?;
        let mut grads = call.shares_of_states(&gy, &out, true)?;
        let (mut gh0, mut gdecays) = (room(device, h0.len())?, room(device, 2 * h0.len())?);
        let carry = [call.poles().as_slice(), &[call.chunks]].concat();
        let results = &mut [&mut grads.slice_mut(..), &mut gh0.slice_mut(..), &mut gdecays.slice_mut(..)];
        let inputs = [&decays.slice(..), &end, &states, &h0];
        call.launch("invariant_carry_back", call.by_pole(call.streams), &inputs, results, &carry)?;
        let grads = grads.slice(..);
        let gu = call.out("invariant_out_back", &[&gy, &into.slice(..), &lags.slice(..), &grads])?;

        let gin = call.table_back(&[&u, &grads, &grads], true)?;
        let gout = call.table_back(&[&gy, &states, &h0], false)?;
        let glags = call.lags_back(&u, &gy)?;
        let gdecays = sum(device, &gdecays.slice(..), 2 * call.state())?;
        let mut gparams = room(device, params.len())?;
        let inputs = [&params, &gin.slice(..), &gout.slice(..), &glags.slice(..), &gdecays.slice(..)];
        let results = &mut [&mut gparams.slice_mut(..)];
        let sizes = [call.poles().as_slice(), &[call.last]].concat();
        call.launch("invariant_back", call.by_pole(1), &inputs, results, &sizes)?;
        let [rows, params, h0] = [given[0], given[1], given[2]].map(Tensor::shape);
        Ok([tensor(gu, device, rows), tensor(gparams, device, params), tensor(gh0, device, h0)])
    })
}
