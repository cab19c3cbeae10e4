//! The same losses on an NVIDIA GPU, a batch at once (`kernels/loss.cu`).
//!
//! ```text
//! x ─ frame ─ window ─ FFT ─ terms ─────► sums, envelopes
//! x ─ frame ─ window ─ FFT ─ terms' pull on X ─ FFTᵀ ─ window ─ frames' transpose ─► ∂L/∂x
//! ```
//!
//! Each line is one kernel and what adds its frames up; spectra stay in a block's shared memory, and are computed twice sooner
//! than kept. [`Loss`](super::Loss) is the definition; the test holds the two together.

use candle_core::{Device, Result as Candle, Tensor};

use super::envelope::{ACTIVE, bands, stretch};
use super::{LossParts, LossSpec, LossValues, RELATIVE_FLOOR, SI_SDR_FLOOR, spectral::unit};
use crate::error::{Error, Result};
use crate::exec::candle::cuda::call::{Kernels, Launch, each, kernels, launch, launch_on, room, tensor};
use crate::exec::candle::cuda::with_all;
use crate::exec::candle::train_error;

const KERNELS: Kernels = kernels!("loss");

/// A loss whose plans lie on a device.
pub struct DeviceLoss {
    spec: LossSpec,
    device: Device,
    spectra: Vec<Spectrum>,
}

/// Longest frame whose spectra, and their room, fit the 99 KB of shared memory that a block has on any GPU from sm_80 on.
const LONGEST: usize = 4096;

/// One resolution.
struct Spectrum {
    /// Half of a frame.
    m: usize,
    hop: usize,
    /// With the scale: `[2m]`.
    window: Tensor,
    /// cos and sin of 2πj/2m: `[2m, 2]`.
    turns: Tensor,
    /// First bin and end of each band of the envelope term, the band of each bin or −1, and how many frames a stretch has.
    bands: Tensor,
    band_of: Tensor,
    stretch: usize,
}

/// A batch at one resolution.
#[derive(Clone, Copy)]
struct Sizes {
    examples: usize,
    len: usize,
    /// Frames of an example.
    rows: usize,
    bands: usize,
}

/// What a resolution's gradient needs of its terms.
struct Measured {
    /// The five sums of an example.
    sums: Tensor,
    /// Of x, then of y.
    envelopes: Tensor,
    /// The envelope term's gradient by x's.
    pull: Tensor,
}

impl DeviceLoss {
    /// Checks `spec` and plans for sound at `rate` Hz on `device`, a GPU.
    pub fn new(spec: &LossSpec, rate: u32, device: &Device) -> Result<Self> {
        spec.check()?;
        let sizes: &[[usize; 2]] = if spec.is_spectral() { &spec.resolutions } else { &[] };
        let spectrum = |[n, hop]: &[usize; 2]| Spectrum::new(*n, *hop, rate, device);
        let spectra = sizes.iter().map(spectrum).collect::<Result<_>>()?;
        Ok(Self { spec: spec.clone(), device: device.clone(), spectra })
    }

    /// The losses of `estimate` against `target`, both `[examples, n]`, and the gradient of their sum by the estimate.
    pub fn values_and_grad(&self, estimate: &Tensor, target: &Tensor) -> Result<(DeviceValues, Tensor)> {
        self.run(estimate, target).map_err(train_error)
    }

    fn run(&self, x: &Tensor, y: &Tensor) -> Candle<(DeviceValues, Tensor)> {
        let (examples, _) = x.dims2()?;
        let (grad, waveform) = self.waveform(x, y)?;
        let mut spectral = Tensor::zeros((examples, 6), x.dtype(), &self.device)?;
        let mut measured = Vec::with_capacity(self.spectra.len());
        let part = 1.0 / self.spectra.len().max(1) as f32;
        for spectrum in &self.spectra {
            let (sum, found) = spectrum.measure(&self.spec, [x, y], part, &spectral)?;
            spectral = sum;
            measured.push(found);
        }
        let share = self.share(&waveform, &spectral)?;
        let mut grad = self.pull_l1([x, y], &share, &grad)?;
        for (spectrum, measured) in self.spectra.iter().zip(&measured) {
            grad = spectrum.pull(&self.spec, [x, y], part, &share, measured, &grad)?;
        }
        Ok((DeviceValues { spec: self.spec.clone(), waveform, spectral }, grad))
    }

