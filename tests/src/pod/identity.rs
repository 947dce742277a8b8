//! The names of a pod: UIDs, container ids and the kubelet's cgroup paths.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The kubelet's cgroup driver, which decides the shape of the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `kubepods/burstable/podUID/CONTAINERID`.
    Cgroupfs,
    /// `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-CONTAINERID.scope`.
    Systemd,
}

/// The quality-of-service class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Requests equal limits; such pods lie directly below `kubepods`.
    Guaranteed,
    /// Some request.
    Burstable,
    /// No request.
    BestEffort,
}

impl Qos {
    fn directory(self) -> Option<&'static str> {
        match self {
            Self::Guaranteed => None,
            Self::Burstable => Some("burstable"),
            Self::BestEffort => Some("besteffort"),
        }
    }
}

/// The cgroup of a pod, relative to the node's root.
pub(crate) fn pod_cgroup(driver: Driver, qos: Qos, uid: &str) -> PathBuf {
    let path = match (driver, qos.directory()) {
        (Driver::Cgroupfs, None) => format!("kubepods/pod{uid}"),
        (Driver::Cgroupfs, Some(class)) => format!("kubepods/{class}/pod{uid}"),
        // A dash in the name of a slice stands for a parent, so the UID's own dashes are escaped.
        (Driver::Systemd, None) => format!("kubepods.slice/kubepods-pod{}.slice", uid.replace('-', "_")),
        (Driver::Systemd, Some(class)) => {
            let uid = uid.replace('-', "_");
            format!("kubepods.slice/kubepods-{class}.slice/kubepods-{class}-pod{uid}.slice")
        }
    };
    PathBuf::from(path)
}

/// The cgroup of a container, relative to its pod's.
pub(crate) fn container_cgroup(driver: Driver, id: &str) -> String {
    match driver {
        Driver::Cgroupfs => id.to_owned(),
        Driver::Systemd => format!("cri-containerd-{id}.scope"),
    }
}

/// A random UUID of version 4.
pub(crate) fn random_uid() -> Result<String> {
    let mut bytes: [u8; 16] = random()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// That many random bytes (at most 32) as hexadecimal digits.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    Ok(hex(&random::<32>()?[..bytes]))
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut source = File::open("/dev/urandom").context("open /dev/urandom")?;
    source.read_exact(&mut bytes).context("read /dev/urandom")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "f49bc5ea-916a-4212-99f5-faa047ac2f8b";

    #[test]
    fn cgroupfs_paths() {
        let path = |qos| pod_cgroup(Driver::Cgroupfs, qos, UID).display().to_string();
        assert_eq!(path(Qos::Guaranteed), format!("kubepods/pod{UID}"));
        assert_eq!(path(Qos::Burstable), format!("kubepods/burstable/pod{UID}"));
        assert_eq!(path(Qos::BestEffort), format!("kubepods/besteffort/pod{UID}"));
        assert_eq!(container_cgroup(Driver::Cgroupfs, "ab12"), "ab12");
    }

    #[test]
    fn systemd_paths() {
        let path = |qos| pod_cgroup(Driver::Systemd, qos, "a-b").display().to_string();
        assert_eq!(path(Qos::Guaranteed), "kubepods.slice/kubepods-poda_b.slice");
        assert_eq!(
            path(Qos::BestEffort),
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-poda_b.slice"
        );
        assert_eq!(container_cgroup(Driver::Systemd, "ab12"), "cri-containerd-ab12.scope");
    }

    #[test]
    fn uids_are_random_and_well_formed() {
        let (one, two) = (random_uid().unwrap(), random_uid().unwrap());
        assert_ne!(one, two);
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(one.as_bytes()[14], b'4');
    }

    #[test]
    fn container_ids_have_64_digits() {
        assert_eq!(random_hex(32).unwrap().len(), 64);
    }
}
