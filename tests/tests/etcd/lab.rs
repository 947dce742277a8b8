//! The lab tests itself: clusters come up, fail as they are told to, and etcd's own interfaces say so.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::{LIMIT, VERSIONS, of, start};

#[test]
fn a_cluster_becomes_healthy() -> Result<()> {
    for version in VERSIONS {
        let began = Instant::now();
        let (lab, etcd) = start(3, &of(version))?;
        println!("{version:?} healthy after {:?}", began.elapsed());
        let listed = etcd.listed()?;
        assert_eq!(listed.len(), 3);
        let leader = etcd.wait_leader(LIMIT)?;
        for member in etcd.numbers() {
            let status = etcd.status(member)?;
            assert!(status.version.starts_with(version.prefix()), "{status:?}");
            assert_eq!((status.errors.as_slice(), status.is_learner), (&[][..], false), "{status:?}");
            assert_eq!(status.leader, Some(etcd.status(leader)?.id));
            let own = listed.iter().find(|listed| listed.id == status.id).context("not in the list")?;
            assert_eq!(own.name, format!("node{member}"));
        }
        lab.shutdown()?;
    }
    Ok(())
}
