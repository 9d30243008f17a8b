//! The provider that a real enclave uses, over a driver that does what the kernel's does
//! (`drivers/misc/nsm.c`) with the simulator for a module: all of it but the system call.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]
#![expect(clippy::expect_used, reason = "tests")]

use std::io;
use std::sync::{Mutex, PoisonError};

use cloister_attestation::{Measurements, PcrIndex, Policy, UnixMillis, verify};
use cloister_nsm::{Device, DocumentRequest, Driver, ErrorCode, NsmError, NsmProvider as _};
use cloister_nsm_sim::{DevelopmentRoot, Simulator};

const NOW: UnixMillis = UnixMillis(1_790_000_000_123);
const PCR0: [u8; 48] = [0x11; 48];
/// `include/uapi/linux/nsm.h`.
const NSM_REQUEST_MAX_SIZE: usize = 0x1000;
/// `include/uapi/asm-generic/errno.h`.
const EMSGSIZE: i32 = 90;

/// One request at a time, a bounded request, an answer cut to its buffer.
struct Kernel {
    module: Mutex<Simulator>,
}

impl Driver for Kernel {
    fn message(&self, request: &[u8], response: &mut [u8]) -> io::Result<usize> {
        if request.len() > NSM_REQUEST_MAX_SIZE {
            return Err(io::Error::from_raw_os_error(EMSGSIZE));
        }
        let mut module = self.module.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = module.handle(request, NOW);
        let length = answer.len().min(response.len());
        for (to, from) in response.iter_mut().zip(&answer) {
            *to = *from;
        }
        Ok(length)
    }
}

fn device(root: &DevelopmentRoot) -> Device<Kernel> {
    let simulator = Simulator::new(root, [(0, PCR0)], "i-sim-enc1", NOW).expect("a simulator");
    Device::over(Kernel {
        module: Mutex::new(simulator),
    })
}

#[test]
fn every_call_of_the_provider_goes_through_the_device() {
    let root = DevelopmentRoot::generate(NOW).expect("a root");
    let nsm = device(&root);
    assert_eq!(nsm.describe().expect("described").module_id, "i-sim-enc1");
    assert_eq!(nsm.describe_pcr(0).expect("a register").value, PCR0);
    let value = nsm.extend_pcr(16, b"model").expect("extended");
    nsm.lock_pcr(16).expect("locked");
    let mut random = [0; 1000];
    nsm.random(&mut random).expect("entropy");
    assert_ne!(random[..500], random[500..]);

    let request = DocumentRequest {
        user_data: Some(vec![1; 512]),
        nonce: Some(vec![2; 512]),
        public_key: Some(vec![3; 1024]),
    };
    let document = nsm.attestation_document(&request).expect("a document");
    let policy = Policy::builder()
        .anchor(root.dangerous_anchor().expect("an anchor"))
        .accept(Measurements::new([(PcrIndex::IMAGE, PCR0)]).expect("a set"))
        .build()
        .expect("a policy")
        .with_nonce(vec![2; 512])
        .with_user_data(vec![1; 512]);
    let claims = verify(&document, &policy, NOW).expect("verifies");
    let extended = claims.pcrs.value(PcrIndex::new(16).expect("an index"));
    assert_eq!(extended, Some(value.as_slice()));
}

#[test]
fn refusals_come_back_as_the_modules_own() {
    let root = DevelopmentRoot::generate(NOW).expect("a root");
    let nsm = device(&root);
    for (answer, expected) in [
        (nsm.extend_pcr(0, b"x").err(), ErrorCode::ReadOnlyIndex),
        (nsm.extend_pcr(32, b"x").err(), ErrorCode::InvalidIndex),
        (nsm.lock_pcr(15).err(), ErrorCode::ReadOnlyIndex),
        (nsm.describe_pcr(32).err(), ErrorCode::InvalidIndex),
    ] {
        assert!(
            matches!(answer, Some(NsmError::Refused { code, .. }) if code == expected),
            "{answer:?}"
        );
    }
    // Longer than the driver takes: it does not come that far.
    assert!(matches!(
        nsm.extend_pcr(16, &[0; NSM_REQUEST_MAX_SIZE]),
        Err(NsmError::RequestTooLarge { .. })
    ));
}
