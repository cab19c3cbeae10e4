//! `cascabel live` with real audio servers and no sound card: JACK's dummy driver at 64 frames, PulseAudio's null sinks at 512. `make servers` installs
//! both and runs this; each server is started here, for itself, and ended.
//!
//! ```text
//! noisy speech ─► microphone ─┬─► cascabel live ──────────────► loudspeaker ─► heard
//!                             └─► cascabel live --model none ─► loudspeaker ─► passed
//! ```
//!
//! What is heard is `process` of the same speech, as late as reported. What the server itself loses (it runs on machines that others share) is lost to the
//! pass-through too: segments of 50 ms that did not come through it are counted, told, and left out.
#![cfg(all(feature = "devices", target_os = "linux"))]

#[path = "servers/busy.rs"]
mod busy;
#[path = "servers/jack.rs"]
mod jack_server;
#[path = "servers/pulse.rs"]
mod pulse_server;
#[path = "servers/sound.rs"]
mod sound;
#[path = "servers/spawned.rs"]
mod spawned;
