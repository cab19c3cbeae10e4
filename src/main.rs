//! The `cascabel` command.

fn main() -> std::process::ExitCode {
    // Candle asks the environment at every matrix product how many threads to use; training spreads examples over them.
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        #[allow(unsafe_code, reason = "the one way to say it before candle asks")]
        // SAFETY: no other thread runs yet that could read the environment.
        unsafe {
            std::env::set_var("RAYON_NUM_THREADS", "1");
        }
    }
    cascabel::cli::main()
}
