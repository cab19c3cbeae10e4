//! Pictures for the command line: spectrograms, waveforms and loss curves as PNG.
//!
//! The font is compiled in (see `fonts/LICENSE.txt`), so a machine without fonts draws the same picture. A picture is
//! written under a temporary name beside its own and renamed when whole.
//!
//! ```no_run
//! use cascabel::cli::picture::spectrogram_png;
//! let noise = vec![0.0f32; 16000];
//! spectrogram_png("noise.png".as_ref(), &[("noise", &noise)], 16000)?;
//! # Ok::<(), cascabel::Error>(())
//! ```

use std::path::Path;
use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::register_font;
use realfft::num_complex::Complex32;

use crate::audio::stft::Stft;
use crate::error::{Error, Result};

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, BitMapBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

const FONT: &[u8] = include_bytes!("fonts/DejaVuSans-subset.ttf");
const FAMILY: &str = "cascabel";
const WIDTH: u32 = 1200;
/// Height of one spectrogram.
const PANEL: u32 = 330;
/// Height of one waveform.
const WAVE: u32 = 170;
/// Room for the colour scale at the right.
const SCALE: u32 = 100;
/// Levels shown, dB of full scale: a full-scale sine is at 0.
const LEVELS: [f32; 2] = [-100.0, 0.0];
const INK: RGBColor = RGBColor(45, 45, 55);
const FAINT: RGBColor = RGBColor(225, 225, 230);

/// Colours of lines, apart for the colour-blind too (Okabe & Ito 2008).
const LINES: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Matplotlib's viridis at nine even steps.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

/// Draws each (title, sound) as a spectrogram, one below the other, on one time axis, at `rate` Hz.
///
/// Rows are 32 ms with a Hann window; the colour is the level of a sine, in dB of full scale.
pub fn spectrogram_png(path: &Path, sounds: &[(&str, &[f32])], rate: u32) -> Result<()> {
    stacked(path, sounds, rate, 0)
}

/// The same, each below its waveform.
pub fn sound_png(path: &Path, sounds: &[(&str, &[f32])], rate: u32) -> Result<()> {
    stacked(path, sounds, rate, WAVE)
}

/// Spectrograms below waveforms of height `wave`, where that is not 0.
fn stacked(path: &Path, sounds: &[(&str, &[f32])], rate: u32, wave: u32) -> Result<()> {
    if sounds.is_empty() || rate == 0 {
        let got = format!("{} at {rate} Hz", sounds.len());
        return Err(Error::input("spectrogram", "one sound or more, at a rate above 0", got));
    }
    let longest = sounds.iter().map(|(_, sound)| sound.len()).max().unwrap_or(0).max(1);
    let seconds = longest as f64 / f64::from(rate);
    write(path, (wave + PANEL) * sounds.len() as u32, |root| {
        for (area, (title, sound)) in root.split_evenly((sounds.len(), 1)).iter().zip(sounds) {
            let (above, below) = area.split_vertically(wave);
            let (plot, scale) = below.split_horizontally(WIDTH - SCALE);
            if wave > 0 {
                waveform(&above.split_horizontally(WIDTH - SCALE).0, title, sound, rate, seconds)?;
            }
            panel(&plot, if wave > 0 { "" } else { title }, sound, rate, seconds)?;
            colour_scale(&scale)?;
        }
        Ok(())
    })
}

/// A line of a chart.
pub struct Series<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// Its points (x, y), in the order they are joined; those that are not finite are left out.
    pub points: &'a [(f64, f64)],
}

