//! ALSA and JACK tell standard error of every trouble, several lines each; what it comes to is said once, by [`Error`](crate::Error).

/// Calls `f` while this thread's libraries say nothing.
pub(super) fn quietly<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_os = "linux")]
    let _kept = alsa::Output::local_error_handler();
    // Where the library is missing, so is its say.
    if jack::jack_sys::library().is_ok() {
        jack::set_logger(jack::LoggerType::None);
    }
    f()
}
