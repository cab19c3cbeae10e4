//! Reading tensors out of safetensors bytes that may be damaged or hostile.

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorView};

use crate::{Error, Result};

/// The longest header read, in bytes; the largest Mamba's is 0.1 MB.
const MAX_HEADER: u64 = 16 << 20;

/// The tensors and the metadata of a whole safetensors file.
pub fn open(bytes: &[u8]) -> Result<(SafeTensors<'_>, Metadata)> {
    let header = bytes.first_chunk().map(|first| u64::from_le_bytes(*first));
    match header {
        None => return Err(bad("at least 8 bytes", format!("{} bytes", bytes.len()))),
        Some(length) if length > MAX_HEADER => {
            return Err(bad("a safetensors file", format!("one whose header would be {length} bytes long")));
        }
        Some(_) => {}
    }
    let read = |e: safetensors::SafeTensorError| bad("a whole safetensors file", e.to_string());
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(read)?;
    Ok((SafeTensors::deserialize(bytes).map_err(read)?, metadata))
}

fn bad(expected: &str, got: String) -> Error {
    Error::input("safetensors", expected, got)
}

/// A tensor's numbers as f32, checked to be finite; f32, f16 and bf16 are taken.
pub fn numbers(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
    let half = |convert: fn([u8; 2]) -> f32| -> Vec<f32> {
        view.data().as_chunks().0.iter().map(|bytes| convert(*bytes)).collect()
    };
    let values = match view.dtype() {
        Dtype::F32 => view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => half(|bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => half(|bytes| bf16::from_le_bytes(bytes).to_f32()),
        other => {
            return Err(Error::input(format!("tensor {name}"), "f32, f16 or bf16", format!("{other:?}")));
        }
    };
    finite(name, &values)?;
    Ok(values)
}

/// The smallest type that holds each number exactly, f16 or f32, and the numbers in it.
pub fn bytes(values: &[f32]) -> (Dtype, Vec<u8>) {
    let exact = |x: &f32| f16::from_f32(*x).to_f32().to_bits() == x.to_bits();
    match values.iter().all(exact) {
        true => (Dtype::F16, values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()),
        false => (Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
    }
}

/// An error unless all values are finite.
pub fn finite(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(at) => {
            let got = format!("{} at element {at}", values[at]);
            Err(Error::input(format!("tensor {name}"), "finite numbers", got))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_widened_exactly_and_nan_is_named() {
        let read = |dtype, bytes: &[u8]| numbers("t", &TensorView::new(dtype, vec![2], bytes).unwrap());
        let f16s: Vec<u8> = [1.5, -6.1e-5].iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        assert_eq!(read(Dtype::F16, &f16s).unwrap(), [1.5, f16::from_f32(-6.1e-5).to_f32()]);
        let bf16s: Vec<u8> = [3.0, 1e30].iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
        assert_eq!(read(Dtype::BF16, &bf16s).unwrap(), [3.0, bf16::from_f32(1e30).to_f32()]);
        let nan: Vec<u8> = [0.0, f32::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(
            read(Dtype::F32, &nan).unwrap_err().to_string(),
            "tensor t: expected finite numbers, got NaN at element 1"
        );
        assert!(read(Dtype::I32, &nan).unwrap_err().to_string().contains("I32"));
    }

    #[test]
    fn numbers_are_written_in_the_smallest_type_that_holds_them() {
        for (values, dtype) in [
            (vec![0.0, -1.5, 65_504.0], Dtype::F16),
            (vec![0.0, 0.1], Dtype::F32),
            (vec![1e6], Dtype::F32),
            (vec![-0.0], Dtype::F16),
        ] {
            let (found, bytes) = bytes(&values);
            assert_eq!(found, dtype, "{values:?}");
            let view = TensorView::new(found, vec![values.len()], &bytes).unwrap();
            let back = numbers("t", &view).unwrap();
            assert!(back.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn a_huge_header_is_refused_by_its_length() {
        let message = open(&[255; 64]).err().unwrap().to_string();
        assert!(message.contains("expected a safetensors file, got one whose header"), "{message}");
    }
}
