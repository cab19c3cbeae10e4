//! Where frames come from and go to while they are made: sound cards, files, nothing.
//!
//! ```text
//! Device::start(Calls) ─► a thread of the device's own: hear(frames that came), fill(frames that are wanted), over and over
//! ```
//!
//! A sound card has a clock, and calls when it has frames or wants some ([`card`], by cpal). A file and nothing have none: a
//! [`Clocked`] moves frames from a [`Source`] and to a [`Sink`], by the computer's clock or as fast as it goes. With both in one, what is heard and
//! what is said keep step, frame for frame.
//!
//! ```
//! use std::sync::{Arc, atomic::Ordering};
//! use cascabel::audio::SampleRate;
//! use cascabel::audio::device::{Calls, Clocked, Device, Format, Health, Nothing};
//! let format = Format { rate: SampleRate::new(48_000)?, channels: 1, block: 64 };
//! let mut device = Clocked::new("nothing", Some(Box::new(Nothing::lasting(format, 100))), Some(Box::new(Nothing::of(format))), false);
//! let health = Arc::new(Health::default());
//! let calls = Calls { hear: Some(Box::new(|frames| assert_eq!(frames.len(), 64))), fill: Some(Box::new(|frames| frames.fill(0.5))) };
//! let running = device.start(calls, &health)?;
//! health.wait();
//! # drop(running);
//! # Ok::<(), cascabel::Error>(())
//! ```

#[cfg(feature = "devices")]
pub mod card;
mod clocked;
mod file;
mod health;
#[cfg(feature = "devices")]
mod quiet;

pub use clocked::{Clocked, Nothing, Sink, Source, Turn};
pub use file::{FileSink, FileSource};
pub use health::Health;

use std::any::Any;
use std::sync::Arc;

use super::SampleRate;
use crate::{Error, Result};

/// What a device's frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Frames a second.
    pub rate: SampleRate,
    /// Samples of a frame.
    pub channels: usize,
    /// Frames of a call, as a rule. Any number may come.
    pub block: usize,
}

/// Takes frames, channels side by side.
pub type Hear = Box<dyn FnMut(&[f32]) + Send>;
/// Fills frames.
pub type Fill = Box<dyn FnMut(&mut [f32]) + Send>;

/// What a device calls.
#[derive(Default)]
pub struct Calls {
    /// With frames that came.
    pub hear: Option<Hear>,
    /// For frames that are wanted.
    pub fill: Option<Fill>,
}

/// Something with a clock that frames come from, go to, or both.
pub trait Device: Send {
    /// What it is called.
    fn name(&self) -> &str;
    /// What comes from it, if it is one to hear.
    fn input(&self) -> Option<Format>;
    /// What goes to it, if it is one to speak by.
    fn output(&self) -> Option<Format>;
    /// Begins to call, on a thread of its own, until what is returned is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] for one that is gone, busy, not permitted or has run before; [`Error::Io`] where the system gives no thread.
    fn start(&mut self, calls: Calls, health: &Arc<Health>) -> Result<Running>;
    /// The name of its clock, if others may run by the same.
    fn clock(&self) -> Option<&str> {
        None
    }

    /// Whether it may be there again after it was lost.
    fn comes_back(&self) -> bool {
        false
    }

    /// Seeks it again after it was lost, to be started with the same rate and channels; its calls may be of another length.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] where it is not back; [`Error::Input`] where it is, but not with this rate and these channels.
    fn reopen(&mut self) -> Result<()> {
        Err(Error::Unavailable { what: self.name().into(), why: "it has ended".into() })
    }
}

/// A device that runs; dropped, it ends.
pub struct Running(#[allow(dead_code, reason = "held, so that it is dropped")] Box<dyn Any>);
