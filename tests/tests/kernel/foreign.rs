//! Filters of somebody else on the uplink, and what `tc` says of all of them.

use anyhow::{Context as _, Result};
use lab::Vm;

/// Where they are: one at a priority that ours may take as well, and one behind.
pub(crate) const PRIORITIES: [u32; 2] = [3, 7];

/// The filters of one direction of a device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    /// Priority and name of those that carry our handle.
    pub(crate) ours: Vec<(u32, String)>,
    /// The kernel's numbers of their programs.
    pub(crate) programs: Vec<String>,
    /// Priorities of all others.
    pub(crate) foreign: Vec<u32>,
}

/// Has every direction of the uplink filtered.
pub(crate) fn attach(vm: &mut Vm) -> Result<()> {
    for direction in ["ingress", "egress"] {
        for priority in PRIORITIES {
            // Passes on to the next one, so that each sees everything.
            vm.run(&format!("tc filter add dev eth0 {direction} prio {priority} matchall action continue"))?;
        }
    }
    Ok(())
}

/// Packets that the last foreign filter has seen coming in.
pub(crate) fn seen(vm: &mut Vm) -> Result<u64> {
    let text = vm.run("tc -s filter show dev eth0 ingress prio 7")?;
    let sent = text.lines().find_map(|line| line.trim().strip_prefix("Sent "));
    let packets = sent.and_then(|rest| rest.split(' ').nth(2)).and_then(|packets| packets.parse().ok());
    packets.with_context(|| format!("no count in {text}"))
}

/// Reads what `tc filter show` prints: lines with a handle are filters, and others are their priorities.
pub(crate) fn parse(text: &str) -> Option<Filters> {
    let mut filters = Filters::default();
    for line in text.lines().filter(|line| line.starts_with("filter ") && line.contains(" handle ")) {
        let after = |key: &str| {
            let mut words = line.split(' ').skip_while(|word| *word != key);
            words.nth(1).map(str::to_owned)
        };
        let priority = after("pref")?.parse().ok()?;
        if after("handle")? == "0x4c440001" {
            filters.ours.push((priority, after("0x4c440001")?));
            filters.programs.push(after("id")?);
        } else {
            filters.foreign.push(priority);
        }
    }
    Some(filters)
}

#[test]
fn filters_are_told_apart_by_their_handle() {
    let text = "filter protocol all pref 1 bpf chain 0 \n\
                filter protocol all pref 1 bpf chain 0 handle 0x4c440001 leadline_taprx direct-action id 12 name x\n\
                filter protocol all pref 5 matchall chain 0 \n\
                filter protocol all pref 5 matchall chain 0 handle 0x1 \n  not_in_hw\n";
    let expected = Filters {
        ours: vec![(1, "leadline_taprx".to_owned())],
        programs: vec!["12".to_owned()],
        foreign: vec![5],
    };
    assert_eq!(parse(text), Some(expected));
}
