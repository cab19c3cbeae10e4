//! Clips of sound held in memory as 16-bit integers with one scale each: 115 MB for an hour at 16 kHz.
//!
//! The order of the clips is that of their sorted paths, whatever the folder's order or the number of threads that
//! load them, so a clip's number means the same in every run over the same files.
//!
//! ```
//! use cascabel::train::corpus::Corpus;
//! let corpus = Corpus::from_clips([("ada".to_string(), vec![0.5f32, -0.25])])?;
//! assert_eq!((corpus.len(), corpus.samples()), (1, 2));
//! # Ok::<(), cascabel::Error>(())
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::random::Dice;
use super::spread::spread;
use crate::error::{Error, Result};

/// What counts as sound in a folder.
const EXTENSIONS: [&str; 12] =
    ["wav", "flac", "ogg", "oga", "opus", "mp3", "m4a", "aac", "aiff", "aif", "caf", "mka"];

/// How many folders deep sound is looked for.
const DEEPEST: usize = 16;

/// How a file's speaker is told from its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The folder it lies in.
    #[default]
    Folder,
    /// The folder, and the file's name up to the first `_` or `-` (VCTK: `p226_001.wav`).
    Prefix,
}

impl Source {
    fn of(self, path: &Path) -> String {
        let folder = path.parent().unwrap_or(Path::new("")).to_string_lossy();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        match self {
            Self::Folder => folder.into_owned(),
            Self::Prefix => format!("{folder}/{}", stem.split(['_', '-']).next().unwrap_or_default()),
        }
    }
}

struct Clip {
    data: Vec<i16>,
    scale: f32,
    source: usize,
}

/// A set of clips, each of one source.
pub struct Corpus {
    clips: Vec<Clip>,
    sources: Vec<Vec<usize>>,
    hash: blake3::Hash,
    /// Sums of the roots of the clips' lengths, up to each.
    weights: Vec<f64>,
}

impl Corpus {
    /// Loads every sound file under `dirs` on all cores.
    ///
    /// `read` decodes one file to one channel at the corpus's rate.
    pub fn open(
        dirs: &[PathBuf],
        source: Source,
        read: &(dyn Fn(&Path) -> Result<Vec<f32>> + Sync),
    ) -> Result<Self> {
        Self::load(&find(dirs)?, source, read)
    }

    /// Loads `files`, in that order, on all cores.
    pub fn load(
        files: &[PathBuf],
        source: Source,
        read: &(dyn Fn(&Path) -> Result<Vec<f32>> + Sync),
    ) -> Result<Self> {
        let packed = read_all(files, &|path| pack(&path.to_string_lossy(), &read(path)?))?;
        let sources = files.iter().map(|path| source.of(path));
        Self::gather(sources.zip(packed).collect())
    }

    /// A corpus of (source, samples).
    pub fn from_clips(clips: impl IntoIterator<Item = (String, Vec<f32>)>) -> Result<Self> {
        let pack = |(source, samples): (String, Vec<f32>)| Ok((source.clone(), pack(&source, &samples)?));
        Self::gather(clips.into_iter().map(pack).collect::<Result<Vec<_>>>()?)
    }

    fn gather(packed: Vec<(String, (Vec<i16>, f32))>) -> Result<Self> {
        let mut names = BTreeMap::new();
        let (mut clips, mut sources) = (Vec::new(), Vec::<Vec<usize>>::new());
        let mut hash = blake3::Hasher::new();
        for (name, (data, scale)) in packed.into_iter().filter(|(_, (data, _))| !data.is_empty()) {
            let source = *names.entry(name).or_insert_with(|| {
                sources.push(Vec::new());
                sources.len() - 1
            });
            hash.update(&(data.len() as u64).to_le_bytes());
            hash.update(&scale.to_le_bytes());
            hash.update(&data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
            sources[source].push(clips.len());
            clips.push(Clip { data, scale, source });
        }
        if clips.is_empty() {
            return Err(Error::input("corpus", "at least one clip that is not empty", "none"));
        }
        let grow = |sum: &mut f64, clip: &Clip| {
            *sum += (clip.data.len() as f64).sqrt();
            Some(*sum)
        };
        let weights = clips.iter().scan(0.0, grow).collect();
        Ok(Self { clips, sources, weights, hash: hash.finalize() })
    }

    /// How many clips; 1 or more.
    #[expect(clippy::len_without_is_empty, reason = "a corpus is never empty")]
    pub fn len(&self) -> usize {
        self.clips.len()
    }

    /// How many sources.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Samples in all.
    pub fn samples(&self) -> usize {
        self.clips.iter().map(|clip| clip.data.len()).sum()
    }

    /// A hash of the clips' samples in their order: a resumed run checks that its data is the same.
    pub fn hash(&self) -> String {
        self.hash.to_hex().to_string()
    }

    /// Length of clip `i`; 1 or more.
    pub(super) fn clip_len(&self, i: usize) -> usize {
        self.clips[i].data.len()
    }

    /// Copies clip `i` from sample `from` on to `out`, which must not be longer than what is left.
    pub(super) fn copy(&self, i: usize, from: usize, out: &mut [f32]) {
        let clip = &self.clips[i];
        for (out, x) in out.iter_mut().zip(&clip.data[from..]) {
            *out = f32::from(*x) * clip.scale;
        }
    }

    /// Any clip.
    pub(super) fn any(&self, dice: &mut Dice) -> usize {
        dice.below(self.clips.len())
    }

    /// A clip, drawn with the root of its length as weight: long ambiences are heard more often than short knocks.
    pub(super) fn any_by_length(&self, dice: &mut Dice) -> usize {
        let at = dice.unit() * self.weights.last().copied().unwrap_or(0.0);
        self.weights.partition_point(|sum| *sum <= at).min(self.clips.len() - 1)
    }

    /// A clip of the same source as clip `i`, perhaps the same one.
    pub(super) fn sibling(&self, i: usize, dice: &mut Dice) -> usize {
        let clips = &self.sources[self.clips[i].source];
        clips[dice.below(clips.len())]
    }
}

/// Samples as integers and what one is worth, so that quiet clips keep 15 bits.
fn pack(name: &str, samples: &[f32]) -> Result<(Vec<i16>, f32)> {
    if samples.iter().any(|x| !x.is_finite()) {
        return Err(Error::input(name, "finite samples", "NaN or infinity"));
    }
    let peak = samples.iter().fold(0f32, |peak, x| peak.max(x.abs()));
    let scale = if peak > 0.0 { peak / 32767.0 } else { 1.0 };
    Ok((samples.iter().map(|x| (x / scale).round() as i16).collect(), scale))
}

/// What `read` makes of each file, in their order, on all cores.
pub(super) fn read_all<R: Send>(
    files: &[PathBuf],
    read: &(dyn Fn(&Path) -> Result<R> + Sync),
) -> Result<Vec<R>> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(files.len());
    spread(&mut vec![(); threads], files.len(), |_, i| read(&files[i]))
}

