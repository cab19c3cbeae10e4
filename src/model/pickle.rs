//! PyTorch's `.bin` files: a zip archive, uncompressed, of a pickle that describes the tensors and one entry for each storage.
//!
//! Candle reads the pickle, as bytes that have passed the archive's checksum, and a panic in there becomes an error. The tensors are
//! gathered here, by their strides, and only where the file is large enough to hold them. A pickle made to exhaust the memory or the
//! stack still can: of a stranger's checkpoint take the safetensors.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::DType;
use candle_core::pickle::{Object, Stack, TensorInfo};
use half::{bf16, f16};
use zip::ZipArchive;

use super::import::Sink;
use super::tensors::finite;
use crate::guard::guarded;
use crate::{Error, Result};

/// The end of the pickle's name in the archive.
const PICKLE: &str = "data.pkl";
/// The longest pickle read, in bytes; the largest Mamba's is 0.1 MB.
const MAX_PICKLE: usize = 16 << 20;

/// A tensor's name, shape and values.
type Tensor = (String, Vec<usize>, Vec<f32>);

/// The tensors of one `.bin` file, in the order of their names.
pub(super) fn each_tensor(path: &Path, sink: &mut Sink<'_>) -> Result<()> {
    let tensors = guarded(|| read(path)).unwrap_or_else(|| Err(bad("one that is damaged")))?;
    for (name, shape, values) in tensors {
        finite(&name, &values)?;
        sink(&name, &shape, values)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Tensor>> {
    let system = |e| Error::io("read", path, e);
    let file = File::open(path).map_err(system)?;
    let length = usize::try_from(file.metadata().map_err(system)?.len()).unwrap_or(usize::MAX);
    let mut archive = Archive { zip: ZipArchive::new(file).map_err(|e| bad(&one_line(&e)))?, length };
    let mut infos = archive.infos()?;
    if infos.is_empty() {
        return Err(Error::input("weights", "a PyTorch state dictionary", "no tensors"));
    }
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    infos.into_iter().map(|info| archive.tensor(info)).collect()
}

/// An open archive, and the file's length, which bounds what can be in it.
struct Archive {
    zip: ZipArchive<File>,
    length: usize,
}

impl Archive {
    /// An entry's bytes: as many as it says, at most `most`, with its checksum.
    fn entry(&mut self, name: &str, most: usize) -> Result<Vec<u8>> {
        let wrong = |got: &str| Error::input(format!("weights, entry {name}"), "a whole one", got);
        let mut entry = self.zip.by_name(name).map_err(|e| wrong(&one_line(&e)))?;
        if entry.size() > most as u64 {
            return Err(wrong(&format!("one of {} bytes", entry.size())));
        }
        let mut bytes = Vec::new();
        // The checksum is compared where the entry ends: one byte beyond is asked for.
        entry.by_ref().take(most as u64 + 1).read_to_end(&mut bytes).map_err(|e| wrong(&one_line(&e)))?;
        Ok(bytes)
    }

    /// What the pickle says of each tensor.
    fn infos(&mut self) -> Result<Vec<TensorInfo>> {
        let name = self.zip.file_names().flatten().find(|name| name.ends_with(PICKLE));
        let name = name.ok_or_else(|| bad("an archive without data.pkl"))?.into_owned();
        let folder = PathBuf::from(name.trim_end_matches(".pkl"));
        let bytes = self.entry(&name, MAX_PICKLE)?;
        let mut stack = Stack::empty();
        stack.read_loop(&mut bytes.as_slice()).map_err(|e| bad(&one_line(&e)))?;
        let Object::Dict(items) = stack.finalize().map_err(|e| bad(&one_line(&e)))? else {
            return Err(Error::input("weights", "a PyTorch state dictionary", "another object"));
        };
        let info = |(key, value): (Object, Object)| value.into_tensor_info(key, &folder).transpose();
        items.into_iter().filter_map(info).map(|info| info.map_err(|e| bad(&one_line(&e)))).collect()
    }

    fn tensor(&mut self, info: TensorInfo) -> Result<Tensor> {
        let wrong = |expected: &str, got: &str| Error::input(format!("tensor {}", info.name), expected, got);
        let (dims, strides) = (info.layout.dims(), info.layout.stride());
        let size = info.dtype.size_in_bytes();
        let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let Some(count) = count.filter(|n| n.saturating_mul(size) <= self.length) else {
            return Err(wrong("a shape that fits into the file", &format!("{dims:?}")));
        };
        let bytes = self.entry(&info.path, self.length)?;
        let number: fn(&[u8]) -> Option<f32> = match info.dtype {
            DType::F32 => |b| Some(f32::from_le_bytes(*b.first_chunk()?)),
            DType::F64 => |b| Some(f64::from_le_bytes(*b.first_chunk()?) as f32),
            DType::F16 => |b| Some(f16::from_le_bytes(*b.first_chunk()?).to_f32()),
            DType::BF16 => |b| Some(bf16::from_le_bytes(*b.first_chunk()?).to_f32()),
            other => return Err(wrong("floating-point numbers", other.as_str())),
        };
        let first = info.layout.start_offset() / size;
        let at = |index: usize| number(bytes.get(index.checked_mul(size)?..)?);
        let values = (0..count).map(|i| at(place(i, dims, strides)?.checked_add(first)?));
        let values = values.collect::<Option<Vec<f32>>>();
        let values = values.ok_or_else(|| wrong("all its numbers in its storage", "fewer"))?;
        Ok((info.name, info.layout.shape().dims().to_vec(), values))
    }
}

/// Where the i-th number of a strided tensor stands, the last axis running fastest.
fn place(mut i: usize, dims: &[usize], strides: &[usize]) -> Option<usize> {
    let mut at = 0usize;
    for (dim, stride) in dims.iter().zip(strides).rev() {
        at = at.checked_add((i % dim).checked_mul(*stride)?)?;
        i /= dim;
    }
    Some(at)
}

fn bad(got: &str) -> Error {
    Error::input("weights", "a PyTorch zip file", got)
}

/// A message without its backtrace.
fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or("an unreadable one").to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::path::PathBuf;

    use proptest::prelude::*;

    use crate::model::import;

    fn checkpoint() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/mamba_lm/tiny/original")
    }

    /// The checkpoint with other weights or another config.json: a model, or one line.
    fn answers(weights: Option<&[u8]>, config: Option<&[u8]>) -> Result<bool, TestCaseError> {
        let folder = tempfile::tempdir()?;
        for (name, bytes) in [("pytorch_model.bin", weights), ("config.json", config)] {
            let to = folder.path().join(name);
            match bytes {
                Some(bytes) => std::fs::write(to, bytes)?,
                None => drop(std::fs::copy(checkpoint().join(name), to)?),
            }
        }
        match import(folder.path()) {
            Ok(_) => Ok(true),
            Err(error) => {
                let line = error.to_string();
                prop_assert!(!line.contains('\n') && line.len() < 2_000, "{line}");
                Ok(false)
            }
        }
    }

    /// The checkpoint's archive with its pickle changed, under a checksum that holds.
    fn with_pickle(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let file = std::fs::File::open(checkpoint().join("pytorch_model.bin")).unwrap();
        let mut from = zip::ZipArchive::new(file).unwrap();
        let mut to = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let mut change = Some(change);
        for i in 0..from.len() {
            let mut entry = from.by_index(i).unwrap();
            let name = entry.name().unwrap().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if let Some(change) = change.take_if(|_| name.ends_with(super::PICKLE)) {
                change(&mut bytes);
            }
            to.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            to.write_all(&bytes).unwrap();
        }
        to.finish().unwrap().into_inner()
    }

    #[test]
    fn a_checkpoint_cut_anywhere_is_refused() {
        let whole = std::fs::read(checkpoint().join("pytorch_model.bin")).unwrap();
        assert!(answers(Some(&whole), None).unwrap());
        let ends = (0..whole.len()).step_by(997).chain(whole.len() - 300..whole.len());
        for end in ends {
            assert!(!answers(Some(&whole[..end]), None).unwrap(), "cut to {end} bytes");
        }
    }

    #[test]
    fn strides_are_followed() {
        let at = |i| super::place(i, &[2, 3], &[1, 2]);
        assert_eq!((0..6).map(at).collect::<Option<Vec<_>>>(), Some(vec![0, 2, 4, 1, 3, 5]));
        assert_eq!(super::place(0, &[], &[]), Some(0));
        assert_eq!(super::place(5, &[2, 3], &[usize::MAX, 2]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn flipped_bytes_never_panic(
            flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8.., 0..3usize), 1..4),
        ) {
            let mut bytes = std::fs::read(checkpoint().join("pytorch_model.bin"))?;
            let len = bytes.len();
            for (place, change, part) in flips {
                // The pickle, at the front; the archive's list, at the end; anywhere.
                let at = match part {
                    0 => place.index(3_500),
                    1 => len - 1 - place.index(3_500),
                    _ => place.index(len),
                };
                bytes[at] ^= change;
            }
            answers(Some(&bytes), None)?;
        }

        #[test]
        fn a_spoiled_pickle_never_panics(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
        ) {
            let bytes = with_pickle(|pickle| {
                for (place, byte) in &flips {
                    let at = place.index(pickle.len());
                    pickle[at] = *byte;
                }
                pickle.truncate(cut.map_or(pickle.len(), |cut| cut.index(pickle.len())));
            });
            let read = answers(Some(&bytes), None)?;
            prop_assert!(read || !flips.is_empty() || cut.is_some());
        }

        #[test]
        fn a_spoiled_config_never_panics(
            at in any::<prop::sample::Index>(), with in "[0-9a-z\"{}:,.eE-]{0,6}", gone in 0..6usize,
        ) {
            let mut text = std::fs::read(checkpoint().join("config.json"))?;
            let start = at.index(text.len());
            text.splice(start..(start + gone).min(text.len()), with.bytes());
            answers(None, Some(&text))?;
        }
    }
}
