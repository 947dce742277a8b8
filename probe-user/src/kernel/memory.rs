//! Giving back to the system what loading needed: the kernel's types, parsed, are several times the size of everything
//! that the agent keeps.

/// Returns freed memory of all threads' heaps. By itself glibc keeps it: one large block that was freed raises its
/// threshold, here to twice the size of the kernel's BTF.
#[cfg(target_env = "gnu")]
pub(super) fn return_freed() {
    // SAFETY: takes the allocator's own locks and touches free memory only. Whether there was any is no matter.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give large blocks back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn return_freed() {}
