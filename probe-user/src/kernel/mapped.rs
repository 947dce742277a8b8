//! A `BPF_F_MMAPABLE` array mapped into memory: read and written without a system call.

use std::marker::PhantomData;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::error::KernelError;

const WORD: usize = size_of::<u64>();

/// An array of `T` shared with the programs. Every access is a relaxed atomic one of 64 bits: the programs add
/// atomically, so no word is ever seen half written; words of one element may be of different moments.
pub(super) struct Mapped<T> {
    memory: MmapRaw,
    /// Programs that are loaded later name the map by this descriptor.
    _map: MapData,
    length: usize,
    kind: PhantomData<fn() -> T>,
}

impl<T: FromBytes + IntoBytes + Immutable> Mapped<T> {
    /// Maps an array of `length` elements.
    pub(super) fn new(map: MapData, name: &'static str, length: u32) -> Result<Self, KernelError> {
        const { assert!(size_of::<T>().is_multiple_of(WORD)) };
        let length = length as usize;
        let memory = MmapOptions::new()
            .len(length * size_of::<T>())
            .map_raw(std::os::fd::AsFd::as_fd(map.fd()).as_raw_fd())
            .map_err(|source| KernelError::Mapping { map: name, source })?;
        Ok(Self { memory, _map: map, length, kind: PhantomData })
    }

    /// The words of an element; none beyond the end.
    fn words(&self, index: usize) -> &[AtomicU64] {
        if index >= self.length {
            return &[];
        }
        let start = index * size_of::<T>();
        // SAFETY: the element is inside the mapping, which lives as long as `self`, is page-aligned and never truncated
        // (a BPF map has a fixed size); all accesses from this process are atomic.
        unsafe {
            #[expect(
                clippy::cast_ptr_alignment,
                reason = "a page, and a whole number of words behind its start"
            )]
            let words = self.memory.as_mut_ptr().add(start).cast::<AtomicU64>();
            std::slice::from_raw_parts(words, size_of::<T>() / WORD)
        }
    }

    /// Adds the words of an element to those of `sum`.
    pub(super) fn add_to(&self, index: usize, sum: &mut T) {
        for (cell, bytes) in self.words(index).iter().zip(sum.as_mut_bytes().chunks_exact_mut(WORD)) {
            let mut value = [0; WORD];
            value.copy_from_slice(bytes);
            let total = u64::from_ne_bytes(value).wrapping_add(cell.load(Ordering::Relaxed));
            bytes.copy_from_slice(&total.to_ne_bytes());
        }
    }

    /// An element; `None` beyond the end.
    pub(super) fn read(&self, index: usize) -> Option<T> {
        (index < self.length).then(|| {
            let mut value = T::new_zeroed();
            self.add_to(index, &mut value);
            value
        })
    }

    /// Overwrites an element.
    pub(super) fn write(&self, index: usize, value: &T) {
        for (cell, bytes) in self.words(index).iter().zip(value.as_bytes().chunks_exact(WORD)) {
            let mut new = [0; WORD];
            new.copy_from_slice(bytes);
            cell.store(u64::from_ne_bytes(new), Ordering::Relaxed);
        }
    }

    /// Adds to one word of an element and publishes everything written before.
    pub(super) fn raise(&self, index: usize, word: usize) {
        if let Some(cell) = self.words(index).get(word) {
            cell.fetch_add(1, Ordering::Release);
        }
    }

    /// Bytes of kernel memory that the array takes.
    pub(super) fn bytes(&self) -> u64 {
        (self.length * size_of::<T>()) as u64
    }
}
