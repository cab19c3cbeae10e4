//! The same losses on an NVIDIA GPU, a batch at once: the Fourier transforms are products with a matrix, the rest kernels
//! (`kernels/loss.cu`).
//!
//! ```text
//! x ─ frames ─ · basis [n, 2·bins] ─ terms, their pull on X ─ · basisᵀ ─ frames' transpose ─► ∂L/∂x
//! ```
//!
//! The basis holds window, scale and transform. [`Loss`](super::Loss) is the definition; the test holds the two together.

use candle_core::{Device, Result as Candle, Tensor};

use super::envelope::{ACTIVE, bands, stretch};
use super::{LossParts, LossSpec, LossValues, SI_SDR_FLOOR, spectral::unit};
use crate::error::Result;
use crate::exec::candle::cuda::call::{Kernels, each, kernels, launch, room, tensor};
use crate::exec::candle::cuda::{round_products, with_all};
use crate::exec::candle::history::{History, Moves};
use crate::exec::candle::train_error;

const KERNELS: Kernels = kernels!("loss");

/// A loss whose plans lie on a device.
pub struct DeviceLoss {
    spec: LossSpec,
    device: Device,
    spectra: Vec<Spectrum>,
}

/// One resolution.
struct Spectrum {
    n_fft: usize,
    hop: usize,
    /// Window, scale and transform: `[n, 2·bins]`.
    basis: Tensor,
    transposed: Tensor,
    /// First bin and end of each band of the envelope term, and how many frames a stretch of it has.
    bands: Tensor,
    stretch: usize,
}

/// A spectrum's sizes for a batch.
#[derive(Clone, Copy)]
struct Sizes {
    examples: usize,
    len: usize,
    /// Frames of an example.
    rows: usize,
    bins: usize,
}

impl DeviceLoss {
    /// Checks `spec` and plans for sound at `rate` Hz on `device`, a GPU.
    pub fn new(spec: &LossSpec, rate: u32, device: &Device) -> Result<Self> {
        spec.check()?;
        let sizes: &[[usize; 2]] = if spec.is_spectral() { &spec.resolutions } else { &[] };
        let spectrum = |[n, hop]: &[usize; 2]| Spectrum::new(*n, *hop, rate, device);
        let spectra = sizes.iter().map(spectrum).collect::<Candle<_>>().map_err(train_error)?;
        Ok(Self { spec: spec.clone(), device: device.clone(), spectra })
    }

    /// The losses of `estimate` against `target`, both `[examples, n]`, and the gradient of their sum by the estimate.
    pub fn values_and_grad(&self, estimate: &Tensor, target: &Tensor) -> Result<(DeviceValues, Tensor)> {
        let rounded = round_products(false);
        let found = self.run(estimate, target).map_err(train_error);
        round_products(rounded);
        found
    }

    fn run(&self, x: &Tensor, y: &Tensor) -> Candle<(DeviceValues, Tensor)> {
        let spec = &self.spec;
        let (examples, _) = x.dims2()?;
        let (mut grad, waveform) = self.waveform(x, y)?;
        let share = 1.0 / self.spectra.len().max(1) as f32;
        // [examples, 6]: the five sums and the envelope term of each resolution, weighed to means.
        let mut spectral = Tensor::zeros((examples, 6), x.dtype(), &self.device)?;
        for spectrum in &self.spectra {
            let (sums, by_x) = spectrum.add(spec, x, y, share)?;
            spectral = (spectral + sums)?;
            grad = (grad + by_x)?;
        }
        Ok((DeviceValues { spec: spec.clone(), waveform, spectral }, grad))
    }

    /// Gradient `[examples, n]` and values `[examples, 2]` of L1 and SI-SDR.
    fn waveform(&self, x: &Tensor, y: &Tensor) -> Candle<(Tensor, Tensor)> {
        let (examples, len) = x.dims2()?;
        let k = numbers(&[self.spec.l1, self.spec.si_sdr, SI_SDR_FLOOR as f32], &self.device)?;
        with_all([x, y, &k], |device, [x, y, k]| {
            let (mut grad, mut values) = (room(device, examples * len)?, room(device, examples * 2)?);
            let grid = ((examples, 1), (512, 1));
            let results = &mut [&mut grad, &mut values];
            launch(device, (&KERNELS, "waveform_terms"), grid, &[&x, &y, &k], results, &[len])?;
            Ok((tensor(grad, device, (examples, len)), tensor(values, device, (examples, 2))))
        })
    }
}

