//! PyTorch's `.bin` files, read by candle.

use std::path::Path;

use candle_core::{DType, pickle::PthTensors};

use super::import::Sink;
use super::tensors::finite;
use crate::{Error, Result};

/// The tensors of one `.bin` file.
pub(super) fn each_tensor(path: &Path, sink: &mut Sink<'_>) -> Result<()> {
    let wrong = |e: candle_core::Error| Error::input("weights", "a PyTorch zip file", one_line(&e));
    let file = PthTensors::new(path, None).map_err(wrong)?;
    let mut names: Vec<_> = file.tensor_infos().keys().collect();
    names.sort_unstable();
    if names.is_empty() {
        return Err(Error::input("weights", "a PyTorch state dictionary", "no tensors"));
    }
    for name in names {
        let Some(tensor) = file.get(name).map_err(wrong)? else { continue };
        let flat = tensor.flatten_all().and_then(|t| t.to_dtype(DType::F32)).map_err(wrong)?;
        let values = flat.to_vec1::<f32>().map_err(wrong)?;
        finite(name, &values)?;
        sink(name, tensor.dims(), values)?;
    }
    Ok(())
}

/// Candle's message without its backtrace.
fn one_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or("an unreadable one").to_string()
}
