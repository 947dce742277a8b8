//! Turns callbacks on for the connections of this network namespace that are older than the agent: the iterator
//! program runs once over all TCP sockets and is unloaded. What is refused here is sampled by the packet programs.

use std::fs::File;
use std::io::{self, Read as _};

use aya::programs::{Iter, ProgramError};
use aya::{Btf, Ebpf};

use super::error::KernelError;
use super::load::program;

const PROGRAM: &str = "leadline_older";

/// Runs the iterator over the sockets of the calling thread's network namespace.
///
/// # Errors
/// Without TCP iterators (before Linux 5.8), and where the program is refused. Before 6.12 it runs and
/// changes nothing: the option to set the flags from outside a callback is younger.
pub(super) fn watch(ebpf: &mut Ebpf, kernel: &Btf) -> Result<(), KernelError> {
    let refused = |source| KernelError::Program { program: PROGRAM, source };
    let iterator: &mut Iter = program(ebpf, PROGRAM)?;
    iterator.load("tcp", kernel).map_err(refused)?;
    let walked = open(iterator).map_err(refused).and_then(walk);
    iterator.unload().map_err(refused)?;
    walked
}

fn open(iterator: &mut Iter) -> Result<File, ProgramError> {
    let link = iterator.attach()?;
    let file = iterator.take_link(link)?.into_file();
    file.map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

/// Reading is what runs the program; it writes nothing.
fn walk(mut sockets: File) -> Result<(), KernelError> {
    let walked = io::copy(&mut sockets.by_ref(), &mut io::sink());
    walked.map(drop).map_err(|source| KernelError::Iterator { program: PROGRAM, source })
}
