//! The validity of an X.509 certificate, and nothing else of it.
//!
//! rustls checks certificates of peers and has no way to ask for the dates of one's own. This reads
//! RFC 5280 §4.1.2.5 from a certificate that somebody else parses in full.

/// First and last second of validity, since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// The dates of a DER certificate, or `None` when it is not one.
pub(super) fn of(certificate: &[u8]) -> Option<Validity> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut signed, _) = element(certificate, SEQUENCE)?;
    if let Some((_version, rest)) = element(signed, VERSION) {
        signed = rest;
    }
    let (_serial, rest) = element(signed, INTEGER)?;
    let (_algorithm, rest) = element(rest, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (validity, _) = element(rest, SEQUENCE)?;
    let (not_before, rest) = time(validity)?;
    let (not_after, _) = time(rest)?;
    Some(Validity {
        not_before,
        not_after,
    })
}

/// The contents of the element at the front, when it has this tag, and what follows it.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = input.split_first()?;
    if *found != tag {
        return None;
    }
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..=0x7F => (usize::from(short), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(*first & 0x0F))?;
            let length = digits
                .iter()
                .fold(0_usize, |length, byte| (length << 8) | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn time(input: &[u8]) -> Option<(i64, &[u8])> {
    if let Some((text, rest)) = element(input, UTC_TIME) {
        let (year, tail) = text.split_at_checked(2)?;
        let year = number(year)?;
        // RFC 5280 §4.1.2.5.1: 50 to 99 are of the twentieth century.
        let century = if year >= 50 { 1900 } else { 2000 };
        return Some((seconds(year.checked_add(century)?, tail)?, rest));
    }
    let (text, rest) = element(input, GENERALIZED_TIME)?;
    let (year, tail) = text.split_at_checked(4)?;
    Some((seconds(number(year)?, tail)?, rest))
}

/// `MMDDHHMMSSZ` of `year`, in seconds since the Unix epoch.
fn seconds(year: i64, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z").filter(|text| text.len() == 10)?;
    let mut parts = digits.chunks_exact(2).map(number);
    let mut next = || parts.next().flatten();
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    days(year, month, day)?
        .checked_mul(86_400)?
        .checked_add(hour.checked_mul(3_600)?)?
        .checked_add(minute.checked_mul(60)?)?
        .checked_add(second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, of the years 1 to 9999.
///
/// March is the first month of the shifted year, so that the leap day is its last
/// (<https://howardhinnant.github.io/date_algorithms.html>, `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let shifted_year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let shifted_month = if month <= 2 {
        month.checked_add(9)?
    } else {
        month.checked_sub(3)?
    };
    let day_of_year = shifted_month
        .checked_mul(153)?
        .checked_add(2)?
        .checked_div(5)?
        .checked_add(day)?
        .checked_sub(1)?;
    let leap_days = shifted_year
        .checked_div(4)?
        .checked_sub(shifted_year.checked_div(100)?)?
        .checked_add(shifted_year.checked_div(400)?)?;
    shifted_year
        .checked_mul(365)?
        .checked_add(leap_days)?
        .checked_add(day_of_year)?
        .checked_sub(719_468)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0_i64, |value, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        value.checked_mul(10)?.checked_add(i64::from(digit))
    })
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_agree_with_known_dates() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2000, 2, 29), Some(11_016));
        assert_eq!(days(2000, 3, 1), Some(11_017));
        assert_eq!(days(2026, 11, 24), Some(20_781));
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let utc = [&[UTC_TIME, 13], b"261124120000Z".as_slice()].concat();
        let generalized = [&[GENERALIZED_TIME, 15], b"20261124120000Z".as_slice()].concat();
        let expected = 20_781 * 86_400 + 12 * 3_600;
        assert_eq!(time(&utc).unwrap().0, expected);
        assert_eq!(time(&generalized).unwrap().0, expected);
        assert_eq!(seconds(2026, b"13241200Z"), None);
        assert_eq!(seconds(2026, b"1324120000Z"), None);
    }

    #[test]
    fn what_is_cut_short_is_not_a_certificate() {
        let whole = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let whole = whole.cert.der();
        let validity = of(whole).unwrap();
        assert!(validity.not_before < validity.not_after);
        for length in 0..whole.len().min(64) {
            assert_eq!(of(&whole[..length]), None);
        }
    }
}
