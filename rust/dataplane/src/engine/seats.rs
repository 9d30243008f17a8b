//! Connections of a worker that a drain has to wake.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};

/// All of them, and whether the drain has begun.
#[derive(Debug, Default)]
pub(super) struct Seats {
    is_draining: Cell<bool>,
    next: Cell<u64>,
    taken: RefCell<BTreeMap<u64, Rc<Parked>>>,
}

#[derive(Debug, Default)]
struct Parked(RefCell<Option<Waker>>);

/// The seat of one connection; dropping it leaves.
#[derive(Debug)]
pub(super) struct Seat<'s> {
    seats: &'s Seats,
    number: u64,
    parked: Rc<Parked>,
}

impl Seats {
    pub(super) fn take(&self) -> Seat<'_> {
        let number = self.next.replace(self.next.get().saturating_add(1));
        let parked = Rc::<Parked>::default();
        self.taken.borrow_mut().insert(number, Rc::clone(&parked));
        Seat {
            seats: self,
            number,
            parked,
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Begins the drain and wakes everybody.
    pub(super) fn drain(&self) {
        self.is_draining.set(true);
        for parked in self.taken.borrow().values() {
            if let Some(waker) = parked.0.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

impl Seat<'_> {
    /// True once the drain has begun; until then the task is woken when it does.
    pub(super) fn is_called(&self, context: &Context<'_>) -> bool {
        if self.seats.is_draining() {
            return true;
        }
        let mut parked = self.parked.0.borrow_mut();
        match &mut *parked {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        false
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.seats.taken.borrow_mut().remove(&self.number);
    }
}
