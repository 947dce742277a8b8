//! HAProxy as the agent shows it, beside what HAProxy says through the interface that the agent did not use.
#![expect(clippy::print_stdout, reason = "a test shows what it measured")]

#[path = "haproxy/find.rs"]
mod find;
#[path = "haproxy/health.rs"]
mod health;
#[path = "haproxy/stage.rs"]
mod stage;
#[path = "haproxy/view.rs"]
mod view;
