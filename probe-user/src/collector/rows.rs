//! What was counted, by the names under which it stands on the page.

use std::collections::HashMap;

use crate::identity::Residents;
use crate::metric::{Labels, OTHER};

/// Sums by owner: the UID of a pod, or the name of a unit. They do not move: those of TCP are large.
#[derive(Debug, Default)]
pub(super) struct Sums<'o, T> {
    places: HashMap<&'o str, usize>,
    sums: Vec<T>,
}

impl<'o, T: Default> Sums<'o, T> {
    /// Sums of these owners, each nothing yet.
    pub(super) fn known(owners: impl Iterator<Item = &'o str>) -> Self {
        let mut places = HashMap::new();
        for owner in owners {
            let place = places.len();
            places.entry(owner).or_insert(place);
        }
        let sums = places.values().map(|_| T::default()).collect();
        Self { places, sums }
    }

    /// The sum of an owner, at first nothing.
    pub(super) fn of(&mut self, owner: &'o str) -> &mut T {
        let place = *self.places.entry(owner).or_insert(self.sums.len());
        if place == self.sums.len() {
            self.sums.push(T::default());
        }
        &mut self.sums[place]
    }

    /// The sum of what found no slot, among those of pods: no UID is this word.
    pub(super) fn of_other(&mut self) -> &mut T {
        self.of(OTHER)
    }

    /// Pods by name. Those that have followed each other under one name are one; those without a name are left out.
    pub(super) fn into_pods(self, residents: &Residents<'_>, add: impl Fn(&mut T, &T)) -> Rows<T> {
        let name = |uid| if uid == OTHER { Some([OTHER; 2]) } else { residents.shown(uid) };
        self.into_rows(&["namespace", "pod"], name, add)
    }

    /// Units by name.
    pub(super) fn into_units(self, add: impl Fn(&mut T, &T)) -> Rows<T> {
        self.into_rows(&["unit"], |unit| Some([unit]), add)
    }

    fn into_rows<'v, const N: usize>(
        mut self,
        names: &'static [&'static str; N],
        values: impl Fn(&'o str) -> Option<[&'v str; N]>,
        add: impl Fn(&mut T, &T),
    ) -> Rows<T> {
        let named = self.places.iter().filter_map(|(owner, place)| Some((values(owner)?, *place)));
        let mut order: Vec<([&str; N], usize)> = named.collect();
        order.sort_unstable();
        order.dedup_by(|(name, place), (kept, sum)| {
            let is_same = name == kept;
            if is_same {
                let more = std::mem::take(&mut self.sums[*place]);
                add(&mut self.sums[*sum], &more);
            }
            is_same
        });
        let labelled = order.into_iter().map(|(name, place)| (Labels::new(names, &name), place));
        Rows { order: labelled.collect(), sums: self.sums }
    }
}

/// What was counted, in the order of the page.
#[derive(Debug)]
pub(super) struct Rows<T> {
    order: Vec<(Labels, usize)>,
    sums: Vec<T>,
}

impl<T> Rows<T> {
    /// A single row without labels.
    pub(super) fn single(sum: T) -> Self {
        Self { order: vec![(Labels::NONE, 0)], sums: vec![sum] }
    }

    /// The first labels of some series, and what was counted for them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Labels, &T)> {
        self.order.iter().map(|(labels, place)| (labels, &self.sums[*place]))
    }

    pub(super) fn sums_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.sums.iter_mut()
    }
}
