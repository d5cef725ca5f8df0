//! UTC dates without a calendar library: names of run folders, and the age of a snapshot.
//!
//! Days are counted in the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible
//! low-level date algorithms"). Leap seconds do not exist here, as in Unix time. Not covered: other
//! time zones, and years beyond four digits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_S: u64 = 24 * 60 * 60;

/// Year, month (1 to 12) and day (1 to 31) of the day `days` after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that a leap day ends its year.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to this date; `None` if there is no such date from then on.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let plausible = (1970..=9999).contains(&year) && (1..=12).contains(&month);
    // A day of twenty digits would overflow below.
    if !plausible || !(1..=31).contains(&day) {
        return None;
    }
    let year_shifted = if month <= 2 { year - 1 } else { year };
    let era = year_shifted / 400;
    let year_of_era = year_shifted % 400;
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    // Refuses 31 April and the like.
    (civil(days) == (year, month, day)).then_some(days)
}

/// A moment as `20260801T134502Z`: sorts by time, fits a file name. Before 1970 reads as 1970.
pub fn compact(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = civil(seconds / DAY_S);
    let rest = seconds % DAY_S;
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Reads an RFC 3339 moment in UTC (`2026-06-14T12:00:05.459308408Z`), to the second.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let number = |text: &str| {
        text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
    };
    let mut date = date.splitn(3, '-').map(number);
    let days = days(date.next()??, date.next()??, date.next()??)?;
    let mut time = time.splitn(3, ':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days * DAY_S + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Reads an RFC 3339 moment exactly: with fractions of up to nine digits and any offset from UTC, so
/// that moments can be put in order however the array spells them.
pub fn parse_moment(text: &str) -> Option<SystemTime> {
    let (local, offset_s, is_east) = match text.strip_suffix('Z') {
        Some(local) => (local, 0, false),
        None => {
            let at = text.len().checked_sub(6)?;
            let (local, offset) = (text.get(..at)?, text.get(at..)?);
            let number = |text: &str| {
                (text.len() == 2 && text.bytes().all(|c| c.is_ascii_digit()))
                    .then(|| text.parse::<u64>().ok())
                    .flatten()
            };
            let is_east = offset.starts_with('+');
            let (hours, minutes) = offset.strip_prefix(['+', '-'])?.split_once(':')?;
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (local, hours * 3600 + minutes * 60, is_east)
        }
    };
    let (whole, fraction) = local.split_once('.').unwrap_or((local, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse::<u64>().ok()?;
    let moment = parse_rfc3339(&format!("{whole}Z"))?.checked_add(Duration::from_nanos(nanos))?;
    let offset = Duration::from_secs(offset_s);
    if is_east { moment.checked_sub(offset) } else { moment.checked_add(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn known_moments_are_spelled_as_date_does() {
        // `date -u -d @N +%Y%m%dT%H%M%SZ`
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_164_799, "20240228T235959Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(compact(at(seconds)), text);
        }
    }

    #[test]
    fn moments_of_the_api_are_read_and_others_refused() {
        assert_eq!(parse_rfc3339("2000-02-29T00:00:00Z"), Some(at(951_782_400)));
        assert_eq!(parse_rfc3339("2024-02-28T23:59:59.459308408Z"), Some(at(1_709_164_799)));
        for bad in [
            "",
            "Z",
            "T",
            "2024-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-02-28T24:00:00Z",
            "2024-02-28T23:59:59",
            "2024-02-28T23:59:59+01:00",
            "1969-12-31T00:00:00Z",
            "99999999999999999999-01-01T00:00:00Z",
            "2024-02-+8T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn moments_are_put_in_order_whatever_their_fractions_and_offsets() {
        let sorted = [
            "2026-01-01T02:00:00+02:00",
            "2026-01-01T00:00:00.5Z",
            "2026-01-01T00:01:00Z",
            "2026-01-01T00:01:00.250Z",
            "2026-01-01T00:01:00.250000001Z",
            "2025-12-31T19:01:00.500-05:00",
        ]
        .map(|text| parse_moment(text).expect(text));
        assert!(sorted.is_sorted_by(|one, two| one < two), "{sorted:?}");
        for bad in [
            "",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+2:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01T00:00:00+24:00",
            "\u{e4}\u{e4}\u{e4}\u{e4}",
        ] {
            assert_eq!(parse_moment(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_day_too_large_to_count_with_is_refused() {
        // Found by the fuzz target `rfc3339`: the sum of days overflowed, which is a panic.
        assert_eq!(parse_rfc3339("2026-7-018446744073709551615T1:0:5.7Z"), None);
        assert_eq!(parse_rfc3339("2026-07-32T00:00:00Z"), None);
    }

    proptest! {
        #[test]
        fn every_second_reads_back(seconds in 0u64..253_402_300_800) {
            let text = compact(at(seconds));
            let spelled = format!(
                "{}-{}-{}T{}:{}:{}Z",
                &text[..4], &text[4..6], &text[6..8], &text[9..11], &text[11..13], &text[13..15]
            );
            prop_assert_eq!(parse_rfc3339(&spelled), Some(at(seconds)));
        }

        #[test]
        fn foreign_text_never_panics(text in "\\PC*") {
            let _ = parse_rfc3339(&text);
        }
    }
}
