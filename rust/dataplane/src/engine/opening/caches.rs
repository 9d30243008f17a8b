//! The derived keys of one worker, by keyring.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use cloister_ciphertext::{KeyCache, Keyring};

/// The cache of the keyring in use, and those of earlier ones that a request still needs.
#[derive(Debug)]
pub(crate) struct Caches {
    current: RefCell<Rc<KeyCache>>,
    earlier: RefCell<Vec<Weak<KeyCache>>>,
    /// The keyring of a bundle without app keys.
    none: Arc<Keyring>,
}

impl Default for Caches {
    fn default() -> Self {
        let none = Arc::new(Keyring::default());
        Self {
            current: RefCell::new(Rc::new(KeyCache::new(Arc::clone(&none)))),
            earlier: RefCell::default(),
            none,
        }
    }
}

impl Caches {
    /// The cache of a keyring. The one before goes with the last request that uses it.
    pub(crate) fn of(&self, keyring: Option<&Arc<Keyring>>) -> Rc<KeyCache> {
        let keyring = keyring.unwrap_or(&self.none);
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(current.keyring(), keyring) {
            let next = Rc::new(KeyCache::new(Arc::clone(keyring)));
            let before = std::mem::replace(&mut *current, next);
            self.earlier.borrow_mut().push(Rc::downgrade(&before));
        }
        Rc::clone(&current)
    }

    /// Forgets what is too old at the time `now`, and what is of another keyring than this.
    pub(crate) fn expire(&self, keyring: Option<&Arc<Keyring>>, now: Duration) {
        self.of(keyring).expire(now);
        self.earlier.borrow_mut().retain(|cache| {
            let used = cache.upgrade();
            used.as_ref().inspect(|cache| cache.expire(now)).is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_ciphertext::AppPrivateKey;

    fn keyring(byte: u8) -> Arc<Keyring> {
        let key = AppPrivateKey::from_bytes(&[byte; 32]).unwrap();
        Arc::new(Keyring::new(vec![key]).unwrap())
    }

    /// Keys of a bundle that has ended are not kept by the cache of an idle worker.
    #[test]
    fn t19_a_keyring_goes_with_the_last_request_that_uses_it() {
        let caches = Caches::default();
        let (first, second) = (keyring(1), keyring(2));
        let used = caches.of(Some(&first));
        assert!(Rc::ptr_eq(&used, &caches.of(Some(&first))));
        caches.expire(Some(&second), Duration::ZERO);
        assert!(!Rc::ptr_eq(&used, &caches.of(Some(&second))));
        assert_eq!(Arc::strong_count(&first), 2, "a request uses it");
        drop(used);
        assert_eq!(Arc::strong_count(&first), 1);
        caches.expire(None, Duration::ZERO);
        assert_eq!(Arc::strong_count(&second), 1);
        assert!(caches.earlier.borrow().is_empty());
    }
}
