//! Readers of the world, each with an injectable root or address.

pub mod certificate;
pub mod cgroupfs;
pub mod control_plane;
pub mod etcd;
pub mod exposition;
pub mod fetch;
pub mod flannel;
pub mod haproxy;
pub mod kubernetes;
pub mod multicast;
pub mod netlink;
pub mod path;
pub mod tailscale;
pub mod too_big;
pub mod vip_probe;
