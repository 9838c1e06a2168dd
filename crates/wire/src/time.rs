//! Times on the wire.

use cumulet_domain::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// Longest text that is looked at.
const TEXT_LEN_MAX: usize = 40;

/// Parses ISO 8601 as clients of all times have sent it: `2007-01-31T23:59:59Z`, without the zone
/// (boto of 2007; read as UTC), with a fraction (Net::Amazon::EC2), with an offset, and the basic
/// form `20070131T235959Z` of signature version 4.
pub fn parse_iso8601(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() > TEXT_LEN_MAX || !text.is_ascii() {
        return None;
    }
    let (civil, offset) = split_zone(text)?;
    let is_shaped = civil
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"-:T.".contains(&byte))
        && civil.contains('T');
    if !is_shaped {
        return None;
    }
    let civil: DateTime = civil.parse().ok()?;
    let zoned = civil.to_zoned(TimeZone::fixed(offset)).ok()?;
    Some(Timestamp(zoned.timestamp().as_millisecond()))
}

fn split_zone(text: &str) -> Option<(&str, Offset)> {
    if let Some(civil) = text.strip_suffix('Z') {
        return Some((civil, Offset::UTC));
    }
    let after_date = text.find('T')? + 1;
    let Some(sign) = text[after_date..].find(['+', '-']) else {
        return Some((text, Offset::UTC));
    };
    let (civil, zone) = text.split_at(after_date + sign);
    let digits: String = zone[1..]
        .chars()
        .filter(|character| *character != ':')
        .collect();
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = digits.split_at(2);
    let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
    let seconds = if zone.starts_with('-') {
        -seconds
    } else {
        seconds
    };
    Some((civil, Offset::from_seconds(seconds).ok()?))
}

fn civil_of(time: Timestamp) -> DateTime {
    let timestamp =
        jiff::Timestamp::from_millisecond(time.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    Offset::UTC.to_datetime(timestamp)
}

/// `2007-01-03T15:00:00.000Z`, the form of EC2's answers.
pub fn format_iso8601(time: Timestamp) -> String {
    let civil = civil_of(time);
    // Every instance of a long answer has one, and a format that is read anew each time shows.
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second(),
        civil.millisecond(),
    )
}

/// `20070103T150000Z`, the form of signature version 4.
pub fn format_basic(time: Timestamp) -> String {
    civil_of(time).strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// `Wed, 03 Jan 2007 15:00:00 GMT`, the form of HTTP headers.
pub fn format_http(time: Timestamp) -> String {
    civil_of(time)
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string()
}

/// Parses the HTTP date of a `Date` or `x-amz-date` header.
pub fn parse_http(text: &str) -> Option<Timestamp> {
    if text.len() > TEXT_LEN_MAX {
        return None;
    }
    let parsed = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    Some(Timestamp(parsed.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_all_times_are_understood() {
        for text in [
            "2006-12-08T07:48:03Z",
            "2006-12-08T07:48:03",
            "2006-12-08T07:48:03.000Z",
            "20061208T074803Z",
            "2006-12-08T08:48:03+01:00",
            "2006-12-08T06:48:03-0100",
        ] {
            assert_eq!(
                parse_iso8601(text).map(format_iso8601).as_deref(),
                Some("2006-12-08T07:48:03.000Z"),
                "{text}"
            );
        }
        assert_eq!(
            parse_http("Fri, 08 Dec 2006 07:48:03 GMT"),
            parse_iso8601("20061208T074803Z")
        );
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in [
            "",
            "now",
            "2006-12-08",
            "2006-13-08T07:48:03Z",
            "2006-12-08T07:48:03+1:00",
            "1165564083",
            "T",
            "é",
        ] {
            assert_eq!(parse_iso8601(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_written_in_three_forms() {
        let time = Timestamp(1_167_836_400_123);
        assert_eq!(format_iso8601(time), "2007-01-03T15:00:00.123Z");
        assert_eq!(format_basic(time), "20070103T150000Z");
        assert_eq!(format_http(time), "Wed, 03 Jan 2007 15:00:00 GMT");
    }
}
