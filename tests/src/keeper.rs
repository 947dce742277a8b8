//! The keeper: a shell that outlives the owner of a lab and tears down what it could not.
//!
//! Its standard input is a pipe whose other end only the owner holds, so it learns of the owner's end however that
//! came. A death signal (`PR_SET_PDEATHSIG`) would not do: it follows the *thread* that started the process, and
//! test threads end before their process does.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use crate::process;

const SCRIPT: &str = r#"
trap '' INT TERM HUP
read -r _ || :
scratch=$1 cgroup=$2
[ ! -d "$cgroup" ] || echo 1 > "$cgroup/cgroup.kill"
shift
for directory in "$@"; do
    tries=0
    until [ ! -d "$directory" ] || find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null || [ $tries -ge 100 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
done
[ ! -d "$scratch" ] || rm -rf --one-file-system -- "$scratch"
"#;

/// A running keeper.
#[derive(Debug)]
pub(crate) struct Keeper(Child);

impl Keeper {
    /// Starts the keeper of a lab; none of the paths needs to exist yet.
    pub(crate) fn start(cgroup: &Path, legacy: &[PathBuf], scratch: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "leadline-lab-keeper"]).arg(scratch).arg(cgroup).args(legacy);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.current_dir("/").process_group(0);
        Ok(Self(process::spawn(&mut command)?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Lets the keeper look at what is left and waits for its end.
    pub(crate) fn release(&mut self) -> Result<()> {
        drop(self.0.stdin.take());
        process::wait_exit(&mut self.0, "the keeper of the lab", Duration::from_secs(10)).map(drop)
    }
}
