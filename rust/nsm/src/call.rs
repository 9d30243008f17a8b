//! From the calls of [`NsmProvider`] to requests and answers.
//!
//! Whoever can carry a request to an NSM and bring its answer back is a provider; the protocol is in
//! one place.

use crate::protocol::{Request, Response};
use crate::provider::{Description, DocumentRequest, NsmError, NsmProvider, Pcr};

/// Carries one encoded request to an NSM and brings the encoded answer back.
pub trait Exchange: Send + Sync {
    /// Sends `request`, at most [`crate::protocol::MAX_REQUEST_BYTES`] long, and returns the answer.
    ///
    /// # Errors
    ///
    /// [`NsmError::Io`], [`NsmError::Deadline`] or [`NsmError::Protocol`]: the answer did not come.
    fn exchange(&self, request: &[u8]) -> Result<Vec<u8>, NsmError>;
}

impl<T: Exchange> NsmProvider for T {
    fn describe(&self) -> Result<Description, NsmError> {
        match call(self, &Request::DescribeNsm)? {
            Response::DescribeNsm(description) => Ok(description),
            _ => Err(OTHER),
        }
    }

    fn attestation_document(&self, request: &DocumentRequest) -> Result<Vec<u8>, NsmError> {
        match call(self, &Request::Attestation(request.clone()))? {
            Response::Attestation { document } => Ok(document),
            _ => Err(OTHER),
        }
    }

    fn random(&self, out: &mut [u8]) -> Result<(), NsmError> {
        let mut rest = out;
        while !rest.is_empty() {
            let Response::GetRandom { random } = call(self, &Request::GetRandom)? else {
                return Err(OTHER);
            };
            let length = random.len().min(rest.len());
            let (filled, open) = rest.split_at_mut(length);
            match random.get(..length) {
                Some(bytes) if length > 0 => filled.copy_from_slice(bytes),
                _ => {
                    return Err(NsmError::Protocol {
                        problem: "has no entropy in it",
                    });
                }
            }
            rest = open;
        }
        Ok(())
    }

    fn describe_pcr(&self, index: u16) -> Result<Pcr, NsmError> {
        match call(self, &Request::DescribePcr { index })? {
            Response::DescribePcr(pcr) => Ok(pcr),
            _ => Err(OTHER),
        }
    }

    fn extend_pcr(&self, index: u16, data: &[u8]) -> Result<Vec<u8>, NsmError> {
        let data = data.to_vec();
        match call(self, &Request::ExtendPcr { index, data })? {
            Response::ExtendPcr { data } => Ok(data),
            _ => Err(OTHER),
        }
    }

    fn lock_pcr(&self, index: u16) -> Result<(), NsmError> {
        match call(self, &Request::LockPcr { index })? {
            Response::LockPcr => Ok(()),
            _ => Err(OTHER),
        }
    }
}

fn call(module: &impl Exchange, request: &Request) -> Result<Response, NsmError> {
    let encoded = request.encode()?;
    let answer = Response::decode(&module.exchange(&encoded)?)?;
    match answer {
        Response::Error(code) => Err(NsmError::Refused {
            request: request.name(),
            code,
        }),
        answer => Ok(answer),
    }
}

const OTHER: NsmError = NsmError::Protocol {
    problem: "is that to another request",
};

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::provider::ErrorCode;

    /// Answers with what it was given, one after the other, and keeps what it was asked.
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<Vec<Response>>,
        asked: Mutex<Vec<Request>>,
    }

    impl Exchange for Scripted {
        fn exchange(&self, request: &[u8]) -> Result<Vec<u8>, NsmError> {
            self.asked
                .lock()
                .unwrap()
                .push(Request::decode(request).unwrap());
            Ok(self.answers.lock().unwrap().remove(0).encode())
        }
    }

    fn scripted(answers: Vec<Response>) -> Scripted {
        Scripted {
            answers: Mutex::new(answers),
            asked: Mutex::default(),
        }
    }

    #[test]
    fn entropy_is_gathered_until_the_buffer_is_full() {
        let module = scripted(vec![
            Response::GetRandom {
                random: vec![1; 256],
            },
            Response::GetRandom {
                random: vec![2; 256],
            },
        ]);
        let mut out = [0; 300];
        module.random(&mut out).unwrap();
        assert_eq!((out[0], out[255], out[256], out[299]), (1, 1, 2, 2));
        assert_eq!(module.asked.lock().unwrap().len(), 2);
    }

    /// An empty answer would otherwise be asked for again without end.
    #[test]
    fn an_answer_without_entropy_is_an_error() {
        let module = scripted(vec![Response::GetRandom { random: vec![] }]);
        assert!(matches!(
            module.random(&mut [0; 4]),
            Err(NsmError::Protocol { .. })
        ));
    }

    #[test]
    fn a_refusal_names_the_request_and_the_code() {
        let module = scripted(vec![Response::Error(ErrorCode::ReadOnlyIndex)]);
        let error = module.extend_pcr(0, b"x").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the NSM refused `ExtendPCR`: ReadOnlyIndex"
        );
    }

    #[test]
    fn the_answer_to_another_request_is_an_error() {
        let module = scripted(vec![Response::LockPcr]);
        assert!(matches!(module.describe(), Err(NsmError::Protocol { .. })));
    }
}
