//! Attaches a pair of tc programs to a device: by TCX links, or before Linux 6.6 by filters on clsact.

use std::ops::RangeInclusive;

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcAttachType, TcHandle,
    qdisc_add_clsact, qdisc_detach_program,
};
use aya::programs::{ProgramError, SchedClassifier};

use super::error::KernelError;
use super::filters::{self, Filter};
use super::load::program;

/// Priorities of our filters on clsact, best first: one that filters of another kind have taken is refused.
const PRIORITIES: RangeInclusive<u16> = 1..=4;
/// Handle of our filters. The kernel counts from 1, which is what Cilium asks for as well: with that it would replace
/// our filter, and we would delete its own.
const HANDLE: TcHandle = TcHandle::new(0x4c44, 1);

/// The programs of one subject, for what a device receives and for what it sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) receive: &'static str,
    pub(super) transmit: &'static str,
}

/// An attached device. Dropping it detaches.
pub(super) struct Attached {
    pub(super) name: String,
    /// What is attached by filters, which others may remove.
    filters: Vec<Filter>,
    _links: Vec<SchedClassifierLink>,
}

impl Attached {
    /// Whether somebody has removed a filter of ours; one that went with its device is not lost.
    pub(super) fn is_robbed(&self, index: u32) -> bool {
        let is_gone = |filter: &Filter| match filter.exists() {
            Ok(exists) => !exists,
            Err(error) => {
                tracing::warn!(%error, device = self.name, "filters cannot be looked for");
                false
            }
        };
        self.filters.iter().any(is_gone)
            && nix::net::if_::if_nametoindex(self.name.as_str()).is_ok_and(|found| found == index)
    }
}

/// Attaches both programs, or none.
///
/// # Errors
/// When a program is refused, or the device is gone.
pub(super) fn attach(ebpf: &mut Ebpf, pair: Pair, device: &str, index: u32) -> Result<Attached, KernelError> {
    let is_tcx = tcx_available();
    let programs = [(pair.receive, TcAttachType::Ingress), (pair.transmit, TcAttachType::Egress)];
    if !is_tcx {
        prepare_clsact(device, index, programs)?;
    }
    let (mut links, mut filters) = (Vec::new(), Vec::new());
    for (name, direction) in programs {
        let classifier: &mut SchedClassifier = program(ebpf, name)?;
        match classifier.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(source) => return Err(KernelError::Program { program: name, source }),
        }
        let refused = |source| KernelError::Attach { program: name, target: device.to_owned(), source };
        let id = if is_tcx {
            // First in the chain, since a program that ends it hides packets from those behind; nobody is moved.
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            classifier.attach_with_options(device, direction, options)
        } else {
            attach_filter(classifier, device, direction)
        };
        let link = classifier.take_link(id.map_err(refused)?).map_err(refused)?;
        if !is_tcx {
            filters.push(Filter {
                device: index,
                receive: matches!(direction, TcAttachType::Ingress),
                priority: link.priority().map_err(refused)?,
                handle: link.handle().map_err(refused)?.into(),
            });
        }
        links.push(link);
    }
    Ok(Attached { name: device.to_owned(), filters, _links: links })
}

/// Attaches at the best priority that takes our kind of filter.
fn attach_filter(
    classifier: &mut SchedClassifier,
    device: &str,
    direction: TcAttachType,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let mut attach = |priority| {
        let options = NlOptions { priority, handle: HANDLE, ..NlOptions::default() };
        classifier.attach_with_options(device, direction, TcAttachOptions::Netlink(options))
    };
    let mut outcome = attach(*PRIORITIES.start());
    for priority in PRIORITIES.skip(1) {
        if outcome.is_ok() {
            break;
        }
        outcome = attach(priority);
    }
    outcome
}

/// Before Linux 6.6 programs hang on clsact, without a link that ends with the process: the qdisc may exist already
/// and is never removed by us; filters of ours that an earlier run left are.
///
/// # Errors
/// Where the older qdisc for ingress alone is in the place of clsact: it takes filters for egress and runs them on what
/// the device receives.
fn prepare_clsact(
    device: &str,
    index: u32,
    programs: [(&'static str, TcAttachType); 2],
) -> Result<(), KernelError> {
    // Both fail where there is nothing to do, and `attach` says what is really wrong.
    let _exists = qdisc_add_clsact(device);
    if let Ok(Some(kind)) = filters::discipline(index)
        && kind != "clsact"
    {
        return Err(KernelError::Discipline { device: device.to_owned(), kind });
    }
    for (name, direction) in programs {
        let _none = qdisc_detach_program(device, direction, name);
    }
    Ok(())
}

/// Whether the kernel has TCX links (Linux 6.6).
pub(super) fn tcx_available() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-', '+']).map(|part| part.trim().parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 6)
}