    /// What the gradient of each example's differences is multiplied by: `[examples]`.
    fn share(&self, waveform: &Tensor, spectral: &Tensor) -> Candle<Tensor> {
        let (spec, examples) = (&self.spec, waveform.dim(0)?);
        let weights = [
            spec.relative,
            RELATIVE_FLOOR as f32,
            spec.l1,
            spec.convergence,
            spec.log_magnitude,
            spec.compressed_magnitude,
            spec.compressed_complex,
        ];
        with_all([waveform, spectral], |device, [waveform, spectral]| {
            let (mut share, sizes) =
                (room(device, examples)?, [&[examples][..], &weights.map(bits)].concat());
            let (name, inputs) = ((&KERNELS, "difference_share"), [&waveform, &spectral]);
            launch(device, name, each(examples), &inputs, &mut [&mut share], &sizes)?;
            Ok(tensor(share, device, examples))
        })
    }

    /// `grad` with that of L1.
    fn pull_l1(&self, [x, y]: [&Tensor; 2], share: &Tensor, grad: &Tensor) -> Candle<Tensor> {
        if self.spec.l1 == 0.0 {
            return Ok(grad.clone());
        }
        let (count, len) = (x.elem_count(), x.dim(1)?);
        with_all([x, y, share, grad], |device, [x, y, share, grad]| {
            let (mut sum, inputs) = (room(device, count)?, [&x, &y, &share, &grad]);
            let sizes = [count, len, bits(self.spec.l1)];
            launch(device, (&KERNELS, "l1_pull"), each(count), &inputs, &mut [&mut sum], &sizes)?;
            Ok(tensor(sum, device, (count / len, len)))
        })
    }

    /// Gradient `[examples, n]` of SI-SDR, values `[examples, 2]` of L1 and SI-SDR.
    fn waveform(&self, x: &Tensor, y: &Tensor) -> Candle<(Tensor, Tensor)> {
        let (examples, len) = x.dims2()?;
        let sizes = [len, bits(self.spec.l1), bits(self.spec.si_sdr), bits(SI_SDR_FLOOR as f32)];
        with_all([x, y], |device, [x, y]| {
            let (mut grad, mut values) = (room(device, examples * len)?, room(device, examples * 2)?);
            let (grid, results) = (((examples, 1), (512, 1)), &mut [&mut grad, &mut values]);
            launch(device, (&KERNELS, "waveform_terms"), grid, &[&x, &y], results, &sizes)?;
            Ok((tensor(grad, device, (examples, len)), tensor(values, device, (examples, 2))))
        })
    }
}

/// The losses of a batch where they were computed.
pub struct DeviceValues {
    spec: LossSpec,
    /// L1 and SI-SDR: `[examples, 2]`.
    waveform: Tensor,
    /// Shares of the spectral terms: convergence, one unused, log, magnitude, complex, envelope: `[examples, 6]`.
    spectral: Tensor,
}

impl DeviceValues {
    /// Each example's losses, in the order of the batch.
    pub fn read(&self) -> Result<Vec<LossValues>> {
        let read = |x: &Tensor| x.to_vec2::<f32>().map_err(train_error);
        let (waveform, spectral, spec) = (read(&self.waveform)?, read(&self.spectral)?, &self.spec);
        let values = waveform.iter().zip(&spectral).map(|(w, s)| {
            let used = |weight: f32, value: f32| if weight == 0.0 { 0.0 } else { f64::from(value) };
            let parts = LossParts {
                l1: f64::from(w[0]),
                si_sdr: f64::from(w[1]),
                convergence: used(spec.convergence, s[0]),
                log_magnitude: used(spec.log_magnitude, s[2]),
                compressed_magnitude: used(spec.compressed_magnitude, s[3]),
                compressed_complex: used(spec.compressed_complex, s[4]),
                envelope: used(spec.envelope, s[5]),
            };
            LossValues { total: spec.total(&parts), parts }
        });
        Ok(values.collect())
    }
}

