//! Single flight: whoever asks for a page while that page is being made gets that one. A hundred scrapers cost one
//! walk over the kernel's maps, and nobody gets a page that was finished before it asked.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

type Run<V> = Shared<BoxFuture<'static, Option<V>>>;

/// Runs in progress by key.
#[derive(Debug)]
pub(super) struct Flights<K, V>(Arc<Mutex<HashMap<K, Run<V>>>>);

/// Takes the run out of the table however it ends.
struct Landing<K: Eq + Hash, V: Clone>(K, Arc<Mutex<HashMap<K, Run<V>>>>);

impl<K, V> Flights<K, V>
where
    K: Copy + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Joins the run for `key`, or starts one with `make` on a thread that may block. `None` when `make` panicked.
    pub(super) async fn join(&self, key: K, make: impl FnOnce() -> V + Send + 'static) -> Option<V> {
        let run = lock(&self.0).entry(key).or_insert_with(|| self.prepare(key, make)).clone();
        run.await
    }

    /// A run that starts when the first caller polls it, outside the lock of the table.
    fn prepare(&self, key: K, make: impl FnOnce() -> V + Send + 'static) -> Run<V> {
        let landing = Landing(key, self.0.clone());
        let run = async move {
            let job = move || {
                let _landing = landing;
                make()
            };
            tokio::task::spawn_blocking(job).await.ok()
        };
        run.boxed().shared()
    }
}

impl<K: Eq + Hash, V: Clone> Drop for Landing<K, V> {
    fn drop(&mut self) {
        lock(&self.1).remove(&self.0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn callers_share_the_run_in_progress() {
        let flights = Arc::new(Flights::new());
        let runs = Arc::new(AtomicU32::new(0));
        let gate = Arc::new(Barrier::new(2));
        let first = {
            let (flights, runs, gate) = (flights.clone(), runs.clone(), gate.clone());
            tokio::spawn(async move {
                let make = move || {
                    gate.wait();
                    runs.fetch_add(1, Ordering::SeqCst)
                };
                flights.join((), make).await
            })
        };
        while lock(&flights.0).get(&()).and_then(Shared::strong_count).is_none_or(|count| count < 2) {
            tokio::task::yield_now().await;
        }
        let open = async {
            tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
        };
        let (second, ()) = tokio::join!(flights.join((), || 99), open);
        assert_eq!(second, Some(0));
        assert_eq!(first.await.unwrap(), Some(0));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_finished_run_is_not_served_again() {
        let flights = Flights::new();
        assert_eq!(flights.join('a', || 1).await, Some(1));
        assert_eq!(flights.join('a', || 2).await, Some(2));
    }

    #[tokio::test]
    async fn a_panic_does_not_block_the_next_run() {
        let flights = Flights::new();
        assert_eq!(flights.join('a', || panic!("boom")).await, None::<u32>);
        assert_eq!(flights.join('a', || 2).await, Some(2));
    }
}
