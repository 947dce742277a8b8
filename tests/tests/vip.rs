//! Virtual addresses of real keepalived, as agents on every node see them, against tcpdump on the same node.
#![expect(clippy::print_stdout, reason = "a test shows what it measured")]

#[path = "vip/announcer.rs"]
mod announcer;
#[path = "vip/client.rs"]
mod client;
#[path = "vip/conflict.rs"]
mod conflict;
#[path = "vip/crafted.rs"]
mod crafted;
#[path = "vip/duplicate.rs"]
mod duplicate;
#[path = "vip/failover.rs"]
mod failover;
#[path = "vip/foreign.rs"]
mod foreign;
#[path = "vip/garbage.rs"]
mod garbage;
#[path = "vip/matrix.rs"]
mod matrix;
#[path = "vip/neighbour.rs"]
mod neighbour;
#[path = "vip/replay.rs"]
mod replay;
#[path = "vip/routers.rs"]
mod routers;
#[path = "vip/series.rs"]
mod series;
#[path = "vip/service.rs"]
mod service;
#[path = "vip/stage.rs"]
mod stage;
#[path = "vip/timeline.rs"]
mod timeline;
#[path = "vip/virtual_mac.rs"]
mod virtual_mac;
#[path = "vip/vlan.rs"]
mod vlan;