impl Spectrum {
    fn new(n_fft: usize, hop: usize, rate: u32, device: &Device) -> Result<Self> {
        let (window, scale) = unit(n_fft, hop)?;
        if n_fft > LONGEST {
            let expected = format!("at most {LONGEST} samples on a GPU");
            return Err(Error::input("loss resolutions", expected, n_fft.to_string()));
        }
        let m = n_fft / 2;
        let window: Vec<f32> = window.iter().map(|w| w * scale).collect();
        let turn = std::f64::consts::TAU / n_fft as f64;
        let turns = (0..n_fft).map(|j| (turn * j as f64).sin_cos());
        let turns: Vec<f32> = turns.flat_map(|(sin, cos)| [cos as f32, sin as f32]).collect();
        let bands = bands(n_fft, rate);
        let mut band_of = vec![-1.0; m + 1];
        for (j, band) in bands.iter().enumerate() {
            band_of[band.clone()].fill(j as f32);
        }
        let edges: Vec<f32> = bands.into_iter().flat_map(|b| [b.start as f32, b.end as f32]).collect();
        let numbers =
            |values: Vec<f32>| Tensor::from_slice(&values, values.len(), device).map_err(train_error);
        Ok(Self {
            m,
            hop,
            window: numbers(window)?,
            turns: numbers(turns)?,
            bands: numbers(edges)?,
            band_of: numbers(band_of)?,
            stretch: stretch(hop, rate),
        })
    }

    fn sizes(&self, spec: &LossSpec, x: &Tensor) -> Candle<Sizes> {
        let (examples, len) = x.dims2()?;
        let bands = if spec.envelope == 0.0 { 0 } else { self.bands.elem_count() / 2 };
        Ok(Sizes { examples, len, rows: len / self.hop + 1, bands })
    }

    /// A block a frame, with room for both spectra twice.
    fn frames(&self, sizes: Sizes) -> Launch {
        let shared = 4 * (self.m + 1) * 2 * size_of::<f32>();
        let threads = (self.m / 2).next_multiple_of(32).clamp(32, 256);
        Launch { grid: [sizes.rows, sizes.examples, 1], block: [threads, 1], shared }
    }

    /// The first sizes of both kernels over frames.
    fn numbers(&self, spec: &LossSpec, sizes: Sizes) -> [usize; 7] {
        let Sizes { len, bands, .. } = sizes;
        let shape = [spec.power, spec.floor * spec.floor, spec.asymmetry].map(bits);
        [len, self.m, self.hop, bands, shape[0], shape[1], shape[2]]
    }

    /// `values [examples, 6]` with this resolution's `part` of the terms, unweighted, and what their gradient needs.
    fn measure(
        &self,
        spec: &LossSpec,
        [x, y]: [&Tensor; 2],
        part: f32,
        values: &Tensor,
    ) -> Candle<(Tensor, Measured)> {
        let sizes = self.sizes(spec, x)?;
        let Sizes { examples, rows, bands, .. } = sizes;
        let half = examples * bands * rows;
        let given = [x, y, &self.window, &self.turns, &self.bands];
        let (sums, envelopes) = with_all(given, |device, [x, y, window, turns, edges]| {
            let (mut sums, mut envelopes) = (room(device, examples * rows * 5)?, room(device, 2 * half)?);
            let inputs = [&x, &y, &window, &turns, &edges];
            let results = &mut [&mut sums.slice_mut(..), &mut envelopes.slice_mut(..)];
            let numbers = self.numbers(spec, sizes);
            launch_on(device, (&KERNELS, "spectral_sums"), self.frames(sizes), &inputs, results, &numbers)?;
            Ok((tensor(sums, device, (examples, rows, 5)), tensor(envelopes, device, (2, half))))
        })?;
        let sums = sums.sum(1)?;
        let (pull, of_bands) = self.envelope(spec, &envelopes, sizes)?;
        let each_cell = part / (rows * (self.m + 1)) as f32;
        let values = with_all([&sums, &of_bands, values], |device, [sums, of_bands, values]| {
            let mut after = room(device, examples * 6)?;
            let (inputs, sizes) =
                ([&sums, &of_bands, &values], [examples, bands, bits(part), bits(each_cell)]);
            let name = (&KERNELS, "spectral_values");
            launch(device, name, each(examples), &inputs, &mut [&mut after], &sizes)?;
            Ok(tensor(after, device, (examples, 6)))
        })?;
        Ok((values, Measured { sums, envelopes, pull }))
    }

