//! Records of the ring buffer, decoded and checked.

use probe_common::cgroup::{CREATED, CgroupRecord, REMOVED};
use zerocopy::FromBytes as _;

/// A cgroup that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupEvent {
    /// Created, else removed.
    pub created: bool,
    /// Its id, which is the inode of its directory.
    pub id: u64,
    /// Path relative to the agent's own cgroup root, without a leading slash.
    pub path: String,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
}

/// Decodes one record; `None` for one that is none of ours, which the caller counts.
pub(super) fn decode(bytes: &[u8]) -> Option<CgroupEvent> {
    let (record, _) = CgroupRecord::read_from_prefix(bytes).ok()?;
    let created = match record.kind {
        CREATED => true,
        REMOVED => false,
        _ => return None,
    };
    let path = record.path.get(..record.path_length as usize)?;
    let path = relative(&String::from_utf8_lossy(path), record.root_level as usize);
    Some(CgroupEvent { created, id: record.id, path, time: record.time })
}

/// Drops the leading slash and the components above the agent's root.
fn relative(path: &str, levels: usize) -> String {
    path.trim_start_matches('/').split('/').skip(levels).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use probe_common::cgroup::PATH_MAX;
    use zerocopy::IntoBytes as _;

    use super::*;

    fn record(kind: u32, path: &str) -> CgroupRecord {
        let mut bytes = [0; PATH_MAX];
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        let path_length = u32::try_from(path.len()).unwrap();
        CgroupRecord { kind, root_level: 0, id: 77, time: 5, path_length, padding: 0, path: bytes }
    }

    #[test]
    fn a_created_cgroup_keeps_id_path_and_time() {
        let event = decode(record(CREATED, "/kubepods/podx/y").as_bytes()).unwrap();
        assert_eq!(event, CgroupEvent { created: true, id: 77, path: "kubepods/podx/y".into(), time: 5 });
    }

    #[test]
    fn components_above_the_root_are_dropped() {
        let mut record = record(REMOVED, "/lab/n1/system.slice/a.service");
        record.root_level = 2;
        let event = decode(record.as_bytes()).unwrap();
        assert_eq!((event.created, event.path.as_str()), (false, "system.slice/a.service"));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        assert_eq!(decode(record(9, "/a").as_bytes()), None);
    }

    #[test]
    fn a_length_beyond_the_buffer_is_refused() {
        let mut record = record(CREATED, "/a");
        record.path_length = 100_000;
        assert_eq!(decode(record.as_bytes()), None);
    }

    #[test]
    fn a_short_record_is_refused() {
        assert_eq!(decode(&record(CREATED, "/a").as_bytes()[..40]), None);
    }
}
