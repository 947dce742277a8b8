//! Gives memory back: the agent needs tens of megabytes for a moment when it starts, and again for a large page.

/// Blocks from this size on are mapped on their own and unmapped when they are freed. New memory for each page costs
/// 2.6 ms for 60,000 series; pages of up to some 9,000 series are smaller than this.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: i32 = 1024 * 1024;

/// Keeps glibc from raising its threshold for mapped blocks whenever one is freed (mallopt(3), dynamic threshold):
/// the next block of that size would come from the heap, which does not shrink. Other C libraries give large blocks
/// back by themselves.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two plain integers and is called before there is a second thread.
    if unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) } == 0 {
        tracing::debug!("malloc's threshold could not be fixed");
    }
}
