//! The `leadline` binary: arguments, logging, dispatch.

fn main() {}
