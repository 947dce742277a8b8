//! Writes the rendered files below a folder.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use dashboards::{boards, groups, render};

/// Where the runbooks are read. There is no public page of the project yet: who has one for their team renders anew.
const RUNBOOKS: &str = "https://leadline.example/runbooks";

/// Writes alert rules and boards below a folder.
#[derive(Debug, Parser)]
#[command(name = "dashboards")]
struct Arguments {
    /// The folder
    folder: PathBuf,

    /// Address of the folder with the runbooks, for the annotation `runbook_url`
    #[arg(long, value_name = "URL", default_value = RUNBOOKS)]
    runbooks: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    for (path, text) in render::files(&groups(), &boards(), &arguments.runbooks)? {
        let file = arguments.folder.join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
        }
        fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}
