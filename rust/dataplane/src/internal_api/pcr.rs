//! PCRs over the internal API: all may be read, 16 to 31 are the application's own.

use cloister_attestation::hex;
use hyper::StatusCode;
use serde_json::{Map, json};

use super::{InternalApi, bad_request, nsm_failure};
use crate::small_http::{Answer, Refused, json as json_answer, refusal};

/// The register a path names, when the application may change it.
pub(super) fn index(text: &str) -> Result<u16, Refused> {
    let is_plain = text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(index) if is_plain && OWN.contains(&index) => Ok(index),
        Ok(index) if is_plain && index < FIRST_OWN => Err(refusal(
            StatusCode::FORBIDDEN,
            "PCR 0 to 15 are the platform's; the application's are 16 to 31",
        )
        .into()),
        _ => Err(bad_request("the PCR is not a number from 16 to 31")),
    }
}

impl InternalApi {
    pub(super) async fn pcrs(&self) -> Result<Answer, Refused> {
        let registers = self
            .nsm
            .call(|nsm| {
                let count = nsm.describe()?.max_pcrs.min(MAX_PCRS);
                (0..count)
                    .map(|index| nsm.describe_pcr(index).map(|pcr| (index, pcr)))
                    .collect::<Result<Vec<_>, _>>()
            })
            .await
            .map_err(|error| nsm_failure(&error))?;
        let by_index: Map<_, _> = registers
            .into_iter()
            .map(|(index, pcr)| {
                let register = json!({ "value": hex(&pcr.value), "locked": pcr.is_locked });
                (index.to_string(), register)
            })
            .collect();
        Ok(json_answer(StatusCode::OK, &json!({ "pcrs": by_index })))
    }

    pub(super) async fn extend(&self, index: u16, data: Vec<u8>) -> Result<Answer, Refused> {
        if data.is_empty() {
            return Err(bad_request("the body is empty: nothing to extend with"));
        }
        let value = self
            .nsm
            .call(move |nsm| nsm.extend_pcr(index, &data))
            .await
            .map_err(|error| nsm_failure(&error))?;
        Ok(json_answer(
            StatusCode::OK,
            &json!({ "value": hex(&value) }),
        ))
    }

    pub(super) async fn lock(&self, index: u16) -> Result<Answer, Refused> {
        self.nsm
            .call(move |nsm| nsm.lock_pcr(index))
            .await
            .map_err(|error| nsm_failure(&error))?;
        Ok(json_answer(StatusCode::OK, &json!({ "locked": true })))
    }
}

/// Most bytes of one extension.
pub(super) const MAX_EXTEND_BYTES: usize = 512;
const FIRST_OWN: u16 = 16;
const OWN: std::ops::RangeInclusive<u16> = FIRST_OWN..=31;
const MAX_PCRS: u16 = 32;