/// Draws `series` as lines over one pair of axes: for a loss, `x` is `step` and `y` is `loss`.
pub fn curve_png(path: &Path, title: &str, x: &str, y: &str, series: &[Series<'_>]) -> Result<()> {
    let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
    let points = || series.iter().flat_map(|s| s.points).copied().filter(finite);
    if points().next().is_none() {
        return Err(Error::input("curve", "one finite point or more", "none"));
    }
    let (xs, ys) = (range(points().map(|p| p.0), 0.0), range(points().map(|p| p.1), 0.05));
    write(path, 600, |root| {
        let mut chart = ChartBuilder::on(root)
            .caption(title, text(24))
            .margin(16)
            .x_label_area_size(52)
            .y_label_area_size(84)
            .build_cartesian_2d(xs, ys)
            .map_err(wrong)?;
        axes(&mut chart, x, y, true)?;
        for (s, colour) in series.iter().zip(LINES.iter().cycle()) {
            let line = LineSeries::new(s.points.iter().copied().filter(finite), colour.stroke_width(2));
            let key = |(x, y)| Rectangle::new([(x, y - 2), (x + 18, y + 1)], colour.filled());
            chart.draw_series(line).map_err(wrong)?.label(s.name).legend(key);
        }
        if series.len() > 1 {
            let labels = &mut chart.configure_series_labels();
            let labels = labels.position(SeriesLabelPosition::UpperRight).label_font(text(16));
            labels.background_style(WHITE.mix(0.85)).border_style(FAINT).margin(10).draw().map_err(wrong)?;
        }
        Ok(())
    })
}

/// A waveform: of each column of pixels its lowest and its highest sample.
fn waveform(area: &Area<'_>, title: &str, sound: &[f32], rate: u32, seconds: f64) -> Result<()> {
    let peak = sound.iter().fold(1e-3f32, |peak, x| peak.max(x.abs()));
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(20))
        .margin(10)
        .margin_bottom(0)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..seconds, f64::from(-peak)..f64::from(peak))
        .map_err(wrong)?;
    axes(&mut chart, "", "amplitude", false)?;
    let (xs, _) = chart.plotting_area().get_pixel_range();
    let columns = (xs.end - xs.start).max(1) as usize;
    let samples = (seconds * f64::from(rate) / columns as f64).max(1.0);
    let edge = |column: usize| ((column as f64 * samples) as usize).min(sound.len());
    let bars = (0..columns).filter_map(|column| {
        // A sample more, so that neighbours touch.
        let part = sound.get(edge(column)..(edge(column + 1) + 1).min(sound.len()))?;
        let (low, high) =
            part.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
        let x = column as f64 * samples / f64::from(rate);
        (low <= high).then(|| PathElement::new([(x, f64::from(low)), (x, f64::from(high))], LINES[0]))
    });
    chart.draw_series(bars).map_err(wrong).map(|_| ())
}

/// One spectrogram with its axes.
fn panel(area: &Area<'_>, title: &str, sound: &[f32], rate: u32, seconds: f64) -> Result<()> {
    let top = f64::from(rate) / 2000.0;
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(20))
        .margin(10)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..seconds, 0.0..top)
        .map_err(wrong)?;
    axes(&mut chart, "time (s)", "frequency (kHz)", false)?;
    let (xs, ys) = chart.plotting_area().get_pixel_range();
    let size = ((xs.end - xs.start).max(1) as u32, (ys.end - ys.start).max(1) as u32);
    let image = raster(sound, rate, seconds, size)?;
    let element = BitMapElement::with_owned_buffer((0.0, top), size, image);
    let element = element.ok_or_else(|| Error::input("spectrogram", "an image of its size", "another"))?;
    chart.plotting_area().draw(&element).map_err(wrong)
}

/// The picture of a sound, RGB, row by row from the top: each pixel is the highest level in its part of time and
/// frequency, so that nothing narrow is lost.
fn raster(sound: &[f32], rate: u32, seconds: f64, (width, height): (u32, u32)) -> Result<Vec<u8>> {
    let n_fft = ((0.032 * f64::from(rate)) as usize).clamp(64, 8192).next_multiple_of(2);
    let total = seconds * f64::from(rate);
    let hop = ((total / f64::from(width)) as usize).clamp(n_fft / 16, n_fft / 2);
    let mut stft = Stft::new(n_fft, hop)?;
    let (bins, full) = (stft.bins(), stft.gain() / 2.0);
    let (columns, lines) = (width as usize, height as usize);
    let mut image = vec![255u8; columns * lines * 3];
    let mut peaks = vec![0f32; bins];
    // A block of frames for each column keeps the memory small however long the sound is.
    let mut rows: Vec<Complex32> = Vec::new();
    let end = (sound.len() as f64 / total * columns as f64).ceil() as usize;
    for column in 0..end.min(columns) {
        let at = |column: usize| (column as f64 / columns as f64 * total) as usize;
        let (first, last) = (at(column), at(column + 1).max(at(column) + 1));
        let from = first.saturating_sub(n_fft / 2);
        let part = &sound[from.min(sound.len())..(last + n_fft / 2).min(sound.len())];
        rows.resize(stft.frames(part.len()) * bins, Complex32::default());
        stft.forward(part, &mut rows);
        peaks.fill(0.0);
        // Frames whose centre is in the column; the nearest one if the hop steps over it.
        let (low, high) = ((first - from).div_ceil(hop), (last - from).div_ceil(hop));
        for row in rows.chunks_exact(bins).take(high.max(low + 1)).skip(low) {
            peaks.iter_mut().zip(row).for_each(|(peak, x)| *peak = peak.max(x.norm()));
        }
        for line in 0..lines {
            let edge = |line: usize| (bins - 1) as f32 * (1.0 - line as f32 / lines as f32);
            let level = 20.0 * (level_between(&peaks, edge(line + 1), edge(line)) / full).max(1e-9).log10();
            let at = (line * columns + column) * 3;
            image[at..at + 3].copy_from_slice(&colour((level - LEVELS[0]) / (LEVELS[1] - LEVELS[0])));
        }
    }
    Ok(image)
}