/// The losses of a batch where they were computed.
pub struct DeviceValues {
    spec: LossSpec,
    /// L1 and SI-SDR: `[examples, 2]`.
    waveform: Tensor,
    /// The five sums and the envelope term of the spectra: `[examples, 6]`.
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
    fn new(n_fft: usize, hop: usize, rate: u32, device: &Device) -> Candle<Self> {
        let bins = n_fft / 2 + 1;
        let (window, scale) = unit(n_fft, hop).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        let turn = std::f64::consts::TAU / n_fft as f64;
        let mut basis = vec![0f32; n_fft * 2 * bins];
        for (j, (row, w)) in basis.chunks_exact_mut(2 * bins).zip(&window).enumerate() {
            for k in 0..bins {
                let (sin, cos) = (turn * (j * k % n_fft) as f64).sin_cos();
                let w = f64::from(w * scale);
                (row[k], row[bins + k]) = ((w * cos) as f32, (-w * sin) as f32);
            }
        }
        let basis = Tensor::from_vec(basis, (n_fft, 2 * bins), device)?;
        let edges: Vec<f32> =
            bands(n_fft, rate).into_iter().flat_map(|b| [b.start as f32, b.end as f32]).collect();
        let transposed = basis.t()?.contiguous()?;
        Ok(Self {
            n_fft,
            hop,
            basis,
            transposed,
            bands: numbers(&edges, device)?,
            stretch: stretch(hop, rate),
        })
    }

    /// `[examples, 6]` shares of the terms, unweighted, and the weighted gradient by x.
    fn add(&self, spec: &LossSpec, x: &Tensor, y: &Tensor, share: f32) -> Candle<(Tensor, Tensor)> {
        let (examples, len) = x.dims2()?;
        let sizes = Sizes { examples, len, rows: len / self.hop + 1, bins: self.n_fft / 2 + 1 };
        let ((bx, sound), (by, _)) = (self.spectrum(x, sizes)?, self.spectrum(y, sizes)?);
        let (sums, mut pull) = self.terms(spec, &bx, &by, sizes, share)?;
        if spec.convergence != 0.0 {
            pull = self.convergence(spec, [&bx, &by, &sums, &pull], sizes, share)?;
        }
        let mut envelope = Tensor::zeros((examples, 1), x.dtype(), x.device())?;
        if spec.envelope != 0.0 && self.bands.elem_count() != 0 {
            (envelope, pull) = self.envelope(spec, [&bx, &by, &pull], sizes, share)?;
        }
        let each = share / (sizes.rows * sizes.bins) as f32;
        let convergence = (sums.narrow(1, 0, 1)?.sqrt()? / sums.narrow(1, 1, 1)?.sqrt()?)? * f64::from(share);
        let shares =
            Tensor::cat(&[&convergence?, &(sums.narrow(1, 1, 4)? * f64::from(each))?, &envelope], 1)?;
        Ok((shares, self.adjoint(&sound, &pull, sizes)?))
    }

    /// How frames lie in the sound after half a window of zeros.
    fn frames(&self, sizes: Sizes) -> Moves {
        Moves::Frame { start: 0, period: self.hop, window: self.n_fft, rows: sizes.rows }
    }

    /// Sound between two halves of a window of zeros.
    fn padded(&self, x: &Tensor, sizes: Sizes) -> Candle<History> {
        let half = self.n_fft / 2;
        let before = Tensor::zeros((sizes.examples, half, 1), x.dtype(), x.device())?;
        Ok(History { before, x: Some(x.pad_with_zeros(1, 0, half)?.unsqueeze(2)?) })
    }

    /// `[examples·rows, 2·bins]`.
    fn spectrum(&self, x: &Tensor, sizes: Sizes) -> Candle<(Tensor, History)> {
        let sound = self.padded(x, sizes)?;
        let frames = self.frames(sizes).of(&sound)?;
        Ok((frames.reshape((sizes.examples * sizes.rows, self.n_fft))?.matmul(&self.basis)?, sound))
    }

    /// The transpose of `spectrum`.
    fn adjoint(&self, sound: &History, pull: &Tensor, sizes: Sizes) -> Candle<Tensor> {
        let frames = pull.matmul(&self.transposed)?.reshape((sizes.examples, sizes.rows, self.n_fft))?;
        let grad = self.frames(sizes).back(sound, &frames)?;
        let Some(grad) = grad.x else { candle_core::bail!("a history without rows") };
        grad.narrow(1, 0, sizes.len)?.squeeze(2)
    }

