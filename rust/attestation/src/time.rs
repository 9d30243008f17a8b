//! Points in time, as this crate takes and prints them. No clock is read here.

use std::fmt;
use std::time::Duration;

/// Milliseconds since the Unix epoch, the unit of a document's own timestamp ([NSM-AP] §3.1).
///
/// [NSM-AP]: https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// From whole seconds since the epoch.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// How long after `earlier` this is; zero when it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This, `duration` later; the end of time when there is no such.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// This, `duration` earlier; the epoch when there is no such.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }
}

/// RFC 3339 in UTC with seconds, which is as exact as a message needs to be.
impl fmt::Display for UnixMillis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.checked_div(1000).unwrap_or(0);
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        write!(
            formatter,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; `None` for a date that does not exist
/// or lies before 1970. (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".)
pub(crate) fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let era = shifted / 400;
    let year_of_era = shifted % 400;
    let month_from_march = month.checked_add(9)? % 12;
    let day_of_year = (month_from_march
        .checked_mul(153)?
        .checked_add(2)?
        .checked_div(5)?)
    .checked_add(day)?
    .checked_sub(1)?;
    let day_of_era = year_of_era
        .checked_mul(365)?
        .checked_add(year_of_era / 4)?
        .checked_sub(year_of_era / 100)?
        .checked_add(day_of_year)?;
    era.checked_mul(146_097)?
        .checked_add(day_of_era)?
        .checked_sub(719_468)
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The inverse of [`days_from_civil`].
#[expect(
    clippy::arithmetic_side_effects,
    reason = "`days` is below u64::MAX / 86 400 000, so no step can overflow; each subtraction is of \
              a part from its whole"
)]
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The date of a leap day is where a wrong month shift shows first.
    #[test]
    fn a_time_is_printed_as_rfc_3339() {
        assert_eq!(UnixMillis(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(
            UnixMillis(1_614_963_709_526).to_string(),
            "2021-03-05T17:01:49Z"
        );
        assert_eq!(
            UnixMillis::from_seconds(1_709_164_800).to_string(),
            "2024-02-29T00:00:00Z"
        );
        assert!(UnixMillis(u64::MAX).to_string().ends_with('Z'));
    }

    /// Every day of eight centuries: the two conversions are each other's inverse.
    #[test]
    fn days_and_dates_are_inverse() {
        for days in 0..300_000 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), Some(days));
        }
    }

    #[test]
    fn a_day_that_does_not_exist_is_refused() {
        assert_eq!(days_from_civil(2023, 2, 29), None);
        assert!(days_from_civil(2024, 2, 29).is_some());
        assert_eq!(days_from_civil(2100, 2, 29), None);
        assert_eq!(days_from_civil(2024, 13, 1), None);
        assert_eq!(days_from_civil(2024, 4, 31), None);
        assert_eq!(days_from_civil(2024, 4, 0), None);
        assert_eq!(days_from_civil(1969, 12, 31), None);
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        let hour = Duration::from_secs(3600);
        assert_eq!(UnixMillis(5).minus(hour), UnixMillis(0));
        assert_eq!(UnixMillis(u64::MAX).plus(hour), UnixMillis(u64::MAX));
        assert_eq!(UnixMillis(5).since(UnixMillis(6)), Duration::ZERO);
        assert_eq!(
            UnixMillis(0).plus(hour).since(UnixMillis(1000)),
            Duration::from_secs(3599)
        );
    }
}
