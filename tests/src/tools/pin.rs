//! The name of pinned sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A folder name for the pinned sources: FNV-1a of go.mod, go.sum and our own Go files, which is all that a rebuild
/// depends on.
pub(super) fn pin(module: &Path) -> Result<String> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for path in sources(module)? {
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        hash = bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }
    Ok(format!("{hash:016x}"))
}

fn sources(module: &Path) -> Result<Vec<PathBuf>> {
    let list = || format!("list {}", module.display());
    let mut own = Vec::new();
    for entry in fs::read_dir(module).with_context(list)? {
        let path = entry.with_context(list)?.path();
        own.extend(path.extension().is_some_and(|extension| extension == "go").then_some(path));
    }
    own.sort();
    Ok(["go.mod", "go.sum"].iter().map(|name| module.join(name)).chain(own).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let error = format!("{:#}", pin(Path::new("/nonexistent")).unwrap_err());
        assert!(error.contains("/nonexistent"), "{error}");
    }
}
