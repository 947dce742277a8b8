//! UDP: datagrams and bytes, up to the MTU, beyond it, and segmented by the kernel.
