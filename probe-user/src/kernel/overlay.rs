//! Attaches the overlay programs to devices that come and go.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use probe_common::overlay::{DEVICES_MAX, OverlayDevice};

use super::device::{self, Attached, Pair};
use super::error::KernelError;
use super::filters::Devices;
use super::wire::Wire;

const PROGRAMS: Pair = Pair { receive: "leadline_ovrx", transmit: "leadline_ovtx" };

/// An overlay device to count on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayTarget {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Bytes before the network header: 14 on Ethernet devices, 0 on point-to-point ones.
    pub link_header: u32,
}

/// The attached devices.
pub(super) struct Overlays {
    devices: HashMap<MapData, u32, Wire<OverlayDevice>>,
    attached: BTreeMap<u32, Attached>,
    /// Rows by device name: a device that is made again goes on counting where it stopped.
    rows: Vec<String>,
}

impl Overlays {
    pub(super) fn new(devices: HashMap<MapData, u32, Wire<OverlayDevice>>) -> Self {
        Self { devices, attached: BTreeMap::new(), rows: Vec::new() }
    }

    /// Makes exactly the `wanted` devices attached; what fails is named and left out.
    pub(super) fn replace(&mut self, ebpf: &mut Ebpf, wanted: &[OverlayTarget]) -> Vec<KernelError> {
        let is_wanted = |index: u32, device: &Attached| {
            wanted.iter().any(|target| target.index == index && target.name == device.name)
        };
        let gone: Vec<u32> = self
            .attached
            .iter()
            .filter(|(index, device)| !is_wanted(**index, device))
            .map(|(index, _)| *index)
            .collect();
        let mut errors: Vec<KernelError> =
            gone.into_iter().filter_map(|index| self.detach(index).err()).collect();
        for target in wanted {
            if self.attached.contains_key(&target.index) {
                continue;
            }
            let rows = self.rows.len();
            match self.attach(ebpf, target) {
                Ok(attached) => {
                    self.attached.insert(target.index, attached);
                }
                Err(error) => {
                    errors.push(error);
                    // A device that was never counted has no row, and so no series.
                    self.rows.truncate(rows);
                    // It may not have come as far as the map: then there is nothing to take back.
                    let _absent = self.devices.remove(&target.index);
                }
            }
        }
        errors
    }

    /// Forgets those of the `changed` devices whose programs somebody has taken off, and names them.
    pub(super) fn forget_robbed(&mut self, changed: &Devices) -> Vec<String> {
        let is_robbed =
            |index: &u32, device: &mut Attached| changed.contain(*index) && device.is_robbed(*index);
        self.attached.extract_if(.., is_robbed).map(|(_, device)| device.name.clone()).collect()
    }

    /// Names and rows of the devices that were ever attached.
    pub(super) fn rows(&self) -> &[String] {
        &self.rows
    }

    /// Whether anything is attached now.
    pub(super) fn any(&self) -> bool {
        !self.attached.is_empty()
    }

    /// The entry of a device goes with it: the kernel never gives its index again, so the map would fill up.
    fn detach(&mut self, index: u32) -> Result<(), KernelError> {
        self.attached.remove(&index);
        self.devices.remove(&index).map_err(map_error)
    }

    fn attach(&mut self, ebpf: &mut Ebpf, target: &OverlayTarget) -> Result<Attached, KernelError> {
        let row = row(&mut self.rows, &target.name)
            .ok_or_else(|| KernelError::TooManyOverlays { device: target.name.clone() })?;
        let device = OverlayDevice { row, link_header: target.link_header };
        self.devices.insert(target.index, Wire(device), 0).map_err(map_error)?;
        device::attach(ebpf, PROGRAMS, &target.name, target.index)
    }
}

fn map_error(source: MapError) -> KernelError {
    KernelError::Map { map: "leadline_ovdev", source }
}

/// The row of a device, the same for every device that has ever had its name; none when all rows have a name.
fn row(names: &mut Vec<String>, name: &str) -> Option<u32> {
    let position = names.iter().position(|known| known == name).unwrap_or(names.len());
    let row = u32::try_from(position).ok().filter(|row| *row < DEVICES_MAX)?;
    if position == names.len() {
        names.push(name.to_owned());
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_keeps_its_row_and_no_two_devices_share_one() {
        let mut names = Vec::new();
        let rows = ["a", "b", "a", "c", "d", "e", "d"].map(|name| row(&mut names, name));
        assert_eq!(rows, [Some(0), Some(1), Some(0), Some(2), Some(3), None, Some(3)]);
        assert_eq!(names, ["a", "b", "c", "d"]);
    }
}
