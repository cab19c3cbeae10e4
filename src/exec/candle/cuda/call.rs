//! Launching a kernel on views of candle's storages.

use candle_core::cuda_backend::cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute_enum};
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaView, CudaViewMut, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Layout, Result, Shape, Storage, Tensor, bail};

use super::super::columns::packed;

/// Compiled kernels of one source file.
pub(crate) struct Kernels {
    pub name: &'static str,
    pub ptx: &'static str,
}

/// Names the compiled kernels of `kernels/NAME.cu`.
macro_rules! kernels {
    ($name:literal) => {
        $crate::exec::candle::cuda::call::Kernels {
            name: $name,
            ptx: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/ptx/", $name, ".ptx")),
        }
    };
}
pub(crate) use kernels;

/// Blocks and threads of a launch.
pub(crate) type Grid = ((usize, usize), (usize, usize));

/// A grid of one thread a number, for kernels that stride over the rest.
pub(crate) fn each(count: usize) -> Grid {
    ((count.div_ceil(256).clamp(1, 1 << 20), 1), (256, 1))
}

/// Rows on the GPU: from the first number on, and how far apart they lie.
pub(crate) type Rows<'a> = (CudaView<'a, f32>, usize);

/// How far apart rows lie, if their numbers are neighbours and they are evenly apart.
fn apart(layout: &Layout) -> Option<usize> {
    let (dims, strides) = (layout.dims(), layout.stride());
    let ((width, outer), (one, strides)) = (dims.split_last()?, strides.split_last()?);
    if layout.is_contiguous() {
        return Some(*width);
    }
    let mut even = (*one == 1 || *width == 1).then_some(None);
    for (dim, stride) in outer.iter().zip(strides).rev().filter(|(dim, _)| **dim > 1) {
        even = match even? {
            None => Some(Some((*stride, dim * stride))),
            Some((first, next)) if next == *stride => Some(Some((first, next * dim))),
            Some(_) => None,
        };
    }
    even.map(|found| found.map_or(*width, |(first, _)| first))
}

