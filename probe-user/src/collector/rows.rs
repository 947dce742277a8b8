//! What was counted, by the names under which it stands on the page.

use std::collections::HashMap;
use std::time::Instant;

use crate::identity::Census;
use crate::metric::{Labels, OTHER};

/// The first labels of some series, and what was counted for them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row<T> {
    pub(super) labels: Labels,
    pub(super) counts: T,
}

/// Sums by owner: the UID of a pod, or the name of a unit. An owner has several slots; only the first makes an entry.
#[derive(Debug, Default)]
pub(super) struct Sums<T> {
    places: HashMap<String, usize>,
    sums: Vec<(String, T)>,
}

impl<T: Default> Sums<T> {
    /// The sum of an owner, at first nothing.
    pub(super) fn of(&mut self, owner: &str) -> &mut T {
        let place = match self.places.get(owner) {
            Some(place) => *place,
            None => self.begin(owner),
        };
        &mut self.sums[place].1
    }

    /// The sum of what found no slot, among those of pods.
    pub(super) fn of_other(&mut self) -> &mut T {
        self.of(OTHER)
    }

    fn begin(&mut self, owner: &str) -> usize {
        let place = self.sums.len();
        self.sums.push((owner.to_owned(), T::default()));
        self.places.insert(owner.to_owned(), place);
        place
    }

    /// Pods in the order of the page. Those that have followed each other under one name are one row; those without a
    /// name have none.
    pub(super) fn into_pods(self, census: &Census, add: impl Fn(&mut T, &T)) -> Vec<Row<T>> {
        let now = Instant::now();
        let named = |(uid, sum)| Some((pod_labels(census, uid, now)?, sum));
        let mut pods: Vec<([String; 2], T)> = self.sums.into_iter().filter_map(named).collect();
        pods.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        pods.dedup_by(|(name, more), (kept, sum)| {
            let is_same = name == kept;
            if is_same {
                add(sum, more);
            }
            is_same
        });
        let row = |([namespace, pod], counts): ([String; 2], T)| Row {
            labels: Labels::new(&["namespace", "pod"], &[&namespace, &pod]),
            counts,
        };
        pods.into_iter().map(row).collect()
    }

    /// Units in the order of the page.
    pub(super) fn into_units(mut self) -> Vec<Row<T>> {
        self.sums.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let row = |(unit, counts): (String, T)| Row { labels: Labels::new(&["unit"], &[&unit]), counts };
        self.sums.into_iter().map(row).collect()
    }
}

/// Namespace and name of a pod; `None` while its name may still come: it is left out, and its counts are in the node's
/// totals meanwhile. The UID stands for a name that does not come.
fn pod_labels(census: &Census, uid: String, now: Instant) -> Option<[String; 2]> {
    // No UID is this word.
    if uid == OTHER {
        return Some([OTHER.to_owned(), uid]);
    }
    census.shown(&uid, now).map(|name| [name.namespace, name.pod])
}
