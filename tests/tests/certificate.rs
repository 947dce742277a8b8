//! Certificates in files and behind ports, compared with what openssl reads of both, with real etcd among the servers.

#[path = "certificate/authority.rs"]
mod authority;
#[path = "certificate/files.rs"]
mod files;
#[path = "certificate/served.rs"]
mod served;
#[path = "certificate/stage.rs"]
mod stage;
#[path = "certificate/trouble.rs"]
mod trouble;
