//! Attaches a pair of tc programs to a device: by TCX links, or before Linux 6.6 by filters on clsact.

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, qdisc_add_clsact, qdisc_detach_program,
};
use aya::programs::{ProgramError, SchedClassifier};

use super::error::KernelError;
use super::load::program;

/// Priority of our filters on clsact; the kernel gives 49152 and below to filters without one.
const PRIORITY: u16 = 1;

/// The programs of one subject, for what a device receives and for what it sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) receive: &'static str,
    pub(super) transmit: &'static str,
}

/// An attached device. Dropping it detaches.
pub(super) struct Attached {
    pub(super) name: String,
    _links: Vec<SchedClassifierLink>,
}

/// Attaches both programs, or none.
///
/// # Errors
/// When a program is refused, or the device is gone.
pub(super) fn attach(ebpf: &mut Ebpf, pair: Pair, device: &str) -> Result<Attached, KernelError> {
    let is_tcx = tcx_available();
    let programs = [(pair.receive, TcAttachType::Ingress), (pair.transmit, TcAttachType::Egress)];
    if !is_tcx {
        prepare_clsact(device, programs);
    }
    let mut links = Vec::new();
    for (name, direction) in programs {
        let classifier: &mut SchedClassifier = program(ebpf, name)?;
        match classifier.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(source) => return Err(KernelError::Program { program: name, source }),
        }
        let refused = |source| KernelError::Attach { program: name, target: device.to_owned(), source };
        let id = classifier.attach_with_options(device, direction, options(is_tcx)).map_err(refused)?;
        links.push(classifier.take_link(id).map_err(refused)?);
    }
    Ok(Attached { name: device.to_owned(), _links: links })
}

/// First in the chain, since a program that ends the chain hides packets from those behind it; nobody is moved.
fn options(is_tcx: bool) -> TcAttachOptions {
    if is_tcx {
        TcAttachOptions::TcxOrder(LinkOrder::first())
    } else {
        TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, ..NlOptions::default() })
    }
}

/// Before Linux 6.6 programs hang on clsact, without a link that ends with the process: the qdisc may exist already
/// and is never removed by us; filters of ours that an earlier run left are.
fn prepare_clsact(device: &str, programs: [(&'static str, TcAttachType); 2]) {
    // Both fail where there is nothing to do, and `attach` says what is really wrong.
    let _exists = qdisc_add_clsact(device);
    for (name, direction) in programs {
        let _none = qdisc_detach_program(device, direction, name);
    }
}

/// Whether the kernel has TCX links (Linux 6.6).
fn tcx_available() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-', '+']).map(|part| part.trim().parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 6)
}
