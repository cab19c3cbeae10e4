//! Many tensors side by side in one, a few launches for all.

use std::ops::Range;

use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{Device, Result, Storage, Tensor, bail};

use super::super::columns::packed;
use super::call::{Kernels, kernels, tensor};

const KERNELS: Kernels = kernels!("flat");

/// Parts of one launch.
const AT_ONCE: usize = 64;

/// As the kernel takes them.
#[repr(C)]
struct Parts {
    from: [u64; AT_ONCE],
    at: [u32; AT_ONCE],
    len: [u32; AT_ONCE],
}

// SAFETY: laid out as the kernel's struct, addresses and numbers alone.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Parts {}

/// `len` numbers, those of each tensor at its range and zeros elsewhere.
pub fn gather(parts: &[(Range<usize>, &Tensor)], len: usize, device: &Device) -> Result<Tensor> {
    let Device::Cuda(device) = device else { bail!("expected a GPU") };
    if len > u32::MAX as usize || parts.iter().any(|(at, x)| at.end > len || at.len() != x.elem_count()) {
        bail!("gather: expected tensors that fit their places among {len} numbers");
    }
    let mut flat = device.alloc_zeros::<f32>(len.max(1))?;
    for parts in parts.chunks(AT_ONCE) {
        let whole = parts.iter().map(|(_, x)| packed(x)).collect::<Result<Vec<_>>>()?;
        place(device, parts, &whole, &mut flat)?;
    }
    Ok(tensor(flat, device, len))
}

fn place(
    device: &CudaDevice,
    parts: &[(Range<usize>, &Tensor)],
    whole: &[Tensor],
    flat: &mut CudaSlice<f32>,
) -> Result<()> {
    let stream = device.cuda_stream();
    let held: Vec<_> = whole.iter().map(Tensor::storage_and_layout).collect();
    let mut table = Parts { from: [0; AT_ONCE], at: [0; AT_ONCE], len: [0; AT_ONCE] };
    let mut reads = Vec::with_capacity(parts.len());
    let places = table.from.iter_mut().zip(&mut table.at).zip(&mut table.len);
    for (((from, at), len), ((range, _), (storage, layout))) in places.zip(parts.iter().zip(&held)) {
        let Storage::Cuda(storage) = &**storage else { bail!("gather: expected all tensors on the GPU") };
        let slice = storage.as_cuda_slice::<f32>()?;
        let (pointer, read) = slice.device_ptr(&stream);
        *from = pointer + (layout.start_offset() * size_of::<f32>()) as u64;
        (*at, *len) = (range.start as u32, range.len() as u32);
        reads.push(read);
    }
    let longest = parts.iter().map(|(at, _)| at.len()).max().unwrap_or(0);
    let config = LaunchConfig {
        grid_dim: (longest.div_ceil(256).clamp(1, 64) as u32, parts.len() as u32, 1),
        block_dim: (256, 1, 1),
        shared_mem_bytes: 0,
    };
    let function = device.get_or_load_custom_func("place_parts", KERNELS.name, KERNELS.ptx)?;
    let mut args = function.builder();
    args.arg(&table).arg(flat);
    // SAFETY: every part's numbers lie in a tensor held until the launch is on the stream, and have their place in `flat`.
    #[allow(unsafe_code)]
    unsafe {
        args.launch(config).w()?;
    }
    drop(reads);
    Ok(())
}
