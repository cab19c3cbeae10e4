//! What a call of `cascabel process` is to do, checked before anything is read or written.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Args;
use crate::audio::{WavDepth, name_of_wav};
use crate::cli::beside;
use crate::engine::ProcessOptions;
use crate::{Error, Result};

/// A place that sound comes from or goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Standard input or output.
    Pipe,
    /// A file.
    File(PathBuf),
}

/// One sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub from: End,
    pub to: End,
}

/// The plan of a run.
pub struct Run {
    pub jobs: Vec<Job>,
    /// The folder that the files go to, if they go to one.
    pub folder: Option<PathBuf>,
    pub model: String,
    pub options: ProcessOptions,
    pub depth: WavDepth,
    pub threads: usize,
    pub force: bool,
    pub picture: Option<PathBuf>,
}

impl End {
    fn of(path: &Path) -> Self {
        if path == Path::new("-") { Self::Pipe } else { Self::File(path.to_path_buf()) }
    }
}

impl Run {
    /// Checks the arguments.
    pub fn new(args: Args) -> Result<Self> {
        let folder = to_folder(&args.output, args.files.len()).then(|| args.output.clone());
        let jobs = match &folder {
            Some(folder) => args.files.iter().map(|file| into_folder(file, folder)).collect::<Result<_>>()?,
            None => one_to_one(&args.files, &args.output)?,
        };
        distinct(&jobs)?;
        if args.picture.is_some() && jobs.len() > 1 {
            return Err(Error::input("--picture", "one file", jobs.len().to_string()));
        }
        beside::check(&[&args.output], &[("--picture", &args.picture)])?;
        let threads = args.jobs.map_or_else(
            || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            std::num::NonZero::get,
        );
        Ok(Self {
            threads: threads.min(jobs.len()),
            jobs,
            folder,
            model: args.model,
            options: ProcessOptions { mix: args.mix, align: !args.no_align, stereo: args.stereo.into() },
            depth: args.depth.into(),
            force: args.force,
            picture: args.picture,
        })
    }

    /// All that decides what an output holds, besides the input and the model.
    pub fn fingerprint(&self) -> String {
        let ProcessOptions { mix, align, stereo } = self.options;
        let version = env!("CARGO_PKG_VERSION");
        format!("{version} mix {mix} align {align} stereo {stereo:?} depth {:?}", self.depth)
    }
}

fn to_folder(output: &Path, files: usize) -> bool {
    let slash = output.as_os_str().to_string_lossy().ends_with(std::path::is_separator);
    output != Path::new("-") && (slash || output.is_dir() || files > 1)
}

fn one_to_one(files: &[PathBuf], output: &Path) -> Result<Vec<Job>> {
    let [file] = files else {
        return Err(Error::input("standard output", "one sound", format!("{} files", files.len())));
    };
    let job = Job { from: End::of(file), to: End::of(output) };
    refuse_same(file, output)?;
    name_of_wav(output)?;
    Ok(vec![job])
}

fn into_folder(file: &Path, folder: &Path) -> Result<Job> {
    let (End::File(_), Some(stem)) = (End::of(file), file.file_stem()) else {
        let got = format!("{} and a folder to write to", file.display());
        return Err(Error::input("input", "the name of a sound file", got));
    };
    let mut name = stem.to_os_string();
    name.push(".wav");
    let output = folder.join(name);
    refuse_same(file, &output)?;
    Ok(Job { from: End::of(file), to: End::File(output) })
}

/// A recording is not overwritten by what is made of it.
fn refuse_same(file: &Path, output: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().ok().filter(|path| path.is_file());
    match (real(file), real(output)) {
        (Some(a), Some(b)) if a == b => {
            let what = format!("output {}", output.display());
            Err(Error::input(what, "another file than the input", "the same"))
        }
        _ => Ok(()),
    }
}

/// No two jobs write one file.
fn distinct(jobs: &[Job]) -> Result<()> {
    let mut writers: HashMap<&Path, &End> = HashMap::new();
    for job in jobs {
        if let End::File(path) = &job.to
            && let Some(End::File(other)) = writers.insert(path, &job.from)
            && let End::File(from) = &job.from
        {
            let what = format!("{} and {}", other.display(), from.display());
            return Err(Error::input(what, "different names", format!("both as {}", path.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn plan(line: &str) -> Result<Run, String> {
        let words = std::iter::once("process").chain(line.split(' '));
        let parsed = Line::try_parse_from(words).map_err(|e| e.to_string())?;
        Run::new(parsed.args).map_err(|e| e.to_string())
    }

    fn ends(line: &str) -> Vec<(String, String)> {
        let name = |end: &End| match end {
            End::Pipe => "-".to_string(),
            End::File(path) => path.display().to_string(),
        };
        plan(line).unwrap().jobs.iter().map(|job| (name(&job.from), name(&job.to))).collect()
    }

    #[test]
    fn one_file_goes_to_a_file_and_many_to_a_folder() {
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(ends("a.flac -o b.wav"), [pair("a.flac", "b.wav")]);
        assert_eq!(ends("- -o -"), [pair("-", "-")]);
        assert_eq!(ends("a.flac -o out/"), [pair("a.flac", "out/a.wav")]);
        assert_eq!(
            ends("a.flac x/b.mp3 -o out"),
            [pair("a.flac", "out/a.wav"), pair("x/b.mp3", "out/b.wav")]
        );
        let run = plan("a b c -o out --jobs 2 --mix 0.5 --no-align --depth 32f --stereo linked").unwrap();
        assert_eq!(run.threads, 2);
        assert!(run.fingerprint().ends_with("mix 0.5 align false stereo Linked depth Float32"));
        assert_eq!(plan("a -o b --jobs 7").unwrap().threads, 1);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (line, expected) in [
            ("a b -o -", "standard output: expected one sound, got 2 files"),
            ("a - -o out", "expected the name of a sound file, got - and a folder to write to"),
            ("a.wav x/a.flac -o out", "a.wav and x/a.flac: expected different names, got both as out/a.wav"),
            ("a b -o out --picture p.png", "--picture: expected one file, got 2"),
            ("Cargo.toml -o ./Cargo.toml", "output ./Cargo.toml: expected another file than the input"),
            ("a -o b --jobs 0", "invalid value '0'"),
            ("a -o b --depth 8", "invalid value '8'"),
        ] {
            let message = plan(line).err().unwrap_or_else(|| "accepted".into());
            assert!(message.contains(expected), "{line}: {message}");
        }
    }
}
