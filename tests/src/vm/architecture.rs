//! What differs between machines of the architectures that the agent is shipped for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::tools;

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `x86_64`.
    Amd64,
    /// 64-bit Arm, as in a Raspberry Pi.
    Arm64,
}

impl Architecture {
    /// That of this machine.
    const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    /// Debian's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The target of Rust that the agent is built for.
    #[must_use]
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Whether this machine cannot run its programs.
    #[must_use]
    pub fn is_foreign(self) -> bool {
        self != Self::HOST
    }

    pub(super) fn emulator(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// What the emulator emulates.
    pub(super) fn machine(self) -> &'static [&'static str] {
        match self {
            // The emulator gets this instruction wrong now and then; newer kernels then stop while they boot.
            Self::Amd64 => &["-machine", "q35", "-cpu", "max,-cx16"],
            // The processor of a Raspberry Pi 4.
            Self::Arm64 => &["-machine", "virt", "-cpu", "cortex-a72"],
        }
    }

    /// How the emulator names its standard input and output as the port of the shell.
    pub(super) fn shell_port(self) -> &'static [&'static str] {
        match self {
            Self::Amd64 => &["-serial", "stdio"],
            // Its board has one port, that of the kernel.
            Self::Arm64 => &["-chardev", "stdio,id=shell", "-device", "pci-serial,chardev=shell"],
        }
    }

    /// The serial ports of the kernel and of the shell.
    pub(super) fn ports(self) -> [&'static str; 2] {
        match self {
            Self::Amd64 => ["ttyS0", "ttyS1"],
            Self::Arm64 => ["ttyAMA0", "ttyS0"],
        }
    }

    /// What makes programs small.
    pub(super) fn strip(self) -> Result<PathBuf> {
        match (self.is_foreign(), self) {
            (false, _) => tools::require("strip"),
            (true, Self::Amd64) => tools::require("x86_64-linux-gnu-strip"),
            (true, Self::Arm64) => tools::require("aarch64-linux-gnu-strip"),
        }
    }

    /// A program that lists the shared libraries of its argument, as they stand below the root.
    pub(super) fn lister(self, root: &Path) -> Result<Command> {
        if !self.is_foreign() {
            return Ok(Command::new("ldd"));
        }
        let (emulator, loader) = match self {
            Self::Amd64 => ("qemu-x86_64-static", "lib64/ld-linux-x86-64.so.2"),
            Self::Arm64 => ("qemu-aarch64-static", "lib/ld-linux-aarch64.so.1"),
        };
        let mut command = Command::new(tools::require(emulator)?);
        command.arg("-L").arg(root).arg(root.join(loader)).arg("--list");
        Ok(command)
    }
}
