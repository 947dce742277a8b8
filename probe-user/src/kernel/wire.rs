//! The single promise that our ABI types are plain old data for aya's maps.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A value of `probe-common` as a map key or value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Wire<T>(pub(super) T);

// SAFETY: `Pod` asks that any bytes are a valid value and that there is no padding to leak; zerocopy's derives prove
// exactly that (`FromBytes`, `IntoBytes`) and that there is no interior mutability (`Immutable`).
unsafe impl<T: Copy + FromBytes + IntoBytes + Immutable + 'static> aya::Pod for Wire<T> {}
