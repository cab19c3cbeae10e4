//! Text that a language model makes, as it comes.
//!
//! ```text
//! prompt ─► tokenizer.json, or bytes where the vocabulary is 256 ─► heard ─► Generator ─► the same way back ─► standard output, or a file
//! ```
//!
//! It ends at the tokenizer's first special token (the end of a text), or after so many tokens.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use tokenizers::Tokenizer;

use super::{Args, closed, pipe};
use crate::audio::write_whole;
use crate::cli::beside;
use crate::cli::exit::Tally;
use crate::cli::stop;
use crate::cli::tokens::tokenizer_of;
use crate::engine::Generator;
use crate::model::Model;
use crate::{Error, Result};

/// What tokens stand for.
enum Words {
    Pieces(Box<Tokenizer>),
    /// A token a byte.
    Bytes,
}

pub fn run(args: &Args, model: &Model) -> Result<Tally> {
    args.refuse(
        "language model",
        &[
            ("--seconds", args.seconds.is_some()),
            ("--class", args.class.is_some()),
            ("--depth", args.depth.is_some()),
            ("--picture", args.picture.is_some()),
        ],
    )?;
    if args.count != 1 {
        return Err(Error::input("--count of texts", "1", args.count.to_string()));
    }
    let vocabulary = model.plan.value(model.plan.output).width;
    let output = args.output.as_deref().unwrap_or_else(|| pipe());
    beside::check(&[output], &[("--save-state", &args.save_state), ("--picture", &args.picture)])?;
    let words = Words::beside(Path::new(&args.model), vocabulary)?;
    let text = match args.prompt.as_ref().map(|text| text.to_str()) {
        None => "",
        Some(Some(text)) => text,
        Some(None) => return Err(Error::input("--prompt", "text in UTF-8", "other bytes")),
    };
    let prompt = words.tokens(text)?;
    if let Some(far) = prompt.iter().find(|token| **token as usize >= vocabulary) {
        let expected = format!("tokens of the model's, below {vocabulary}");
        return Err(Error::input("tokenizer", expected, far.to_string()));
    }
    let mut generator = args.open(model, 0, 1)?;
    match args.spot(model)? {
        Some(spot) => generator.go_to(0, &spot)?,
        None if prompt.is_empty() => {
            return Err(Error::input("--prompt", "a text to go on from, or --state", "none"));
        }
        None => generator.hear(0, &prompt)?,
    }
    let most = args.tokens.unwrap_or(200);
    match args.output.as_deref() {
        Some(path) if path != pipe() => {
            let name = path.display().to_string();
            write_whole(path, |out| words.write(&mut generator, (text, &prompt), most, out, &name))?;
        }
        _ => {
            let out = &mut std::io::stdout().lock();
            closed(words.write(&mut generator, (text, &prompt), most, out, "standard output"))?;
        }
    }
    args.save(model, &mut generator)?;
    Ok(Tally::ONE)
}

impl Words {
    /// What lies beside a model's file: STEM.tokenizer.json, or tokenizer.json.
    fn beside(model: &Path, vocabulary: usize) -> Result<Self> {
        let places = [tokenizer_of(model), model.with_file_name("tokenizer.json")];
        match places.iter().find(|place| place.is_file()) {
            Some(path) => {
                let read = Tokenizer::from_file(path).map_err(|e| broken(path, e))?;
                Ok(Self::Pieces(Box::new(read)))
            }
            None if vocabulary == 256 => Ok(Self::Bytes),
            None => {
                let [named, plain] = places.map(|place: PathBuf| place.display().to_string());
                let expected = format!("{named} or {plain} beside a model of {vocabulary} tokens");
                Err(Error::input("tokenizer", expected, "neither"))
            }
        }
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Self::Pieces(words) => {
                let encoded = words.encode(text, true).map_err(|e| broken(Path::new("prompt"), e))?;
                let mut tokens = encoded.get_ids().to_vec();
                // A text that is to go on has no end yet, whatever the tokenizer adds.
                while tokens.len() > 1 && tokens.last().is_some_and(|token| is_special(words, *token)) {
                    tokens.pop();
                }
                Ok(tokens)
            }
        }
    }

    /// The prompt and what follows, each piece as soon as it is whole; a last character that is not whole is left out.
    fn write(
        &self,
        generator: &mut Generator,
        (text, prompt): (&str, &[u32]),
        most: usize,
        out: &mut dyn Write,
        name: &str,
    ) -> Result<()> {
        let mut put = |bytes: &[u8]| {
            out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Error::io("write", name, e))
        };
        put(text.as_bytes())?;
        let mut stream = match self {
            Self::Pieces(words) => Some(words.decode_stream(true)),
            Self::Bytes => None,
        };
        // What follows is told as what follows the prompt: with the space between, where there is one.
        if let Some(stream) = &mut stream {
            for token in prompt {
                stream.step(*token).map_err(|e| broken(Path::new("decoding"), e))?;
            }
        }
        for left in (0..most).rev() {
            if stop::flag()?.load(Ordering::Relaxed) {
                return Err(Error::Stopped(format!("{} of {most} tokens were not made", left + 1)));
            }
            let mut token = [0];
            generator.generate(&mut token)?;
            let [token] = token;
            match (self, &mut stream) {
                (Self::Pieces(words), _) if is_special(words, token) => break,
                (_, Some(stream)) => {
                    if let Some(text) = stream.step(token).map_err(|e| broken(Path::new("decoding"), e))? {
                        put(text.as_bytes())?;
                    }
                }
                (_, None) => put(&[token as u8])?,
            }
        }
        put(b"\n")
    }
}

fn is_special(words: &Tokenizer, token: u32) -> bool {
    words.get_added_tokens_decoder().get(&token).is_some_and(|added| added.special)
}

fn broken(what: &Path, error: tokenizers::Error) -> Error {
    Error::input(
        format!("tokenizer {}", what.display()),
        "one as the crate tokenizers reads it",
        error.to_string(),
    )
}