/// The highest of `peaks` from bin `low` to `high`, between bins by interpolation.
fn level_between(peaks: &[f32], low: f32, high: f32) -> f32 {
    let middle = 0.5 * (low + high);
    let (at, part) = (middle as usize, middle.fract());
    let near = |i: usize| peaks.get(i).or(peaks.last()).copied().unwrap_or(0.0);
    let between = near(at) * (1.0 - part) + near(at + 1) * part;
    (low.ceil() as usize..=high as usize).fold(between, |most, i| most.max(near(i)))
}

/// Viridis at t in 0 … 1.
pub(super) fn colour(t: f32) -> [u8; 3] {
    let at = t.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f32;
    let low = (at as usize).min(VIRIDIS.len() - 2);
    let part = at - low as f32;
    std::array::from_fn(|c| {
        let (a, b) = (f32::from(VIRIDIS[low][c]), f32::from(VIRIDIS[low + 1][c]));
        (a + (b - a) * part).round() as u8
    })
}

/// The bar of colours with its levels.
fn colour_scale(area: &Area<'_>) -> Result<()> {
    let (low, high) = (f64::from(LEVELS[0]), f64::from(LEVELS[1]));
    let mut chart = ChartBuilder::on(area)
        .margin_top(36)
        .margin_bottom(56)
        .margin_left(10)
        .right_y_label_area_size(66)
        .build_cartesian_2d(0.0..1.0, low..high)
        .map_err(wrong)?;
    let bars = (0..200).map(|i| {
        let (from, to) = (f64::from(i) / 200.0, f64::from(i + 1) / 200.0);
        let [r, g, b] = colour(from as f32);
        let y = |t: f64| low + (high - low) * t;
        Rectangle::new([(0.0, y(from)), (1.0, y(to))], RGBColor(r, g, b).filled())
    });
    chart.draw_series(bars).map_err(wrong)?;
    let mesh = &mut chart.configure_mesh();
    let mesh = mesh.disable_mesh().disable_x_axis().y_labels(6).label_style(text(14)).axis_style(INK);
    let level = |y: &f64| if *y < high { format!(" {y:.0}") } else { format!(" {y:.0} dBFS") };
    mesh.y_label_formatter(&level).draw().map_err(wrong)
}

/// Axes, their names and, if `grid`, faint lines.
fn axes(chart: &mut Chart<'_, '_>, x: &str, y: &str, grid: bool) -> Result<()> {
    let mesh = &mut chart.configure_mesh();
    let mesh = mesh.axis_style(INK).label_style(text(14)).axis_desc_style(text(16)).x_desc(x).y_desc(y);
    let mesh = mesh.x_label_formatter(&number).y_label_formatter(&number).x_labels(12).y_labels(6);
    let mesh = if grid { mesh.light_line_style(WHITE).bold_line_style(FAINT) } else { mesh.disable_mesh() };
    mesh.draw().map_err(wrong)
}

