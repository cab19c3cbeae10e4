//! Writing a file so that its name only ever stands for the whole file.
//!
//! The bytes go to a temporary file in the same folder, which is renamed to the wanted name when all is written and is
//! removed when anything fails. An existing file is replaced in that one step. A name that stands for a device or a
//! pipe is written to directly: it cannot be half-written, and renaming over it would destroy it.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Calls `fill` with a writer and gives the result the name `path` when `fill` has succeeded.
pub fn write_whole<T>(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    let target = resolve(path)?;
    let failed = |attempt| move |source| Error::io(attempt, path, source);
    if fs::metadata(&target).is_ok_and(|meta| !meta.is_file()) {
        let device = File::options().write(true).open(&target).map_err(failed("open"))?;
        let mut writer = BufWriter::new(device);
        let done = fill(&mut writer)?;
        writer.flush().map_err(failed("write"))?;
        return Ok(done);
    }
    let mut part = Part::of(path, target)?;
    let mut writer = BufWriter::new(part.file());
    let done = fill(&mut writer)?;
    writer.flush().map_err(failed("write"))?;
    drop(writer);
    part.finish()?;
    Ok(done)
}

/// A file that is not whole yet, beside the name that it will have.
pub(super) struct Part {
    temporary: NamedTempFile,
    path: PathBuf,
    target: PathBuf,
}

impl Part {
    /// Begins a file. A name that stands for a device or a pipe is refused.
    pub(super) fn begin(path: &Path) -> Result<Self> {
        let target = resolve(path)?;
        if fs::metadata(&target).is_ok_and(|meta| !meta.is_file()) {
            return Err(Error::input(
                path.display().to_string(),
                "the name of a file to write",
                "a device or a pipe",
            ));
        }
        Self::of(path, target)
    }

    fn of(path: &Path, target: PathBuf) -> Result<Self> {
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The system's own words, where tempfile's would be others.
        fs::metadata(folder).map_err(|e| Error::io("create", path, e))?;
        let temporary = builder().tempfile_in(folder).map_err(|e| Error::io("create", path, cause(e)))?;
        Ok(Self { temporary, path: path.into(), target })
    }

    /// What is written to.
    pub(super) fn file(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Gives it its name; what stood under it is replaced.
    pub(super) fn finish(self) -> Result<()> {
        self.temporary.persist(&self.target).map(|_| ()).map_err(|e| Error::io("rename", self.path, e.error))
    }

    /// The same; where that cannot be, the file stays under the name that it has, which the error tells.
    pub(super) fn finish_or_stay(self) -> Result<()> {
        let Err(failed) = self.temporary.persist(&self.target) else { return Ok(()) };
        match failed.file.keep() {
            Ok((_, kept)) => Err(Error::Unavailable {
                what: self.path.display().to_string(),
                why: format!("{}; the sound is in {}", failed.error, kept.display()),
            }),
            Err(_) => Err(Error::io("rename", self.path, failed.error)),
        }
    }
}

/// Refuses a name that is no folder's and cannot become one because a file stands in its way. Makes nothing: a folder is made when
/// there is something to put into it.
pub fn could_be_folder(path: &Path) -> Result<()> {
    let plain: PathBuf = path.components().collect();
    match plain.ancestors().find(|part| part.exists()) {
        Some(part) if !part.is_dir() => {
            let what = path.display().to_string();
            Err(Error::input(what, "the name of a folder", format!("a file, {}", part.display())))
        }
        _ => Ok(()),
    }
}

/// The file that `path` means: links are followed, so that the link stays; a folder is refused.
fn resolve(path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        let what = path.display().to_string();
        return Err(Error::input(what, "the name of a file to write", "a folder"));
    }
    if path.file_name().is_none() {
        let got = format!("{:?}", path.as_os_str());
        return Err(Error::input("output", "the name of a file to write", got));
    }
    // A name that does not exist yet cannot be resolved; it is then what was meant.
    Ok(fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()))
}

/// Temporary files are hidden and recognisable, and get the permissions that any new file gets.
fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".cascabel-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder
}

/// The error without the temporary path that `tempfile` adds, which would confuse.
fn cause(error: std::io::Error) -> std::io::Error {
    std::io::Error::from(error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        write_whole(&path, |w| w.write_all(b"old").map_err(|e| Error::io("write", "x", e))).unwrap();
        let failed: Result<()> = write_whole(&path, |w| {
            w.write_all(&[7; 100_000]).map_err(|e| Error::io("write", "x", e))?;
            Err(Error::input("test", "success", "failure"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["out.bin"]);
    }

    #[test]
    fn unwritable_names_are_one_clear_line() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_whole(folder.path(), |_| Ok(())).unwrap_err().to_string();
        assert!(error.ends_with("expected the name of a file to write, got a folder"), "{error}");
        let missing = folder.path().join("no/such/out.wav");
        let error = write_whole(&missing, |_| Ok(())).unwrap_err().to_string();
        assert!(error.starts_with("cannot create ") && error.contains("out.wav"), "{error}");
        assert!(!error.contains('\n') && !error.contains(".part"), "{error}");
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_survive() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, b"old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_whole(&link, |w| w.write_all(b"new").map_err(|e| Error::io("write", "x", e))).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        write_whole(Path::new("/dev/null"), |w| w.write_all(b"x").map_err(|e| Error::io("write", "x", e)))
            .unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_a_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (plain, ours) = (folder.path().join("plain"), folder.path().join("ours"));
        fs::write(&plain, b"").unwrap();
        write_whole(&ours, |_| Ok(())).unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&plain), mode(&ours));
    }
}
