//! Files that are written beside an output: refused before anything is made, if they could not be written or would take another's place.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Checks the files of these options against each other and those that are taken.
pub fn check(taken: &[&Path], options: &[(&str, &Option<PathBuf>)]) -> Result<()> {
    let mut taken: Vec<PathBuf> = taken.iter().map(|path| place(path)).collect();
    for (name, path) in options {
        let Some(path) = path else { continue };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let got = folder.display().to_string();
            return Err(Error::input(*name, "a file in a folder that is there", got));
        }
        if taken.contains(&place(path)) {
            return Err(Error::input(*name, "another file than the others", path.display().to_string()));
        }
        taken.push(place(path));
    }
    Ok(())
}

/// The same place has one name.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.into(),
    }
}
