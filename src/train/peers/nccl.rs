//! Peers whose gradients go from GPU to GPU: NCCL's all-reduce (its "User Guide", "Collective Operations"), met over TCP.
//!
//! The library is looked for when a run is opened, so that a program built without it starts and one machine may have it. Small
//! numbers of the host still go over [`Tcp`]; a process that has left is found out there, before the others would wait in NCCL.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::{CudaDevice, Device, Tensor};
use libloading::{Library, Symbol};

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
type Init = unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> c_int;
type Reduce =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> c_int;
/// `ncclFloat32` and `ncclSum`.
const FLOAT32_SUM: (c_int, c_int) = (7, 0);

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
    /// The processes that `tcp` joins, each with its own GPU; `tcp` itself where one of them has no NCCL.
    pub fn join(mut tcp: Tcp, device: &Device) -> Result<Box<dyn Peers>> {
        let library = device.as_cuda_device().ok().and_then(|_| load());
        let mut with_it = [f32::from(library.is_some())];
        tcp.sum(&mut with_it)?;
        let Some(library) = library.filter(|_| with_it == [tcp.world() as f32]) else {
            return Ok(Box::new(tcp));
        };
        // Rank 0 draws; the others add zeros, and so all have its bytes.
        let mut id = UniqueId([0; 128]);
        if tcp.rank() == 0 {
            // SAFETY: the function's type is that of nccl.h, as below.
            #[allow(unsafe_code)]
            let done = unsafe {
                symbol::<unsafe extern "C" fn(*mut UniqueId) -> c_int>(&library, "ncclGetUniqueId")?(&mut id)
            };
            checked(&library, "ncclGetUniqueId", done)?;
        }
        let mut bytes = id.0.map(f32::from);
        tcp.sum(&mut bytes)?;
        let id = UniqueId(bytes.map(|byte| byte as u8));
        let device = device.as_cuda_device().map_err(train_error)?;
        device.cuda_stream().context().bind_to_thread().map_err(|e| Error::Train(e.to_string()))?;
        let mut comm = ptr::null_mut();
        // SAFETY: the device of this process is current; `comm` is written by the call.
        #[allow(unsafe_code)]
        let done = unsafe {
            symbol::<Init>(&library, "ncclCommInitRank")?(
                &mut comm,
                tcp.world() as c_int,
                id,
                tcp.rank() as c_int,
            )
        };
        checked(&library, "ncclCommInitRank", done)?;
        Ok(Box::new(Self { tcp, comm, library }))
    }

    fn reduce(&self, device: &CudaDevice, numbers: &Tensor) -> Result<Tensor> {
        let stream = device.cuda_stream();
        let reduce = symbol::<Reduce>(&self.library, "ncclAllReduce")?;
        let mut code = 0;
        let summed = with_all([numbers], |device, [x]| {
            let mut sum = room(device, x.len())?;
            {
                let ((from, _read), (to, _written)) = (x.device_ptr(&stream), sum.device_ptr_mut(&stream));
                let ((float, add), stream) = (FLOAT32_SUM, stream.cu_stream().cast());
                // SAFETY: both hold as many numbers, on this process's device; the stream orders the sum after what made them.
                #[allow(unsafe_code)]
                let done = unsafe {
                    reduce(from as *const c_void, to as *mut c_void, x.len(), float, add, self.comm, stream)
                };
                code = done;
            }
            Ok(tensor(sum, device, numbers.shape()))
        });
        checked(&self.library, "ncclAllReduce", code)?;
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
        if let Ok(abort) = symbol::<unsafe extern "C" fn(Comm) -> c_int>(&self.library, "ncclCommAbort") {
            // SAFETY: made by `join`, given up here.
            #[allow(unsafe_code)]
            let _ = unsafe { abort(self.comm) };
        }
    }
}

fn load() -> Option<Library> {
    // SAFETY: NCCL's own initialisation runs, which any program that links it runs.
    #[allow(unsafe_code)]
    NAMES.into_iter().find_map(|name| unsafe { Library::new(name) }.ok())
}

/// A function of the library; `F` must be its type.
fn symbol<'a, F>(library: &'a Library, name: &str) -> Result<Symbol<'a, F>> {
    // SAFETY: the callers' types are those of nccl.h, which version 2 keeps.
    #[allow(unsafe_code)]
    unsafe { library.get::<F>(name.as_bytes()) }.map_err(|e| Error::Train(format!("NCCL has no {name}: {e}")))
}

fn checked(library: &Library, call: &str, code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let text = symbol::<unsafe extern "C" fn(c_int) -> *const c_char>(library, "ncclGetErrorString")?;
    // SAFETY: NCCL answers with a text of its own for every code.
    #[allow(unsafe_code)]
    let text = unsafe { CStr::from_ptr(text(code)) };
    Err(Error::Train(format!("{call}: {} (NCCL_DEBUG=INFO says more)", text.to_string_lossy())))
}
