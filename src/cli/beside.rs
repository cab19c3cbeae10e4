//! Files that are written beside an output: refused before anything is made, if they could not be written or would take another's place.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Checks the files of these options.
pub fn check(output: &Path, options: &[(&str, &Option<PathBuf>)]) -> Result<()> {
    let mut taken = vec![output];
    for (name, path) in options {
        let Some(path) = path else { continue };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let got = folder.display().to_string();
            return Err(Error::input(*name, "a file in a folder that is there", got));
        }
        if taken.contains(&path.as_path()) {
            return Err(Error::input(*name, "another file than the output", path.display().to_string()));
        }
        taken.push(path);
    }
    Ok(())
}