    /// The sums `[examples, 5]` and the pull of all terms but convergence and envelope.
    fn terms(
        &self,
        spec: &LossSpec,
        x: &Tensor,
        y: &Tensor,
        sizes: Sizes,
        share: f32,
    ) -> Candle<(Tensor, Tensor)> {
        let each = share / (sizes.rows * sizes.bins) as f32;
        let k = [
            spec.power,
            spec.floor * spec.floor,
            spec.asymmetry,
            spec.log_magnitude * each,
            spec.compressed_magnitude * 2.0 * spec.power * each,
            spec.compressed_complex * 2.0 * each,
        ];
        let rows = sizes.examples * sizes.rows;
        let (sums, pull) = with_all([x, y, &numbers(&k, x.device())?], |device, [x, y, k]| {
            let (mut pull, mut sums) = (room(device, x.len())?, room(device, rows * 5)?);
            let (grid, results) = (((rows, 1), (128, 1)), &mut [&mut pull, &mut sums]);
            launch(device, (&KERNELS, "spectral_terms"), grid, &[&x, &y, &k], results, &[sizes.bins])?;
            let shape = (sizes.examples, sizes.rows, 5);
            Ok((tensor(sums, device, shape), tensor(pull, device, (rows, 2 * sizes.bins))))
        })?;
        Ok((sums.sum(1)?, pull))
    }

    fn convergence(
        &self,
        spec: &LossSpec,
        [x, y, sums, before]: [&Tensor; 4],
        sizes: Sizes,
        share: f32,
    ) -> Candle<Tensor> {
        let k = numbers(&[spec.convergence * share, spec.floor * spec.floor], x.device())?;
        let count = sizes.examples * sizes.rows * sizes.bins;
        with_all([x, y, sums, before, &k], |device, [x, y, sums, before, k]| {
            let mut pull = room(device, 2 * count)?;
            let inputs = [&x, &y, &sums, &before, &k];
            let numbers = [count, sizes.rows, sizes.bins];
            launch(device, (&KERNELS, "convergence_pull"), each(count), &inputs, &mut [&mut pull], &numbers)?;
            Ok(tensor(pull, device, (sizes.examples * sizes.rows, 2 * sizes.bins)))
        })
    }

    /// The envelope term `[examples, 1]`, its share taken, and `before` with its pull.
    fn envelope(
        &self,
        spec: &LossSpec,
        [x, y, before]: [&Tensor; 3],
        sizes: Sizes,
        share: f32,
    ) -> Candle<(Tensor, Tensor)> {
        let bands = self.bands.elem_count() / 2;
        let (examples, rows, bins) = (sizes.examples, sizes.rows, sizes.bins);
        let stretches = rows.saturating_sub(self.stretch / 2).max(1).div_ceil((self.stretch / 2).max(1));
        let k = numbers(&[spec.floor * spec.floor, ACTIVE], x.device())?;
        let weight = numbers(&[spec.envelope * share], x.device())?;
        with_all([x, y, before, &self.bands, &k, &weight], |device, [x, y, before, edges, k, weight]| {
            let count = examples * bands * rows;
            let envelope = |x| -> Candle<_> {
                let (mut of, numbers) = (room(device, count)?, [count, rows, bands, bins]);
                let inputs = [x, &edges, &k];
                launch(device, (&KERNELS, "envelope_bands"), each(count), &inputs, &mut [&mut of], &numbers)?;
                Ok(of)
            };
            let (ex, ey) = (envelope(&x)?, envelope(&y)?);
            let (ex, ey) = (ex.slice(..), ey.slice(..));
            let mut active = room(device, examples * stretches)?;
            let (grid, numbers) = (((examples, 1), (64, 1)), [rows, bands, self.stretch, stretches]);
            launch(device, (&KERNELS, "envelope_active"), grid, &[&ey, &k], &mut [&mut active], &numbers)?;
            let (mut pull, mut values) = (room(device, count)?, room(device, examples * bands)?);
            let (grid, inputs) = (((examples * bands, 1), (32, 1)), [&ex, &ey, &active.slice(..), &k]);
            let results = &mut [&mut pull, &mut values];
            launch(device, (&KERNELS, "envelope_pull"), grid, &inputs, results, &numbers)?;
            let cells = examples * rows * bins;
            let (mut after, numbers) = (room(device, 2 * cells)?, [cells, rows, bands, bins]);
            let inputs = [&x, &edges, &ex, &pull.slice(..), &before, &weight];
            let results = &mut [&mut after];
            launch(device, (&KERNELS, "envelope_spread"), each(cells), &inputs, results, &numbers)?;
            let values = (tensor(values, device, (examples, bands)).sum_keepdim(1)? * f64::from(share))?;
            Ok((values, tensor(after, device, (examples * rows, 2 * bins))))
        })
    }
}

fn numbers(values: &[f32], device: &Device) -> Candle<Tensor> {
    Tensor::from_slice(values, values.len(), device)
}
