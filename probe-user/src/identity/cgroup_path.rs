//! From a cgroup path to its owner: pure.
//!
//! Pods are recognised by their own directory, whatever lies above it: kind and nested labs put whole nodes below a
//! prefix. Everything in or below that directory belongs to the pod, because containers with an init system make
//! services and slices of their own there.

use super::Owner;

/// The owner of the cgroup at `path`, relative to the hierarchy's root; a leading slash is allowed.
#[must_use]
pub fn parse_cgroup_path(path: &str) -> Owner {
    let components: Vec<&str> = path.split('/').filter(|component| !component.is_empty()).collect();
    pod_of(&components).or_else(|| unit_of(&components)).unwrap_or(Owner::Kernel)
}

fn pod_of(components: &[&str]) -> Option<Owner> {
    let kubepods = components.iter().position(|component| is_kubepods(component))?;
    let below = components.get(kubepods..)?;
    below.iter().find_map(|component| parse_pod(component)).map(|uid| Owner::Pod { uid })
}

/// `kubepods` (cgroupfs driver), `kubepods.slice` (systemd driver), `kubelet-kubepods.slice` (below a
/// `--cgroup-root`), `kubepods-burstable.slice` where a container sees only the end of its path.
fn is_kubepods(component: &str) -> bool {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    name.split('-').any(|part| part == "kubepods")
}

/// The UID in `podUID` or in `…kubepods-burstable-podUID.slice`, in canonical form.
fn parse_pod(component: &str) -> Option<String> {
    let uid = match component.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => component.strip_prefix("pod")?,
    };
    normalise_uid(uid)
}

/// The canonical form of a pod UID: dashes, where systemd's escaping made underscores of them. The UID of a static
/// pod is a hash of 32 hexadecimal digits and stays as it is. `None` for anything else.
pub(super) fn normalise_uid(uid: &str) -> Option<String> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    let canonical = uid.replace('_', "-");
    let mut characters = canonical.char_indices();
    let is_uid = canonical.len() == 36
        && characters.all(|(at, c)| if DASHES.contains(&at) { c == '-' } else { c.is_ascii_hexdigit() });
    let is_hash = canonical.len() == 32 && canonical.chars().all(|c| c.is_ascii_hexdigit());
    (is_uid || is_hash).then_some(canonical)
}

/// The service or, without one, the innermost slice. Below a user's slice there are services of that user's own
/// manager: they belong to the slice. `None` for the root.
fn unit_of(components: &[&str]) -> Option<Owner> {
    let user = components.iter().find(|component| is_user_slice(component));
    let service = || components.iter().find(|component| component.ends_with(".service"));
    let slice = || components.iter().rfind(|component| component.strip_suffix(".slice").is_some());
    // Scopes without a slice keep their name (init.scope), and so does what neither systemd nor a kubelet made.
    let first = || components.first();
    let unit = user.or_else(service).or_else(slice).or_else(first)?;
    Some(Owner::Unit((*unit).to_owned()))
}

