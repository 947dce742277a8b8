//! Developer commands of Leadline: `cargo xtask <command>`.

fn main() {}
