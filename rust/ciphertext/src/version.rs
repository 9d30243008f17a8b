//! Versions of the token format and types of values (ciphertext specification §2).

use crate::curve::Curve;

/// Version of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// P-256, KDF, AADv2, metadata. The default.
    QkTC,
    /// secp256k1, KDF, app key as additional data, metadata.
    QlJV,
    /// secp256k1, raw ECDH, no additional data; also meant by the absence of a version.
    Rfvc,
    /// secp256k1, KDF, AADv2, metadata.
    S0lS,
    /// P-256, raw ECDH, no additional data.
    T1JL,
    /// P-256, KDF, app key as additional data, metadata.
    Tenz,
    /// P-256, KDF, app key as additional data.
    Tk9D,
}

/// What a version authenticates besides the ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdditionalData {
    AppKey,
    None,
    V2,
}

impl Version {
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"QkTC" => Self::QkTC,
            b"QlJV" => Self::QlJV,
            b"RFVC" => Self::Rfvc,
            b"S0lS" => Self::S0lS,
            b"T1JL" => Self::T1JL,
            b"TENZ" => Self::Tenz,
            b"Tk9D" => Self::Tk9D,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::QkTC => "QkTC",
            Self::QlJV => "QlJV",
            Self::Rfvc => "RFVC",
            Self::S0lS => "S0lS",
            Self::T1JL => "T1JL",
            Self::Tenz => "TENZ",
            Self::Tk9D => "Tk9D",
        }
    }

    pub(crate) fn curve(self) -> Curve {
        match self {
            Self::QkTC | Self::T1JL | Self::Tenz | Self::Tk9D => Curve::P256,
            Self::QlJV | Self::Rfvc | Self::S0lS => Curve::Secp256k1,
        }
    }

    pub(crate) fn has_kdf(self) -> bool {
        !matches!(self, Self::T1JL | Self::Rfvc)
    }

    pub(crate) fn has_metadata(self) -> bool {
        matches!(self, Self::QkTC | Self::Tenz | Self::QlJV | Self::S0lS)
    }

    pub(crate) fn additional_data(self) -> AdditionalData {
        match self {
            Self::T1JL | Self::Rfvc => AdditionalData::None,
            Self::Tk9D | Self::Tenz | Self::QlJV => AdditionalData::AppKey,
            Self::QkTC | Self::S0lS => AdditionalData::V2,
        }
    }
}

/// Type of the value in a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// `true` or `false`.
    Boolean,
    /// A JSON number.
    Number,
    /// Text; the type that is not written.
    String,
}

impl ValueType {
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"boolean" => Self::Boolean,
            b"number" => Self::Number,
            b"string" => Self::String,
            _ => return None,
        })
    }

    /// The number of the type in AADv2.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::String => 0,
            Self::Number => 1,
            Self::Boolean => 2,
        }
    }

    /// Whether a clear text is of this type. Any bytes are a string; a number is JSON's (RFC 8259
    /// §6), so `NaN` and the like, which some SDKs write, are refused.
    pub(crate) fn admits(self, clear: &[u8]) -> bool {
        match self {
            Self::Boolean => matches!(clear, b"true" | b"false"),
            Self::Number => is_json_number(clear),
            Self::String => true,
        }
    }
}

/// RFC 8259 §6: `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`.
pub(crate) fn is_json_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, rest) = digits(text);
    if whole.is_empty() || (whole.len() > 1 && whole.first() == Some(&b'0')) {
        return false;
    }
    let rest = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => {
            let (decimals, rest) = digits(fraction);
            if decimals.is_empty() {
                return false;
            }
            rest
        }
    };
    match rest.split_first() {
        None => true,
        Some((b'e' | b'E', exponent)) => {
            let exponent = exponent
                .strip_prefix(b"+")
                .or_else(|| exponent.strip_prefix(b"-"))
                .unwrap_or(exponent);
            let (power, rest) = digits(exponent);
            !power.is_empty() && rest.is_empty()
        }
        Some(_) => false,
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at_checked(count).unwrap_or((text, b""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_json_calls_one() {
        for good in [
            "0",
            "-0",
            "10",
            "1.10",
            "1e400",
            "-1.5E-3",
            "12345678901234567890",
        ] {
            assert!(is_json_number(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "-",
            "01",
            "1.",
            ".5",
            "1e",
            "+1",
            "1 ",
            "NaN",
            "1,\"a\":2",
            "0x1",
        ] {
            assert!(!is_json_number(bad.as_bytes()), "{bad}");
        }
    }
}