/// A short form: no trailing zeros, powers of ten where they help.
fn number(x: &f64) -> String {
    // Ticks are sums of steps: what rounding leaves of zero is zero.
    if x.abs() < 1e-12 {
        return "0".into();
    }
    if !(1e-3..1e6).contains(&x.abs()) {
        return format!("{x:.1e}");
    }
    let text = format!("{x:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// From the least to the greatest, wider by `margin` of it on both sides, never empty.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
    let room = if high > low { margin * (high - low) } else { 0.5 * high.abs().max(1e-3) };
    low - room..high + room
}

fn text(size: i32) -> TextStyle<'static> {
    (FAMILY, size, &INK).into_text_style(&(WIDTH, WIDTH))
}

fn wrong(e: impl std::fmt::Display) -> Error {
    Error::input("picture", "a drawing that succeeds", e.to_string())
}

/// Draws on white and puts the whole picture at `path`.
fn write(path: &Path, height: u32, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    if !REGISTERED.get_or_init(|| register_font(FAMILY, FontStyle::Normal, FONT).is_ok()) {
        return Err(Error::input("the compiled-in font", "a TrueType font", "something else"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}.part.png", std::process::id()));
    let drawn = (|| {
        let root = BitMapBackend::new(&part, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        draw(&root)?;
        let fail =
            |e: DrawingAreaErrorKind<_>| Error::io("write", path, std::io::Error::other(e.to_string()));
        root.present().map_err(fail)?;
        // Dropping the backend writes again what is not yet presented; it must happen before the rename.
        drop(root);
        std::fs::rename(&part, path).map_err(|e| Error::io("rename", path, e))
    })();
    if drawn.is_err() {
        // Best effort: the error of the drawing is the one to tell.
        let _ = std::fs::remove_file(&part);
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chirp(rate: u32, seconds: f32) -> Vec<f32> {
        let len = (rate as f32 * seconds) as usize;
        let phase = |t: usize| std::f64::consts::PI * 0.4 * (t as f64).powi(2) / len as f64;
        (0..len).map(|t| 0.5 * phase(t).sin() as f32).collect()
    }

    #[test]
    fn a_tone_is_bright_where_it_sounds() {
        let (rate, size) = (16000, (100, 80));
        let tone: Vec<f32> = (0..16000).map(|t| (t as f32 * std::f32::consts::TAU / 8.0).sin()).collect();
        let image = raster(&tone, rate, 2.0, size).unwrap();
        let pixel = |x: usize, y: usize| [0, 1, 2].map(|c| image[(y * 100 + x) * 3 + c]);
        // 2 kHz of 8 is a quarter from the bottom: between lines 59 and 60 of 80.
        assert!([59, 60].iter().any(|y| pixel(25, *y) == VIRIDIS[8]), "{:?}", pixel(25, 59));
        assert!(pixel(25, 20)[0] < 80 && pixel(25, 20)[2] < 130, "{:?}", pixel(25, 20));
        assert_eq!(pixel(75, 60), [255; 3], "no sound there");
    }

    #[test]
    fn pictures_are_whole_png_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let sound = chirp(16000, 1.0);
        spectrogram_png(&path, &[("noisy", &sound), ("empty", &[]), ("one", &[0.1])], 16000).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 5000);
        sound_png(&path, &[("noisy", &sound), ("empty", &[]), ("one", &[0.1])], 16000).unwrap();
        assert!(std::fs::read(&path).unwrap().len() > bytes.len(), "waveforms above them");
        let points = [(0.0, 1.0), (1.0, f64::NAN), (2.0, 0.5)];
        curve_png(&path, "t", "x", "y", &[Series { name: "s", points: &points }]).unwrap();
        assert_ne!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no other file left");
    }

    #[test]
    fn what_cannot_be_drawn_or_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(spectrogram_png(&dir.path().join("a.png"), &[], 16000).is_err());
        assert!(spectrogram_png(&dir.path().join("a.png"), &[("a", &[0.0])], 0).is_err());
        assert!(curve_png(&dir.path().join("a.png"), "", "", "", &[]).is_err());
        let nowhere = dir.path().join("no/such/a.png");
        let error = spectrogram_png(&nowhere, &[("a", &[0.0])], 16000).unwrap_err().to_string();
        assert!(error.contains("a.png"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn numbers_are_short() {
        let got = [0.0, -5.6e-17, 0.5, 2.0, 1e-5, 2e6, 0.0625].map(|x| number(&x));
        assert_eq!(got, ["0", "0", "0.5", "2", "1.0e-5", "2.0e6", "0.0625"]);
    }
}
