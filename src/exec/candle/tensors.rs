//! Slices of candle's CPU tensors, and tensors of slices, for the ops.

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor};

use super::math::Real;

/// Numbers in a row.
pub(super) fn width(x: &Tensor) -> usize {
    x.dims().last().copied().unwrap_or(1)
}

/// The numbers of a contiguous tensor.
fn slice<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((from, to)) = layout.contiguous_offsets() else {
        candle_core::bail!("op: expected a contiguous tensor, got {layout:?}")
    };
    Ok(&T::cpu_storage_as_slice(storage)?[from..to])
}

/// Calls `f` with the numbers of some tensors, made contiguous first where they are not.
pub(super) fn with_all<T: Real, const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[T]; N]) -> R,
) -> Result<R> {
    let tensors = tensors.into_iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
    let held: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut slices: [&[T]; N] = [&[]; N];
    for (to, (storage, layout)) in slices.iter_mut().zip(&held) {
        match &**storage {
            Storage::Cpu(storage) => *to = slice(storage, layout)?,
            _ => candle_core::bail!("op: expected a tensor on the CPU"),
        }
    }
    Ok(f(slices))
}

/// A CPU tensor of numbers.
pub(super) fn tensor<T: Real>(data: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    Tensor::from_vec(data, shape, &Device::Cpu)
}

/// Runs `$body` with the type `$T` bound to f32 or f64 as the dtype says.
macro_rules! by_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("training: expected f32 or f64, got {other:?}"),
        }
    };
}
pub(super) use by_dtype;
