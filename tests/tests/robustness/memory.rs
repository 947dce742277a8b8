//! Kernel memory of the counter arrays against what the kernel charges for them.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lab::{Agent, AgentOptions, process};
use serde_json::Value;

/// The arrays that the agent maps.
const ARRAYS: [&str; 8] = [
    "leadline_ctl",
    "leadline_keys",
    "leadline_cells",
    "leadline_tcells",
    "leadline_ovl",
    "leadline_pkeys",
    "leadline_pcells",
    "leadline_ppods",
];
const PAGE: u64 = 4096;

/// The maps that a process holds, as `bpftool map show` describes them.
fn maps(pid: u32) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // Another descriptor may be gone by now.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        if let Some(id) = text.lines().find_map(|line| line.strip_prefix("map_id:")) {
            let show =
                process::run(Command::new("bpftool").args(["--json", "map", "show", "id", id.trim()]))?;
            found.push(serde_json::from_str(&show).context("bpftool map show")?);
        }
    }
    Ok(found)
}

#[test]
fn memory_of_the_arrays_is_what_the_kernel_charges_but_for_its_own_heads() -> Result<()> {
    let lab = super::start(1)?;
    let mut agent = Agent::start(lab.node(1)?, &AgentOptions::default())?;
    let exported = agent.scrape()?.count("leadline_map_memory_bytes", &[]).context("no memory")?;
    let maps = maps(agent.service().pid())?;
    let number = |map: &Value, key: &str| map[key].as_u64().with_context(|| format!("{key} of {map}"));
    let (mut values, mut charged) = (0, 0);
    for name in ARRAYS {
        let map = maps.iter().find(|map| map["name"] == name).with_context(|| format!("no {name}"))?;
        values += number(map, "max_entries")? * number(map, "bytes_value")?;
        charged += number(map, "bytes_memlock")?;
    }
    println!("{exported} bytes exported, {values} of values, {charged} charged");
    assert_eq!(exported, values);
    // A page for the head of each array, and its values rounded up to pages.
    let more = charged.checked_sub(exported).context("the kernel charges less than the values take")?;
    ensure!(more <= 2 * PAGE * ARRAYS.len() as u64, "{more} bytes more");
    lab.shutdown()
}
