//! App keys from files: only those that say they are for development.
//!
//! The file is `{"class": "development", "curve": "P-256", "private": base64}`, the one form in
//! which a private half leaves a store.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

/// Why a file is not an app key for development.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AppKeyError {
    /// It says that it is of another class.
    #[error(
        "the app key is not marked `\"class\": \"development\"`: only development keys are used outside of an enclave"
    )]
    Class,
    /// Its curve is not P-256.
    #[error("the app key is not on the curve `P-256`")]
    Curve,
    /// Not JSON with these three fields.
    #[error("the app key is not a JSON object with `class`, `curve` and `private`")]
    Malformed,
    /// `private` is not 32 bytes of base64.
    #[error("`private` of the app key is not 32 bytes in base64")]
    Private,
}

#[derive(Deserialize)]
struct File {
    class: String,
    curve: String,
    private: String,
}

/// Reads the contents of an app key file.
///
/// # Errors
///
/// In this order: [`AppKeyError::Malformed`], [`AppKeyError::Class`], [`AppKeyError::Curve`],
/// [`AppKeyError::Private`].
pub fn read_app_key(json: &[u8]) -> Result<Zeroizing<[u8; 32]>, AppKeyError> {
    let file: File = serde_json::from_slice(json).map_err(|_| AppKeyError::Malformed)?;
    let private = Zeroizing::new(file.private);
    if file.class != "development" {
        return Err(AppKeyError::Class);
    }
    if file.curve != "P-256" {
        return Err(AppKeyError::Curve);
    }
    let bytes = STANDARD.decode(private.as_bytes());
    let bytes = Zeroizing::new(bytes.map_err(|_| AppKeyError::Private)?);
    let scalar: [u8; 32] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| AppKeyError::Private)?;
    Ok(Zeroizing::new(scalar))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(class: &str, curve: &str, length: usize) -> Vec<u8> {
        let private = STANDARD.encode(vec![7; length]);
        serde_json::json!({ "class": class, "curve": curve, "private": private })
            .to_string()
            .into_bytes()
    }

    /// T-23: a production key must never be usable where nothing protects it.
    #[test]
    fn only_keys_that_are_marked_for_development_are_read() {
        assert_eq!(
            *read_app_key(&file("development", "P-256", 32)).unwrap(),
            [7; 32]
        );
        for class in ["production", "debug", "Development", ""] {
            let refused = read_app_key(&file(class, "P-256", 32));
            assert_eq!(refused.unwrap_err(), AppKeyError::Class, "{class}");
        }
        assert_eq!(read_app_key(b"{}").unwrap_err(), AppKeyError::Malformed);
    }

    #[test]
    fn another_curve_or_length_is_refused() {
        let curve = read_app_key(&file("development", "secp256k1", 32));
        assert_eq!(curve.unwrap_err(), AppKeyError::Curve);
        let length = read_app_key(&file("development", "P-256", 31));
        assert_eq!(length.unwrap_err(), AppKeyError::Private);
    }
}
