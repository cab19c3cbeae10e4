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
use super::{LossParts, LossSpec, LossValues, SI_SDR_FLOOR, spectral::unit};
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

/// Longest frame whose spectra, and their room, fit a block's shared memory on every GPU from sm_80 on.
const LONGEST: usize = 8192;

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
        let (mut grad, waveform) = self.waveform(x, y)?;
        let mut spectral = Tensor::zeros((examples, 6), x.dtype(), &self.device)?;
        for spectrum in &self.spectra {
            let share = 1.0 / self.spectra.len() as f32;
            (spectral, grad) = spectrum.add(&self.spec, [x, y], share, [&spectral, &grad])?;
        }
        Ok((DeviceValues { spec: self.spec.clone(), waveform, spectral }, grad))
    }

    /// Gradient `[examples, n]` and values `[examples, 2]` of L1 and SI-SDR.
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

    /// `values [examples, 6]` with this resolution's `share` of the terms, unweighted, and `grad` with that of the weighted
    /// gradient by x.
    fn add(
        &self,
        spec: &LossSpec,
        [x, y]: [&Tensor; 2],
        share: f32,
        [values, grad]: [&Tensor; 2],
    ) -> Candle<(Tensor, Tensor)> {
        let (examples, len) = x.dims2()?;
        let (m, hop, rows) = (self.m, self.hop, len / self.hop + 1);
        let bands = if spec.envelope == 0.0 { 0 } else { self.bands.elem_count() / 2 };
        let each_cell = share / (rows * (m + 1)) as f32;
        let frames = Launch {
            grid: [rows, examples, 1],
            block: [(m / 2).next_multiple_of(32).clamp(32, 256), 1],
            shared: 4 * (m + 1) * 2 * size_of::<f32>(),
        };
        let shape = [bits(spec.power), bits(spec.floor * spec.floor), bits(spec.asymmetry)];
        let given = [x, y, values, grad, &self.window, &self.turns, &self.bands, &self.band_of];
        with_all(given, |device, [x, y, values, grad, window, turns, edges, band_of]| {
            let mut sums = room(device, examples * rows * 5)?;
            let mut envelopes = room(device, 2 * examples * bands * rows)?;
            let sizes = [&[len, m, hop, bands][..], &shape].concat();
            let inputs = [&x, &y, &window, &turns, &edges];
            let results = &mut [&mut sums.slice_mut(..), &mut envelopes.slice_mut(..)];
            launch_on(device, (&KERNELS, "spectral_sums"), frames, &inputs, results, &sizes)?;
            let sums = tensor(sums, device, (examples, rows, 5)).sum(1)?;

            let (half, floor) = (examples * bands * rows, spec.floor * spec.floor);
            let (mut pull, mut of_bands) = (room(device, half)?, room(device, examples * bands)?);
            let (ex, ey) = (envelopes.slice(..half), envelopes.slice(half..));
            if bands > 0 {
                let stretches =
                    rows.saturating_sub(self.stretch / 2).max(1).div_ceil((self.stretch / 2).max(1));
                let mut active = room(device, examples * stretches)?;
                let sizes = [rows, bands, self.stretch, stretches, bits(floor)];
                let (grid, active_sizes) =
                    (((examples, 1), (256, 1)), [&sizes[..], &[bits(ACTIVE)]].concat());
                let name = (&KERNELS, "envelope_active");
                launch(device, name, grid, &[&ey], &mut [&mut active], &active_sizes)?;
                let (grid, inputs) = (((examples * bands, 1), (32, 1)), [&ex, &ey, &active.slice(..)]);
                let results = &mut [&mut pull, &mut of_bands];
                launch(device, (&KERNELS, "envelope_pull"), grid, &inputs, results, &sizes)?;
            }

            with_all([&sums], |_, [sums]| {
                let mut after = room(device, examples * 6)?;
                let (inputs, sizes) =
                    ([&sums, &of_bands.slice(..), &values], [examples, bands, bits(share), bits(each_cell)]);
                let name = (&KERNELS, "spectral_values");
                launch(device, name, each(examples), &inputs, &mut [&mut after], &sizes)?;

                let weights = [
                    spec.convergence * share,
                    spec.log_magnitude * each_cell,
                    spec.compressed_magnitude * 2.0 * spec.power * each_cell,
                    spec.compressed_complex * 2.0 * each_cell,
                    spec.envelope * share,
                ];
                let mut pulled = room(device, examples * rows * 2 * m)?;
                let inputs = [&x, &y, &window, &turns, &sums, &band_of, &ex, &pull.slice(..)];
                let sizes = [&[len, m, hop, bands][..], &shape, &weights.map(bits)].concat();
                let results = &mut [&mut pulled.slice_mut(..)];
                launch_on(device, (&KERNELS, "spectral_pull"), frames, &inputs, results, &sizes)?;

                let (count, mut sum) = (examples * len, room(device, examples * len)?);
                let (inputs, sizes) = ([&pulled.slice(..), &grad], [count, len, rows, m, hop]);
                launch(device, (&KERNELS, "add_frames"), each(count), &inputs, &mut [&mut sum], &sizes)?;
                Ok((tensor(after, device, (examples, 6)), tensor(sum, device, (examples, len))))
            })
        })
    }
}

/// A number that is not negative, as kernels take it among the sizes.
fn bits(x: f32) -> usize {
    x.to_bits() as usize
}
