//! Live: frames in, a filter, frames out, while they come.
//!
//! ```text
//! capture ─► ring ─► Session: hear ─► chain: converter ─► model ─► converter ─► mix, fade, bridge: say ─► playback
//!                        ▲                                                             │
//!                 Remote ┴─ commands, chains ready made ───────────── counts, chains to be freed ◄┘
//! ```
//!
//! [`Session`] is what runs on the real-time thread; nothing in it allocates, locks, waits or frees. [`Remote`] steers it from elsewhere. [`wire`](wire()) puts a
//! ring before it, for devices that capture and play on threads of their own.
//!
//! ```
//! use cascabel::audio::SampleRate;
//! use cascabel::engine::{bundled, live::{Ends, Session}};
//! let rate = SampleRate::new(48_000)?;
//! let ends = Ends { rate_in: rate, rate_out: rate, channels_in: 1, channels_out: 2, two_clocks: false, margin: 0, burst: 64 };
//! let (mut session, remote) = Session::open(&bundled::open(bundled::DEFAULT)?, ends, 1.0)?;
//! assert!(remote.latency().total < 48 * 13); // less than 13 ms
//! let (microphone, mut loudspeaker) = ([0.1; 64], [0.0; 128]);
//! session.hear(&microphone);
//! session.say(&mut loudspeaker);
//! # Ok::<(), cascabel::Error>(())
//! ```

mod answer;
mod chain;
mod drift;
mod exchange;
mod gap;
mod level;
mod line;
mod load;
mod queue;
mod relay;
mod session;
mod slot;
mod tap;
#[cfg(test)]
mod tests;
mod wire;

pub use answer::{AnswerOptions, Mood};
pub use chain::{Chain, Ends, Latency, Voice};
pub use line::{Doing, Line, LineOptions};
pub use load::{Load, Shares};
pub use relay::{Relay, Worker, relay};
pub use session::{Counts, Remote, Session};
pub use slot::Slot;
pub use tap::Tapped;
pub use wire::{Capture, Gauges, Playback, wire};
