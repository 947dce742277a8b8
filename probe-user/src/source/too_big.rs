//! How long the kernel remembers what a router has told of a path's MTU.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// What the kernel does where nobody has changed it (`DEFAULT_MTU_EXPIRES`, `net/ipv4/route.c`), and what is taken where it
/// does not say.
const DEFAULT: Duration = Duration::from_mins(10);

/// `net.ipv4.route.mtu_expires` and `net.ipv6.route.mtu_expires` of the network namespace that this runs in, below `root`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtuExpiry {
    ipv4: Duration,
    ipv6: Duration,
}

impl MtuExpiry {
    /// Reads both.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let read = |family: &str| {
            let path = root.join(format!("proc/sys/net/{family}/route/mtu_expires"));
            parse(&fs::read_to_string(path).ok()?)
        };
        let [ipv4, ipv6] = ["ipv4", "ipv6"].map(|family| read(family).unwrap_or(DEFAULT));
        Self { ipv4, ipv6 }
    }

    /// That of the address's family.
    #[must_use]
    pub const fn of(&self, address: IpAddr) -> Duration {
        match address {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        }
    }
}

fn parse(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_own_and_what_is_not_said_is_the_kernels_default() {
        let root = std::env::temp_dir().join(format!("leadline-too-big-{}", std::process::id()));
        let of = |text: &str| MtuExpiry::read(&root).of(text.parse().unwrap());
        assert_eq!([of("192.0.2.1"), of("2001:db8::1")], [DEFAULT; 2]);
        for (family, seconds) in [("ipv4", "42\n"), ("ipv6", "7\n")] {
            let folder = root.join(format!("proc/sys/net/{family}/route"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("mtu_expires"), seconds).unwrap();
        }
        assert_eq!([of("192.0.2.1"), of("2001:db8::1")], [42, 7].map(Duration::from_secs));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_is_no_number_of_seconds_is_not_taken_for_one() {
        assert_eq!([parse(""), parse("soon"), parse("-1")], [None; 3]);
    }
}