    /// The envelope term's gradient by x's envelopes, and the bands' terms `[examples, bands]`.
    fn envelope(&self, spec: &LossSpec, envelopes: &Tensor, sizes: Sizes) -> Candle<(Tensor, Tensor)> {
        let Sizes { examples, rows, bands, .. } = sizes;
        let half = examples * bands * rows;
        with_all([envelopes], |device, [envelopes]| {
            let (mut pull, mut of_bands) = (room(device, half)?, room(device, examples * bands)?);
            if bands > 0 {
                let (ex, ey) = (envelopes.slice(..half), envelopes.slice(half..));
                let step = (self.stretch / 2).max(1);
                let stretches = rows.saturating_sub(self.stretch / 2).max(1).div_ceil(step);
                let sizes =
                    [rows, bands, self.stretch, stretches, bits(spec.floor * spec.floor), bits(ACTIVE)];
                let (mut active, name) = (room(device, examples * stretches)?, (&KERNELS, "envelope_active"));
                launch(device, name, ((examples, 1), (256, 1)), &[&ey], &mut [&mut active], &sizes)?;
                let (grid, inputs) = (((examples * bands, 1), (32, 1)), [&ex, &ey, &active.slice(..)]);
                let results = &mut [&mut pull, &mut of_bands];
                launch(device, (&KERNELS, "envelope_pull"), grid, &inputs, results, &sizes[..5])?;
            }
            Ok((tensor(pull, device, half), tensor(of_bands, device, (examples, bands))))
        })
    }

    /// `grad` with that of this resolution's `part` of the terms.
    fn pull(
        &self,
        spec: &LossSpec,
        [x, y]: [&Tensor; 2],
        part: f32,
        share: &Tensor,
        Measured { sums, envelopes, pull }: &Measured,
        grad: &Tensor,
    ) -> Candle<Tensor> {
        let sizes = self.sizes(spec, x)?;
        let Sizes { examples, len, rows, .. } = sizes;
        let (m, each_cell) = (self.m, part / (rows * (self.m + 1)) as f32);
        let weights = [
            spec.convergence * part,
            spec.log_magnitude * each_cell,
            spec.compressed_magnitude * 2.0 * spec.power * each_cell,
            spec.compressed_complex * 2.0 * each_cell,
            spec.envelope * part,
        ];
        let given = [x, y, &self.window, &self.turns, sums, share, &self.band_of, envelopes, pull, grad];
        with_all(given, |device, [x, y, window, turns, sums, share, band_of, ex, pull, grad]| {
            let mut pulled = room(device, examples * rows * 2 * m)?;
            let inputs = [&x, &y, &window, &turns, &sums, &share, &band_of, &ex, &pull];
            let numbers = [&self.numbers(spec, sizes)[..], &weights.map(bits)].concat();
            let results = &mut [&mut pulled.slice_mut(..)];
            launch_on(device, (&KERNELS, "spectral_pull"), self.frames(sizes), &inputs, results, &numbers)?;
            let (count, mut sum) = (examples * len, room(device, examples * len)?);
            let (inputs, numbers) = ([&pulled.slice(..), &grad], [count, len, rows, m, self.hop]);
            launch(device, (&KERNELS, "add_frames"), each(count), &inputs, &mut [&mut sum], &numbers)?;
            Ok(tensor(sum, device, (examples, len)))
        })
    }
}

/// A number that is not negative, as kernels take it among the sizes.
fn bits(x: f32) -> usize {
    (x + 0.0).to_bits() as usize
}
