//! Connections that keep a worker waiting: those without a whole `ClientHello`, and those whose
//! handshake stands still.
//!
//! They cost a socket and little else, so there may be many; over the limit the one that has waited
//! longest is closed, and counted.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::AbortHandle;

use super::counters::{Counters, add};

/// All that wait, by their number: the oldest first.
pub(super) struct Waiting {
    limit: usize,
    next: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Option<AbortHandle>>>,
    counters: Arc<Counters>,
}

impl Waiting {
    pub(super) fn new(limit: usize, counters: Arc<Counters>) -> Self {
        Self {
            limit,
            next: Cell::new(0),
            tasks: RefCell::default(),
            counters,
        }
    }

    /// A place for a connection whose task is about to begin.
    pub(super) fn enter(self: &Rc<Self>) -> Place {
        self.enter_as(None)
    }

    /// Says which task has the place of this number.
    pub(super) fn watch(&self, number: u64, task: AbortHandle) {
        if let Some(slot) = self.tasks.borrow_mut().get_mut(&number) {
            *slot = Some(task);
        }
    }

    fn count(&self, tasks: &BTreeMap<u64, Option<AbortHandle>>) {
        let waiting = u64::try_from(tasks.len()).unwrap_or(u64::MAX);
        self.counters.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Takes a place back, and gives the task that had it.
    fn remove(&self, number: u64) -> Option<AbortHandle> {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.remove(&number);
        self.count(&tasks);
        task.flatten()
    }

    fn enter_as(self: &Rc<Self>, task: Option<AbortHandle>) -> Place {
        let number = self.next.get();
        self.next.set(number.saturating_add(1));
        let mut tasks = self.tasks.borrow_mut();
        tasks.insert(number, task);
        let oldest = if tasks.len() > self.limit {
            tasks.pop_first()
        } else {
            None
        };
        self.count(&tasks);
        drop(tasks);
        if let Some((_, Some(task))) = oldest {
            add(&self.counters.shed, 1);
            task.abort();
        }
        Place {
            waiting: Rc::clone(self),
            number,
        }
    }
}

/// A place among the waiting; dropping it leaves them.
pub(super) struct Place {
    waiting: Rc<Waiting>,
    number: u64,
}

impl Place {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Leaves, with a way back.
    pub(super) fn leave(self) -> Away {
        let task = self.waiting.remove(self.number);
        Away {
            waiting: Rc::clone(&self.waiting),
            task,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.remove(self.number);
    }
}

/// A connection that has left the waiting.
pub(super) struct Away {
    waiting: Rc<Waiting>,
    task: Option<AbortHandle>,
}

impl Away {
    /// Waits again, as the youngest.
    pub(super) fn back(self) -> Place {
        self.waiting.enter_as(self.task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that comes back is known by its task: it can be shed like any other.
    #[tokio::test(flavor = "local")]
    async fn who_comes_back_is_the_youngest_and_can_be_shed() {
        let counters = Arc::new(Counters::default());
        let waiting = Rc::new(Waiting::new(2, Arc::clone(&counters)));
        let task = tokio::task::spawn_local(std::future::pending::<()>());
        let first = waiting.enter();
        waiting.watch(first.number(), task.abort_handle());
        let away = first.leave();
        let other = waiting.enter();
        let first = away.back();
        assert!(first.number() > other.number());
        drop(other);
        assert_eq!(counters.shed.load(Ordering::Relaxed), 0);
        let _more = (waiting.enter(), waiting.enter());
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(counters.shed.load(Ordering::Relaxed), 1);
        drop(first);
    }
}
