//! `bench [--quick] [PART…]`: measures what the agent costs. `cargo xtask bench` builds and runs it.

use anyhow::Result;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, role)) if first == "child" => lab::bench::child::run(role),
        _ => lab::bench::run(&arguments),
    }
}
