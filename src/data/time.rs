//! Dates and times as the text that Python's `isoformat()` gives.

use jiff::civil::{DateTime, Time};

/// `2026-01-31T12:00:00`, with six decimals of a second where they are not zero.
pub(crate) fn date_time_text(t: DateTime) -> String {
    format!("{}T{}", t.date(), time_text(t.time()))
}

/// `12:00:00`, with six decimals of a second where they are not zero.
pub(crate) fn time_text(t: Time) -> String {
    let micros = t.subsec_nanosecond() / 1000;
    let whole = format!("{:02}:{:02}:{:02}", t.hour(), t.minute(), t.second());
    if micros == 0 { whole } else { format!("{whole}.{micros:06}") }
}

/// `+05:30`, with seconds only where there are some.
pub(crate) fn offset_text(seconds: i32) -> String {
    let (sign, s) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs());
    let minutes = format!("{sign}{:02}:{:02}", s / 3600, s / 60 % 60);
    if s % 60 == 0 { minutes } else { format!("{minutes}:{:02}", s % 60) }
}

/// An instant, in nanoseconds since 1970, as a date and time in UTC; below a microsecond is cut.
pub(crate) fn timestamp_text(nanoseconds: i128) -> String {
    let stamp = jiff::Timestamp::from_nanosecond(nanoseconds).unwrap_or_default();
    date_time_text(jiff::tz::Offset::UTC.to_datetime(stamp)) + "+00:00"
}

/// Microseconds as seconds, with as many decimals as it takes.
pub(crate) fn duration_text(micros: i128) -> String {
    let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
    if part == 0 {
        return format!("{sign}{whole}");
    }
    let decimals = format!("{part:06}");
    format!("{sign}{whole}.{}", decimals.trim_end_matches('0'))
}
