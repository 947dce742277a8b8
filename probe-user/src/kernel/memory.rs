//! Giving back to the system what loading needed: the kernel's types, parsed, are several times the size of everything
//! that the agent keeps.

/// From this size on a block is a mapping of its own, which goes back to the system when it is freed.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 1024 * 1024;

/// Returns freed memory of all threads' heaps, and makes large blocks go back at once from now on.
///
/// By itself glibc raises its threshold to the largest block ever freed, here the kernel's BTF: from then on a page of
/// metrics of some megabytes would stay with each thread that has made one. The price is new memory for each such
/// page, 2.6 ms for 60,000 series; pages of up to some 9,000 series are smaller than this.
#[cfg(target_env = "gnu")]
pub(super) fn return_freed() {
    // SAFETY: both take the allocator's own locks; one changes a parameter, the other touches free memory only. Neither
    // failing changes more than how much memory is kept.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
        libc::malloc_trim(0);
    }
}

/// Other allocators give large blocks back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn return_freed() {}
