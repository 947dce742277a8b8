//! Probes of virtual addresses that real keepalived moves, with real TLS servers behind them.

#[path = "vip_probe/answer.rs"]
mod answer;
#[path = "vip_probe/arrival.rs"]
mod arrival;
#[path = "vip_probe/choice.rs"]
mod choice;
#[path = "vip_probe/handshake.rs"]
mod handshake;
#[path = "vip_probe/silence.rs"]
mod silence;
#[path = "vip_probe/stage.rs"]
mod stage;
#[path = "vip_probe/trouble.rs"]
mod trouble;
