//! Peers whose gradients go from GPU to GPU: NCCL's all-reduce (its "User Guide", "Collective Operations"), met over TCP.
//!
//! The library is looked for when a run is opened, so that a program built without it starts and one machine may have it. Small
//! numbers of the host still go over [`Tcp`]; a process that has left is found out there, but for one that leaves between that sum and
//! NCCL's: the others then wait in NCCL until they are stopped. So do they at the start for one that cannot join.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::{CudaDevice, Device, Tensor};

use super::{Peers, Tcp};
use crate::exec::candle::cuda::call::{room, tensor};
use crate::exec::candle::cuda::with_all;
use crate::exec::candle::train_error;
use crate::{Error, Result};

const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// `ncclUniqueId`: what the processes of one communicator share.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; 128]);

type Comm = *mut c_void;
/// `ncclFloat32` and `ncclSum`.
const FLOAT32_SUM: (c_int, c_int) = (7, 0);

/// The functions that are used, of a library that stays loaded: NCCL has threads of its own.
struct Library {
    unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> c_int,
    reduce: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> c_int,
    abort: unsafe extern "C" fn(Comm) -> c_int,
    text: unsafe extern "C" fn(c_int) -> *const c_char,
}

impl Library {
    /// The library, if it is installed and has them all.
    fn load() -> Option<Self> {
        // SAFETY: NCCL's own initialisation runs, which any program that links it runs; the types are those of nccl.h, which
        // version 2 keeps.
        #[allow(unsafe_code)]
        unsafe {
            let library = NAMES.into_iter().find_map(|name| libloading::Library::new(name).ok())?;
            let library = ManuallyDrop::new(library);
            Some(Self {
                unique_id: *library.get(b"ncclGetUniqueId").ok()?,
                init: *library.get(b"ncclCommInitRank").ok()?,
                reduce: *library.get(b"ncclAllReduce").ok()?,
                abort: *library.get(b"ncclCommAbort").ok()?,
                text: *library.get(b"ncclGetErrorString").ok()?,
            })
        }
    }

    fn checked(&self, call: &str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NCCL answers with a text of its own for every code.
        #[allow(unsafe_code)]
        let text = unsafe { CStr::from_ptr((self.text)(code)) };
        Err(Error::Train(format!("{call}: {} (NCCL_DEBUG=INFO says more)", text.to_string_lossy())))
    }
}

/// See the module's page.
pub struct Nccl {
    tcp: Tcp,
    comm: Comm,
    library: Library,
}

// SAFETY: a communicator may be used by any thread, one at a time (NCCL's guide, "Thread Safety").
#[allow(unsafe_code)]
unsafe impl Send for Nccl {}

impl Nccl {
    /// The processes that `tcp` joins, each with its own GPU; `tcp` itself where one of them has no NCCL, or two share a GPU.
    pub fn join(mut tcp: Tcp, device: &Device) -> Result<Box<dyn Peers>> {
        let (world, rank) = (tcp.world(), tcp.rank());
        let own = device.as_cuda_device().ok().and_then(|device| {
            let uuid = device.cuda_stream().context().uuid().ok()?;
            Some((Library::load()?, uuid.bytes.map(|byte| f32::from(byte.cast_unsigned()))))
        });
        // Each adds its GPU's 16 bytes, and a 1, at its place; the others add zeros.
        let mut all = vec![0.0; 17 * world];
        if let (Some((_, uuid)), Some(place)) = (&own, all.chunks_exact_mut(17).nth(rank)) {
            place[0] = 1.0;
            place[1..].copy_from_slice(uuid);
        }
        tcp.sum(&mut all)?;
        let gpus: Vec<&[f32]> = all.chunks_exact(17).collect();
        let apart = gpus.iter().enumerate().all(|(i, gpu)| gpu[0] == 1.0 && !gpus[..i].contains(gpu));
        let Some((library, _)) = own.filter(|_| apart) else { return Ok(Box::new(tcp)) };
        // Rank 0 draws; the others add zeros, and so all have its bytes.
        let mut id = UniqueId([0; 128]);
        if rank == 0 {
            // SAFETY: `id` is written by the call.
            #[allow(unsafe_code)]
            let done = unsafe { (library.unique_id)(&mut id) };
            library.checked("ncclGetUniqueId", done)?;
        }
        let mut bytes = id.0.map(f32::from);
        tcp.sum(&mut bytes)?;
        let id = UniqueId(bytes.map(|byte| byte as u8));
        let device = device.as_cuda_device().map_err(train_error)?;
        device.cuda_stream().context().bind_to_thread().map_err(|e| Error::Train(e.to_string()))?;
        let mut comm = ptr::null_mut();
        // SAFETY: the device of this process is current; `comm` is written by the call.
        #[allow(unsafe_code)]
        let done = unsafe { (library.init)(&mut comm, world as c_int, id, rank as c_int) };
        library.checked("ncclCommInitRank", done)?;
        Ok(Box::new(Self { tcp, comm, library }))
    }

    fn reduce(&self, device: &CudaDevice, numbers: &Tensor) -> Result<Tensor> {
        let stream = device.cuda_stream();
        let mut code = 0;
        let summed = with_all([numbers], |device, [x]| {
            let mut sum = room(device, x.len())?;
            {
                let ((from, _read), (to, _written)) = (x.device_ptr(&stream), sum.device_ptr_mut(&stream));
                let ((float, add), stream) = (FLOAT32_SUM, stream.cu_stream().cast());
                let (from, to) = (from as *const c_void, to as *mut c_void);
                // SAFETY: both hold as many numbers, on this process's device; the stream orders the sum after what made them.
                #[allow(unsafe_code)]
                let done = unsafe { (self.library.reduce)(from, to, x.len(), float, add, self.comm, stream) };
                code = done;
            }
            Ok(tensor(sum, device, numbers.shape()))
        });
        self.library.checked("ncclAllReduce", code)?;
        summed.map_err(train_error)
    }
}

impl Peers for Nccl {
    fn rank(&self) -> usize {
        self.tcp.rank()
    }

    fn world(&self) -> usize {
        self.tcp.world()
    }

    fn way(&self) -> &'static str {
        "NCCL"
    }

    fn sum(&mut self, numbers: &mut [f32]) -> Result<()> {
        self.tcp.sum(numbers)
    }

    fn sum_tensor(&mut self, numbers: Tensor) -> Result<Tensor> {
        self.reduce(numbers.device().as_cuda_device().map_err(train_error)?, &numbers)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // Aborted, not destroyed: after an error others may never come to what is under way.
        // SAFETY: made by `join`, given up here.
        #[allow(unsafe_code)]
        let _ = unsafe { (self.library.abort)(self.comm) };
    }
}
