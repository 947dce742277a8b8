//! What an executable needs: an image without any other file runs a static binary of its own architecture only.

use anyhow::{Context as _, Result, bail};

/// Of a segment that names the dynamic linker.
const PT_INTERP: u32 = 3;

/// An architecture, by the names of OCI and of ELF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

impl Architecture {
    /// The name in an image.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Which of its kinds, where OCI tells them apart.
    pub(super) const fn variant(self) -> Option<&'static str> {
        match self {
            Self::Amd64 => None,
            Self::Arm64 => Some("v8"),
        }
    }

    /// By the number in the header of an executable.
    fn of_machine(number: u16) -> Result<Self> {
        match number {
            62 => Ok(Self::Amd64),
            183 => Ok(Self::Arm64),
            _ => bail!("it is for ELF machine {number}, and images are for 62 (x86-64) and 183 (64-bit Arm)"),
        }
    }
}

/// Checks that a binary runs where there is nothing else, and says on which architecture.
pub(super) fn check(binary: &[u8]) -> Result<Architecture> {
    if binary.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("it is no 64-bit little-endian ELF file");
    }
    let architecture = Architecture::of_machine(u16_at(binary, 18)?)?;
    let table = usize::try_from(u64_at(binary, 32)?).context("its program headers lie beyond its end")?;
    let (size, count) = (usize::from(u16_at(binary, 54)?), usize::from(u16_at(binary, 56)?));
    for index in 0..count {
        if u32_at(binary, table.saturating_add(index * size))? == PT_INTERP {
            bail!(
                "it is linked dynamically, and the image has no dynamic linker; build it for a musl target"
            );
        }
    }
    Ok(architecture)
}

fn bytes_at<const N: usize>(binary: &[u8], at: usize) -> Result<[u8; N]> {
    let found = binary.get(at..at.saturating_add(N)).and_then(|bytes| bytes.try_into().ok());
    found.context("it ends within its headers")
}

fn u16_at(binary: &[u8], at: usize) -> Result<u16> {
    bytes_at(binary, at).map(u16::from_le_bytes)
}

fn u32_at(binary: &[u8], at: usize) -> Result<u32> {
    bytes_at(binary, at).map(u32::from_le_bytes)
}

fn u64_at(binary: &[u8], at: usize) -> Result<u64> {
    bytes_at(binary, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, and one program header of a type.
    fn executable(machine: u16, segment: u32) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(120, 0);
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64..68].copy_from_slice(&segment.to_le_bytes());
        bytes
    }

    #[test]
    fn a_static_binary_tells_its_architecture() {
        assert_eq!(check(&executable(62, 1)).unwrap(), Architecture::Amd64);
        assert_eq!(check(&executable(183, 1)).unwrap(), Architecture::Arm64);
    }

    #[test]
    fn a_dynamic_binary_is_not_taken() {
        let error = check(&executable(62, PT_INTERP)).unwrap_err().to_string();
        assert!(error.starts_with("it is linked dynamically"), "{error}");
    }

    #[test]
    fn nor_is_one_of_an_architecture_without_images_or_something_else() {
        let error = check(&executable(243, 1)).unwrap_err().to_string();
        assert!(error.starts_with("it is for ELF machine 243, and images are for"), "{error}");
        let error = check(b"#!/bin/sh\n").unwrap_err().to_string();
        assert_eq!(error, "it is no 64-bit little-endian ELF file");
        let error = check(&executable(62, 1)[..64]).unwrap_err().to_string();
        assert_eq!(error, "it ends within its headers");
    }
}
