//! In builds without training, PyTorch's `.bin` files cannot be read.

use std::path::Path;

use super::import::Sink;
use crate::{Error, Result};

/// The tensors of one `.bin` file: an error.
pub(super) fn each_tensor(path: &Path, _sink: &mut Sink<'_>) -> Result<()> {
    Err(Error::Unavailable {
        what: format!("reading {}", path.display()),
        why: "this build has no `train` feature; model.safetensors beside it would do".into(),
    })
}