fn is_user_slice(component: &str) -> bool {
    component.strip_suffix(".slice").is_some_and(|name| name.starts_with("user-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "f49bc5ea-916a-4212-99f5-faa047ac2f8b";
    const UID_ESCAPED: &str = "f49bc5ea_916a_4212_99f5_faa047ac2f8b";
    const CID: &str = "500dd042cd2384bd72e1f0c95f0a1ab0a9fae1e9e34ae6c9c1f9a3a3d5b0b3f1";

    fn pod(uid: &str) -> Owner {
        Owner::Pod { uid: uid.to_owned() }
    }

    fn unit(name: &str) -> Owner {
        Owner::Unit(name.to_owned())
    }

    #[test]
    fn pods_of_the_cgroupfs_driver() {
        for class in ["burstable/", "besteffort/", ""] {
            assert_eq!(parse_cgroup_path(&format!("/kubepods/{class}pod{UID}/{CID}")), pod(UID));
            assert_eq!(parse_cgroup_path(&format!("kubepods/{class}pod{UID}")), pod(UID));
        }
    }

    #[test]
    fn pods_of_the_systemd_driver() {
        for runtime in ["cri-containerd", "crio", "docker"] {
            let burstable = format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_ESCAPED}.slice/{runtime}-{CID}.scope"
            );
            assert_eq!(parse_cgroup_path(&burstable), pod(UID));
            let guaranteed = format!("/kubepods.slice/kubepods-pod{UID_ESCAPED}.slice/{runtime}-{CID}.scope");
            assert_eq!(parse_cgroup_path(&guaranteed), pod(UID));
        }
    }

    #[test]
    fn crio_puts_its_monitor_beside_the_container() {
        let path = format!("kubepods.slice/kubepods-pod{UID_ESCAPED}.slice/crio-conmon-{CID}.scope");
        assert_eq!(parse_cgroup_path(&path), pod(UID));
    }

    #[test]
    fn static_pods_keep_their_hash() {
        let hash = "10243870eb25589e609b8317f4b2b7c4";
        assert_eq!(parse_cgroup_path(&format!("/kubepods/burstable/pod{hash}/{CID}")), pod(hash));
        let slice = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice");
        assert_eq!(parse_cgroup_path(&slice), pod(hash));
    }

    #[test]
    fn pods_below_a_prefix() {
        let kind = format!(
            "/docker/{CID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{UID_ESCAPED}.slice/cri-containerd-{CID}.scope"
        );
        assert_eq!(parse_cgroup_path(&kind), pod(UID));
        assert_eq!(parse_cgroup_path(&format!("/kn/n1/kubepods/besteffort/pod{UID}/{CID}")), pod(UID));
        let k3s = format!("/system.slice/k3s.service/kubepods/burstable/pod{UID}/{CID}");
        assert_eq!(parse_cgroup_path(&k3s), pod(UID));
    }

    #[test]
    fn an_init_system_inside_a_container_does_not_hide_the_pod() {
        let path = format!("/kubepods/burstable/pod{UID}/{CID}/system.slice/nginx.service");
        assert_eq!(parse_cgroup_path(&path), pod(UID));
    }

    #[test]
    fn what_only_looks_like_a_pod_is_a_unit() {
        assert_eq!(parse_cgroup_path("/kubepods.slice"), unit("kubepods.slice"));
        assert_eq!(
            parse_cgroup_path("/kubepods.slice/kubepods-burstable.slice"),
            unit("kubepods-burstable.slice")
        );
        assert_eq!(parse_cgroup_path("/kubepods/podxyz/abc"), unit("kubepods"));
        let short = &UID[..35];
        assert_eq!(parse_cgroup_path(&format!("/kubepods/pod{short}")), unit("kubepods"));
        assert_eq!(parse_cgroup_path(&format!("/machine.slice/pod{UID}")), unit("machine.slice"));
    }

    #[test]
    fn host_services_with_and_without_cgroups_of_their_own() {
        assert_eq!(parse_cgroup_path("/system.slice/kubelet.service"), unit("kubelet.service"));
        assert_eq!(parse_cgroup_path("/kn/n1/system.slice/etcd.service/worker"), unit("etcd.service"));
        let template = "/system.slice/system-getty.slice/getty@tty1.service";
        assert_eq!(parse_cgroup_path(template), unit("getty@tty1.service"));
    }

    #[test]
    fn scopes_fold_into_their_slice() {
        assert_eq!(parse_cgroup_path("/user.slice/user-1000.slice/session-2.scope"), unit("user-1000.slice"));
        let of_user = "/user.slice/user-1000.slice/user@1000.service/app.slice/foot.service";
        assert_eq!(parse_cgroup_path(of_user), unit("user-1000.slice"));
        assert_eq!(parse_cgroup_path(&format!("/system.slice/docker-{CID}.scope")), unit("system.slice"));
        assert_eq!(parse_cgroup_path("/machine.slice/libpod-1.scope/container"), unit("machine.slice"));
    }

    #[test]
    fn a_scope_at_the_top_keeps_its_name() {
        assert_eq!(parse_cgroup_path("/init.scope"), unit("init.scope"));
    }

    #[test]
    fn the_root_is_the_kernel() {
        assert_eq!(parse_cgroup_path("/"), Owner::Kernel);
        assert_eq!(parse_cgroup_path(""), Owner::Kernel);
    }
}