/// Calls `f` with the device and the rows of some tensors on it; those whose rows are not evenly apart are copied first.
pub(crate) fn with_rows<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce(&CudaDevice, [Rows<'_>; N]) -> Result<R>,
) -> Result<R> {
    let even = |x: &Tensor| if apart(x.layout()).is_some() { Ok(x.clone()) } else { x.contiguous() };
    let tensors = tensors.into_iter().map(even).collect::<Result<Vec<_>>>()?;
    let held: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut views = Vec::with_capacity(N);
    let mut device = None;
    for (storage, layout) in &held {
        let (Storage::Cuda(storage), Some(apart)) = (&**storage, apart(layout)) else {
            bail!("op: expected all tensors on the GPU")
        };
        device = Some(storage.device.clone());
        let width = layout.dims().last().copied().unwrap_or(1);
        let rows = layout.shape().elem_count().checked_div(width).unwrap_or(0);
        let (from, len) = (layout.start_offset(), rows.checked_sub(1).map_or(0, |rows| rows * apart + width));
        views.push((storage.as_cuda_slice::<f32>()?.slice(from..from + len), apart));
    }
    match (device, <[Rows<'_>; N]>::try_from(views)) {
        (Some(device), Ok(views)) => f(&device, views),
        _ => bail!("op: no tensors given"),
    }
}

/// Calls `f` with the device and the numbers of some tensors on it, made contiguous first where they are not.
pub(crate) fn with_all<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce(&CudaDevice, [CudaView<'_, f32>; N]) -> Result<R>,
) -> Result<R> {
    let tensors = tensors.into_iter().map(packed).collect::<Result<Vec<_>>>()?;
    let Ok(tensors) = <[Tensor; N]>::try_from(tensors) else { bail!("op: no tensors given") };
    with_rows(tensors.each_ref(), |device, rows| f(device, rows.map(|(view, _)| view)))
}

/// A launch with three dimensions of blocks and bytes of shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    pub grid: [usize; 3],
    pub block: [usize; 2],
    pub shared: usize,
}

/// Bytes of shared memory that a kernel has without asking.
pub(crate) const SHARED: usize = 48 << 10;

/// How many multiprocessors a device has.
pub(crate) fn multiprocessors(device: &CudaDevice) -> Result<usize> {
    let count = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    Ok(device.cuda_stream().context().attribute(count).w()?.max(1) as usize)
}

/// Runs a kernel whose arguments are the inputs, the results and the sizes, in this order.
pub(crate) fn launch(
    device: &CudaDevice,
    kernel: (&Kernels, &str),
    ((bx, by), (tx, ty)): Grid,
    inputs: &[&CudaView<'_, f32>],
    results: &mut [&mut CudaSlice<f32>],
    sizes: &[usize],
) -> Result<()> {
    let mut views: Vec<_> = results.iter_mut().map(|x| x.slice_mut(..)).collect();
    let mut results: Vec<_> = views.iter_mut().collect();
    let grid = Launch { grid: [bx, by, 1], block: [tx, ty], shared: 0 };
    launch_on(device, kernel, grid, inputs, &mut results, sizes)
}

/// The same into parts of results.
pub(crate) fn launch_on(
    device: &CudaDevice,
    (kernels, name): (&Kernels, &str),
    Launch { grid, block, shared }: Launch,
    inputs: &[&CudaView<'_, f32>],
    results: &mut [&mut CudaViewMut<'_, f32>],
    sizes: &[usize],
) -> Result<()> {
    let longest = inputs.iter().map(|x| x.len()).chain(results.iter().map(|x| x.len())).max().unwrap_or(0);
    let Ok(sizes) = sizes.iter().map(|n| i32::try_from(*n)).collect::<std::result::Result<Vec<_>, _>>()
    else {
        bail!("kernel {name}: expected sizes below 2³¹, got {sizes:?}")
    };
    if longest > i32::MAX as usize {
        bail!("kernel {name}: expected tensors of fewer than 2³¹ numbers, got {longest}");
    }
    if grid[1].max(grid[2]) > 65_535 {
        bail!("kernel {name}: expected at most 65,535 blocks down and deep, got {grid:?}");
    }
    let config = LaunchConfig {
        grid_dim: (grid[0] as u32, grid[1] as u32, grid[2] as u32),
        block_dim: (block[0] as u32, block[1] as u32, 1),
        shared_mem_bytes: shared as u32,
    };
    let function = device.get_or_load_custom_func(name, kernels.name, kernels.ptx)?;
    // A kernel may have a little of its own beside.
    if shared + 1024 > SHARED {
        let limit = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let limit = device.cuda_stream().context().attribute(limit).w()? as usize;
        if shared > limit {
            bail!("kernel {name}: expected at most {limit} bytes of shared memory on this GPU, got {shared}");
        }
        let most = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(most, shared as i32).w()?;
    }
    let mut args = function.builder();
    inputs.iter().for_each(|x| {
        args.arg(*x);
    });
    results.iter_mut().for_each(|x| {
        args.arg(&mut **x);
    });
    sizes.iter().for_each(|n| {
        args.arg(n);
    });
    // SAFETY: inputs, results and sizes are in the kernel's order, and the callers give results of the lengths it writes.
    #[allow(unsafe_code)]
    unsafe {
        args.launch(config).w()?;
    }
    Ok(())
}

/// Room for a kernel's results.
pub(crate) fn room(device: &CudaDevice, len: usize) -> Result<CudaSlice<f32>> {
    // SAFETY: every kernel writes all of its results before anything reads them.
    #[allow(unsafe_code)]
    unsafe {
        device.alloc::<f32>(len.max(1))
    }
}

/// A tensor of results.
pub(crate) fn tensor(slice: CudaSlice<f32>, device: &CudaDevice, shape: impl Into<Shape>) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(slice, device.clone());
    Tensor::from_storage(Storage::Cuda(storage), shape.into(), BackpropOp::none(), false)
}