/// Every sound file under `dirs`, sorted by path within each; hidden files and folders are left out.
pub fn find(dirs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for dir in dirs {
        let from = files.len();
        walk(dir, 0, &mut files)?;
        files[from..].sort();
        if files.len() == from {
            return Err(Error::input(dir.to_string_lossy(), "a folder with sound files", "none in it"));
        }
    }
    Ok(files)
}

fn walk(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))?;
    for entry in entries {
        let path = entry.map_err(|e| Error::io("list", dir, e))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if hidden {
            continue;
        } else if path.is_dir() && depth < DEEPEST {
            walk(&path, depth + 1, files)?;
        } else if path.is_file() && EXTENSIONS.contains(&extension.as_str()) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes files whose one sample is told by their name's last digit.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/z_1.wav", "b/y_2.FLAC", "a/x_3.wav", "a/x_4.ogg", "a/notes.txt", ".git/q_5.wav"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        dir
    }

    fn digit(path: &Path) -> f32 {
        let stem = path.file_stem().unwrap().to_string_lossy();
        f32::from(stem.as_bytes()[stem.len() - 1] - b'0') / 10.0
    }

    fn first_samples(corpus: &Corpus) -> Vec<f32> {
        let first = |i| {
            let mut out = [0.0];
            corpus.copy(i, 0, &mut out);
            (out[0] * 1e4).round() / 1e4
        };
        (0..corpus.len()).map(first).collect()
    }

    #[test]
    fn files_are_found_in_order_and_grouped() {
        let dir = folder();
        let dirs = [dir.path().to_path_buf()];
        let read = |path: &Path| {
            // The first files finish last: the order must not follow.
            std::thread::sleep(std::time::Duration::from_millis(8 - (digit(path) * 20.0) as u64));
            Ok(vec![digit(path); 3])
        };
        let corpus = Corpus::open(&dirs, Source::Folder, &read).unwrap();
        assert_eq!(first_samples(&corpus), [0.3, 0.4, 0.2, 0.1]);
        assert_eq!((corpus.sources(), corpus.samples()), (2, 12));
        let by_prefix = Corpus::open(&dirs, Source::Prefix, &read).unwrap();
        assert_eq!(by_prefix.sources(), 3);
        assert_eq!(by_prefix.hash(), corpus.hash());
        let mut dice = Dice::new(1, 1);
        assert!((0..50).all(|_| corpus.sibling(0, &mut dice) < 2 && by_prefix.sibling(3, &mut dice) == 3));
        let other = Corpus::open(&dirs, Source::Folder, &|path| Ok(vec![digit(path); 4])).unwrap();
        assert_ne!(other.hash(), corpus.hash());
    }

    #[test]
    fn what_cannot_be_used_is_an_error() {
        let dir = folder();
        let dirs = [dir.path().to_path_buf()];
        let bad = |path: &Path| Ok(vec![if digit(path) == 0.2 { f32::NAN } else { 0.1 }]);
        let error = Corpus::open(&dirs, Source::Folder, &bad).err().unwrap().to_string();
        assert!(error.contains("y_2.FLAC") && error.contains("NaN"), "{error}");
        assert!(Corpus::open(&dirs, Source::Folder, &|_| Ok(vec![])).is_err());
        let empty = tempfile::tempdir().unwrap();
        assert!(find(&[empty.path().to_path_buf()]).is_err());
        assert!(find(&[dir.path().join("nowhere")]).unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn quiet_clips_keep_their_precision() {
        let quiet: Vec<f32> = (0..100).map(|i| 1e-4 * (i as f32 * 0.2).sin()).collect();
        let corpus = Corpus::from_clips([("q".into(), quiet.clone()), ("loud".into(), vec![3.0])]).unwrap();
        let mut out = vec![0.0; 50];
        corpus.copy(0, 50, &mut out);
        assert!(out.iter().zip(&quiet[50..]).all(|(a, b)| (a - b).abs() < 2e-9));
        corpus.copy(1, 0, &mut out[..1]);
        assert_eq!(out[0], 3.0);
    }
}
