//! What may be asked for while it runs: by keys on a terminal, else by lines on standard input.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, channel};

use crate::cli::exit::complain;

/// A wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The sound as it comes, and back.
    Bypass,
    /// More of the model's sound.
    More,
    /// Less of it.
    Less,
    /// The model from its beginning.
    Reset,
    /// The other model.
    Swap,
    /// The end.
    Quit,
}

impl Key {
    /// What a character means.
    pub fn of(character: char) -> Option<Self> {
        Some(match character {
            'b' => Self::Bypass,
            '+' | '=' => Self::More,
            '-' => Self::Less,
            'r' => Self::Reset,
            's' => Self::Swap,
            'q' => Self::Quit,
            _ => return None,
        })
    }
}

/// Keys as lines on standard input. Its end says nothing.
pub fn lines() -> Receiver<Key> {
    let (sender, receiver) = channel();
    // Reading waits for ever: the thread ends with the program.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let mut characters = line.trim().chars();
            match (characters.next().map(Key::of), characters.next()) {
                (None, _) => {}
                (Some(Some(key)), None) => _ = sender.send(key),
                _ => complain(&format!("expected b, +, -, r, s or q, got {line:?}")),
            }
        }
    });
    receiver
}
