//! Gives memory back: the agent needs tens of megabytes for a moment when it starts, and again for a large page.

/// Blocks from this size on are mapped on their own and unmapped when they are freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: i32 = 1024 * 1024;

/// Heaps at most: each thread that makes a page would else come to have one of its own, as large as its largest page.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 2;

/// Keeps glibc from raising its threshold for mapped blocks whenever one is freed (mallopt(3), dynamic threshold):
/// the next block of that size would come from the heap, which does not shrink. Other C libraries give large blocks
/// back by themselves.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [(libc::M_MMAP_THRESHOLD, MAPPED_FROM), (libc::M_ARENA_MAX, ARENAS)] {
        // SAFETY: mallopt takes two plain integers and is called before there is a second thread.
        if unsafe { libc::mallopt(option, value) } == 0 {
            tracing::debug!(option, "malloc could not be set up");
        }
    }
}
