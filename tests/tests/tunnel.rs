//! Tailscale on a node, against what tailscale itself says.

#[path = "tunnel/lab.rs"]
mod own;
