//! Matrix products, by cuBLAS; sums over rows: the gradient of a bias, and of what blocks of a kernel leave.

use std::ffi::{c_int, c_void};

use candle_core::cuda_backend::cudarc::cublas::result::gemm_ex;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasComputeType_t::*;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t::{self, CUBLAS_OP_N, CUBLAS_OP_T};
use candle_core::cuda_backend::cudarc::cublas::sys::cudaDataType_t::{CUDA_R_16BF, CUDA_R_32F};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{CudaStorage, Layout, Result, Storage, Tensor, bail};

use super::super::linear::Products;
use super::call::{Kernels, each, kernels, launch, room, tensor, with_all};

const KERNELS: Kernels = kernels!("sums");
const ROUND: Kernels = kernels!("round");

/// `a·b` for `a [m, k]`, `b [k, n]`, either of which may be the transpose of one in memory.
pub fn product(products: Products, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((m, k), (rows, n)) = (a.dims2()?, b.dims2()?);
    let ((held_a, layout_a), (held_b, layout_b)) = (a.storage_and_layout(), b.storage_and_layout());
    let (Storage::Cuda(storage_a), Storage::Cuda(storage_b)) = (&*held_a, &*held_b) else {
        bail!("product: expected both matrices on the GPU")
    };
    let sizes = [n, m, k].map(c_int::try_from);
    let ([Ok(cols), Ok(lines), Ok(inner)], true) = (sizes, k == rows && m * n * k > 0) else {
        bail!("product: expected matrices that fit, each side below 2³¹, got {m}×{k} and {rows}×{n}")
    };
    let device = storage_a.device.clone();
    let mut out = room(&device, m * n)?;
    let (a, b) = (Factor::new(storage_a, layout_a)?, Factor::new(storage_b, layout_b)?);
    // cuBLAS counts by columns: what lies here by rows is a transpose to it, and (a·b)ᵀ = bᵀ·aᵀ.
    if products == Products::Bf16 {
        let (round_a, round_b) = (round_to_bf16(&device, &a.numbers)?, round_to_bf16(&device, &b.numbers)?);
        let (a, b) = (Factor { numbers: round_a.slice(..), ..a }, Factor { numbers: round_b.slice(..), ..b });
        gemm(&device, products, [&b, &a], [cols, lines, inner], &mut out)?;
    } else {
        gemm(&device, products, [&b, &a], [cols, lines, inner], &mut out)?;
    }
    Ok(tensor(out, &device, (m, n)))
}

/// A matrix in memory.
struct Factor<'a> {
    numbers: CudaView<'a, f32>,
    /// Whether it is a transpose there, and how far apart its rows, or columns, lie.
    op: cublasOperation_t,
    apart: c_int,
}

impl<'a> Factor<'a> {
    fn new(storage: &'a CudaStorage, layout: &Layout) -> Result<Self> {
        let (&[rows, cols], &[down, right]) = (layout.dims(), layout.stride()) else {
            bail!("product: expected a matrix, got {:?}", layout.dims())
        };
        let (op, apart) = match (right == 1 || cols == 1, down == 1 || rows == 1) {
            (true, _) => (CUBLAS_OP_N, if rows == 1 { cols } else { down }),
            (_, true) => (CUBLAS_OP_T, right),
            _ => bail!("product: expected rows or columns of neighbours, got strides {down} and {right}"),
        };
        let (from, span) = (layout.start_offset(), 1 + (rows - 1) * down + (cols - 1) * right);
        let numbers = storage.as_cuda_slice::<f32>()?.slice(from..from + span);
        Ok(Self { numbers, op, apart: c_int::try_from(apart).map_err(candle_core::Error::wrap)? })
    }
}

/// `a·b` by columns, of `[m, n, k]`.
fn gemm(
    device: &CudaDevice,
    products: Products,
    [a, b]: [&Factor<'_>; 2],
    [m, n, k]: [c_int; 3],
    out: &mut CudaSlice<f32>,
) -> Result<()> {
    // (cuBLAS may round f32 to bf16 by itself, but where it chooses to: on an H100 it took TF32.)
    let (factors, compute) = match products {
        Products::F32 => (CUDA_R_32F, CUBLAS_COMPUTE_32F),
        Products::Tf32 => (CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32),
        Products::Bf16 => (CUDA_R_16BF, CUBLAS_COMPUTE_32F),
    };
    let (one, zero) = (1.0f32, 0.0f32);
    let (alpha, beta) = ((&raw const one).cast::<c_void>(), (&raw const zero).cast::<c_void>());
    let (stream, handle, algo) =
        (device.cuda_stream(), device.cublas_handle(), CUBLAS_GEMM_DEFAULT_TENSOR_OP);
    let ((at_a, _a), (at_b, _b)) = (a.numbers.device_ptr(&stream), b.numbers.device_ptr(&stream));
    let (at_c, _c) = out.device_ptr_mut(&stream);
    let (at_a, at_b, at_c) = (at_a as *const c_void, at_b as *const c_void, at_c as *mut c_void);
    let (op_a, op_b, apart_a, apart_b, whole) = (a.op, b.op, a.apart, b.apart, CUDA_R_32F);
    let handle = *handle.handle();
    // SAFETY: the pointers are of device memory that lives until the call is queued on its stream; the factors' places and the
    // sizes describe what lies there, and `out` has room for m·n numbers.
    #[allow(unsafe_code)]
    #[rustfmt::skip]
    let done = unsafe {
        gemm_ex(
            handle, op_a, op_b, m, n, k, alpha, at_a, factors, apart_a, at_b, factors, apart_b, beta, at_c, whole, m, compute, algo,
        )
    };
    done.w()
}

/// Two of them in the room of one.
fn round_to_bf16(device: &CudaDevice, x: &CudaView<'_, f32>) -> Result<CudaSlice<f32>> {
    let mut y = room(device, x.len().div_ceil(2))?;
    launch(device, (&ROUND, "round_to_bf16"), each(x.len()), &[x], &mut [&mut y], &[x.len()])?;
    Ok(y)
}

/// The sum of rows of `width`.
pub fn sum_rows(g: &Tensor, width: usize) -> Result<Tensor> {
    with_all([g], |device, [g]| Ok(tensor(sum(device, &g, width)?, device, width)))
}

/// The sum of rows of `width`, in two passes where there are many.
pub(super) fn sum(device: &CudaDevice, x: &CudaView<'_, f32>, width: usize) -> Result<CudaSlice<f32>> {
    let rows = x.len() / width;
    let shares = if rows > 256 { rows.div_ceil(128).min(256) } else { 1 };
    let mut part = room(device, shares * width)?;
    let grid = ((width.div_ceil(32), shares), (32, 8));
    launch(device, (&KERNELS, "sum_rows"), grid, &[x], &mut [&mut part], &[rows, width])?;
    if shares == 1 { Ok(part) } else { sum(device, &part.slice(..), width) }
}
