//! Reads the judges' files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value;

/// The folder of the goldens.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// The names of the files that begin with `prefix`; as many as the test knows of.
pub fn names(prefix: &str, count: usize) -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let stem = |file: String| Some(file.strip_suffix(".safetensors")?.to_string());
    let mut names: Vec<_> = entries.filter_map(stem).filter(|n| n.starts_with(prefix)).collect();
    names.sort();
    assert_eq!(names.len(), count, "{prefix}: {names:?}");
    names
}

/// One file: its tensors, widened to f64 (which changes no number), and its metadata.
pub struct Golden {
    pub name: String,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    about: Value,
}

impl Golden {
    pub fn load(name: &str) -> Self {
        let bytes = std::fs::read(folder().join(format!("{name}.safetensors"))).unwrap();
        let (_, meta) = SafeTensors::read_metadata(&bytes).unwrap();
        let about = serde_json::from_str(&meta.metadata().as_ref().unwrap()["golden"]).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |dtype, data: &[u8]| -> Vec<f64> {
            match dtype {
                Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
                Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
                Dtype::I64 => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
                other => panic!("{name}: {other:?}"),
            }
        };
        let tensor = |(key, view): (String, safetensors::tensor::TensorView<'_>)| {
            (key, (view.shape().to_vec(), numbers(view.dtype(), view.data())))
        };
        Self { name: name.into(), tensors: file.tensors().into_iter().map(tensor).collect(), about }
    }

    pub fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    pub fn get(&self, tensor: &str) -> &[f64] {
        &self.tensor(tensor).1
    }

    pub fn shape(&self, tensor: &str) -> &[usize] {
        &self.tensor(tensor).0
    }

    /// The tensor as it is stored.
    pub fn f32(&self, tensor: &str) -> Vec<f32> {
        narrow(self.get(tensor))
    }

    pub fn tokens(&self, tensor: &str) -> Vec<u32> {
        self.get(tensor).iter().map(|x| *x as u32).collect()
    }

    /// A key of the metadata.
    pub fn about(&self, key: &str) -> &Value {
        &self.about[key]
    }

    /// The names of the tensors.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    fn tensor(&self, tensor: &str) -> &(Vec<usize>, Vec<f64>) {
        self.tensors.get(tensor).unwrap_or_else(|| panic!("{} has no {tensor}", self.name))
    }
}

pub fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|x| *x as f32).collect()
}

/// max|a − b| / max|b|; the difference itself where b is 0.
pub fn error(a: &[f64], b: &[f64]) -> f64 {
    let most = b.iter().fold(0f64, |m, x| m.max(x.abs()));
    largest_difference(a, b) / if most > 0.0 { most } else { 1.0 }
}

/// max|a − b|; NaN if any is.
pub fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m, x| if x.is_nan() || x > m { x } else { m })
}

/// max |a − b| / (atol + rtol·|b|): at most 1 where `allclose` holds.
pub fn share_of_allclose(a: &[f64], b: &[f64], (rtol, atol): (f64, f64)) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / (atol + rtol * b.abs())).fold(0.0, f64::max)
}

/// Tables `[rows, w]` side by side: `[rows, Σw]`.
pub fn beside(tables: &[(&[f64], usize)]) -> Vec<f64> {
    let rows = tables[0].0.len() / tables[0].1;
    (0..rows).flat_map(|r| tables.iter().flat_map(move |(t, w)| &t[r * w..(r + 1) * w])).copied().collect()
}

/// Columns `from .. from + width` of a table `[rows, of]`.
pub fn columns(table: &[f64], of: usize, from: usize, width: usize) -> Vec<f64> {
    table.chunks(of).flat_map(|row| &row[from..from + width]).copied().collect()
}

/// A judge's h `[B, D, N]` or `[B, D, N, 2]` as a state slot `[B, R, D]`: N rows, or N real and then N imaginary rows.
pub fn to_slot(h: &[f64], d: usize, n: usize, complex: bool) -> Vec<f64> {
    let parts = if complex { 2 } else { 1 };
    let mut slot = vec![0.0; h.len()];
    for (i, x) in h.iter().enumerate() {
        slot[place(i, d, n, parts)] = *x;
    }
    slot
}

/// The reverse of [`to_slot`].
pub fn from_slot(slot: &[f64], d: usize, n: usize, complex: bool) -> Vec<f64> {
    let parts = if complex { 2 } else { 1 };
    (0..slot.len()).map(|i| slot[place(i, d, n, parts)]).collect()
}

/// Where element i of `[B, D, N, parts]` is in `[B, parts·N, D]`.
fn place(i: usize, d: usize, n: usize, parts: usize) -> usize {
    let (part, k, channel, stream) = (i % parts, i / parts % n, i / parts / n % d, i / parts / n / d);
    ((stream * parts + part) * n + k) * d + channel
}
