//! Who waits for what, so that news wakes those alone whom it concerns.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Those who wait, by what they wait for.
#[derive(Debug)]
pub struct Waiters<K>(Mutex<BTreeMap<K, Waited>>);

/// Something that is waited for.
#[derive(Debug, Default)]
struct Waited {
    waiting: usize,
    notify: Arc<Notify>,
}

impl<K> Default for Waiters<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// One who waits. Nothing that happens from its making on is missed.
#[derive(Debug)]
pub struct Waiter<'a, K: Ord> {
    waiters: &'a Waiters<K>,
    key: K,
    notify: Arc<Notify>,
}

impl<K: Ord + Clone> Waiters<K> {
    /// Begins to wait.
    pub fn wait_for(&self, key: K) -> Waiter<'_, K> {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = waiters.entry(key.clone()).or_default();
        waited.waiting += 1;
        let notify = Arc::clone(&waited.notify);
        Waiter { waiters: self, key, notify }
    }

    /// Wakes all who wait for something.
    pub fn wake(&self, key: &K) {
        let waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waited) = waiters.get(key) {
            waited.notify.notify_waiters();
        }
    }

    /// Returns for how many things somebody waits.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Says whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Ord> Waiter<'_, K> {
    /// Returns what is ready once somebody wakes. Make it before looking whether there is
    /// anything to wait for.
    pub fn news(&self) -> OwnedNotified {
        Arc::clone(&self.notify).notified_owned()
    }
}

impl<K: Ord> Drop for Waiter<'_, K> {
    fn drop(&mut self) {
        let mut waiters = self.waiters.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waited) = waiters.get_mut(&self.key) {
            waited.waiting -= 1;
            if waited.waiting == 0 {
                waiters.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_wakes_those_whom_it_concerns_and_leaves_nothing() {
        let waiters = Waiters::default();
        let (one, other) = (waiters.wait_for(1), waiters.wait_for(2));
        let same = waiters.wait_for(1);
        let (news, news_of_same) = (one.news(), same.news());
        let none = other.news();
        waiters.wake(&1);
        news.await;
        news_of_same.await;
        let mut none = std::pin::pin!(none);
        assert!(futures_are_pending(none.as_mut()).await);
        drop((one, same));
        assert_eq!(waiters.len(), 1);
        drop(other);
        assert!(waiters.is_empty());
    }

    /// Says whether a future is not ready yet.
    async fn futures_are_pending(future: std::pin::Pin<&mut OwnedNotified>) -> bool {
        tokio::select! {
            biased;
            () = future => false,
            () = std::future::ready(()) => true,
        }
    }
}
