//! The units of the plan language: `30s`, `20/s`, `10%`, `2^32`. A number without its unit is refused, with a hint.

use std::time::Duration;

use p2ps::id::Ring;
use schemars::{Schema, json_schema};

use super::Amount;
use super::diagnose::Refusal;

/// The longest time in a plan: 30 days.
pub const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The highest rate, in operations a second.
pub const RATE_MAX: f64 = 100_000.0;

/// The most characters of a plan's name, which names a directory.
pub const NAME_CHARACTERS_MAX: usize = 64;

/// The units of time with their lengths in microseconds, longest first.
const TIME_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Something that a scalar of a plan can say.
pub(crate) trait Unit: Sized {
    /// What it is, with its article: `a length of time`.
    const KIND: &'static str;
    /// How it is written.
    const EXAMPLE: &'static str;

    /// Reads it.
    fn parse(text: &str) -> Result<Self, Refusal>;

    /// What editors check.
    fn schema() -> Schema;
}

impl Refusal {
    pub(super) fn not<U: Unit>(text: &str) -> Refusal {
        Refusal::new(format!("`{text}` is not {}", U::KIND), format!("write it like `{}`", U::EXAMPLE))
    }
}

impl Unit for Duration {
    const KIND: &'static str = "a length of time";
    const EXAMPLE: &'static str = "1m30s";

    fn parse(text: &str) -> Result<Duration, Refusal> {
        if decimal(text).is_some() {
            let hint = format!("write {text}s for seconds; the units are d, h, m, s, ms and us");
            return Err(Refusal::new(format!("`{text}` has no unit of time"), hint));
        }
        let too_long = || Refusal::new(format!("`{text}` is too long"), "a time in a plan is at most 30d");
        let (mut rest, mut total_us, mut last_unit_us) = (text, 0u64, u64::MAX);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let letters =
                rest[digits..].find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len() - digits);
            let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
            let unit_us = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, length_us)| *length_us);
            let unit_us = unit_us.filter(|unit_us| *unit_us < last_unit_us);
            let part_us = unit_us.and_then(|unit_us| micros(number, unit_us));
            let part_us = part_us.ok_or_else(|| Refusal::not::<Duration>(text))?;
            total_us = part_us.and_then(|part_us| total_us.checked_add(part_us)).ok_or_else(too_long)?;
            last_unit_us = unit_us.unwrap_or_default();
            rest = &rest[digits + letters..];
        }
        let length = Duration::from_micros(total_us);
        match text {
            "" => Err(Refusal::not::<Duration>(text)),
            _ if length > DURATION_MAX => Err(too_long()),
            _ => Ok(length),
        }
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(d|h|m|s|ms|us))+$", "examples": ["30s", "1m30s"]})
    }
}

/// `number` units of `unit_us` in microseconds, exactly; `None`: no number, `Some(None)`: too large.
fn micros(number: &str, unit_us: u64) -> Option<Option<u64>> {
    decimal(number)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 6 {
        return None;
    }
    let scale = 10u64.pow(fraction.len() as u32);
    let fraction: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(unit_us));
    Some(whole.and_then(|whole| whole.checked_add(fraction * unit_us / scale)))
}

/// A plain decimal number: digits, and perhaps a point and digits.
pub(crate) fn decimal(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if digits(whole) && digits(fraction) { text.parse().ok() } else { None }
}

/// Reads a length of time as plans write it, such as `1m30s`.
///
/// # Errors
/// What is wrong with it, and how it is written, for people.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    <Duration as Unit>::parse(text).map_err(|refusal| format!("{}: {}", refusal.message, refusal.hint))
}

/// A length of time as plans write it; reads back as the same, to the microsecond.
pub fn duration_text(length: Duration) -> String {
    let mut rest_us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, unit_us) in &TIME_UNITS[1..] {
        if rest_us >= *unit_us {
            text.push_str(&format!("{}{unit}", rest_us / unit_us));
            rest_us %= unit_us;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// So many a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate(pub(crate) f64);

impl Unit for Rate {
    const KIND: &'static str = "a rate";
    const EXAMPLE: &'static str = "20/s";

    fn parse(text: &str) -> Result<Rate, Refusal> {
        if decimal(text).is_some() {
            let hint = format!("write {text}/s for so many a second; /min and /h can be said too");
            return Err(Refusal::new(format!("`{text}` has no unit of time"), hint));
        }
        let (number, unit) = text.split_once('/').ok_or_else(|| Refusal::not::<Rate>(text))?;
        let seconds = match unit.trim() {
            "s" => 1.0,
            "min" | "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(Refusal::not::<Rate>(text)),
        };
        let rate = decimal(number.trim()).ok_or_else(|| Refusal::not::<Rate>(text))? / seconds;
        if rate == 0.0 {
            return Err(Refusal::new(
                format!("at a rate of `{text}` nothing would ever happen"),
                "leave it out, or give a higher rate",
            ));
        }
        if rate > RATE_MAX {
            return Err(Refusal::new(format!("`{text}` is too fast"), format!("at most {RATE_MAX}/s")));
        }
        Ok(Rate(rate))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?/(s|m|min|h)$", "examples": ["20/s", "100/min"]})
    }
}

/// Reads a share, `0%` to `100%`, as 0..=1: 99.9% is the number nearest to 0.999, which 99.9 / 100 is not.
pub(crate) fn share(text: &str) -> Option<f64> {
    let percent = text.strip_suffix('%')?.trim_end();
    decimal(percent)?;
    format!("{percent}e-2").parse().ok().filter(|share| *share <= 1.0)
}

/// A share as plans write it: `10%`. Reads back as the same where it was read from one.
pub(crate) fn share_text(share: f64) -> String {
    let percent = share * 100.0;
    let rounded = format!("{}%", (percent * 1e9).round() / 1e9);
    if self::share(&rounded) == Some(share) { rounded } else { format!("{percent}%") }
}

/// A share of something, in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share(pub(crate) f64);

impl Unit for Share {
    const KIND: &'static str = "a share";
    const EXAMPLE: &'static str = "50%";

    fn parse(text: &str) -> Result<Share, Refusal> {
        share(text).map(Share).ok_or_else(|| Refusal::not::<Share>(text))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$", "examples": ["50%", "0.5%"]})
    }
}

/// A share of the nodes that are up in a length of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ShareRate {
    /// In 0..=1, above 0.
    pub(crate) share: f64,
    pub(crate) per: Duration,
}

/// The units that rates of shares are counted in.
const PER_UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("m", 60), ("h", 3600)];

impl Unit for ShareRate {
    const KIND: &'static str = "a share of the nodes in a length of time";
    const EXAMPLE: &'static str = "10%/min";

    fn parse(text: &str) -> Result<ShareRate, Refusal> {
        let read = || {
            let (number, unit) = text.split_once('/')?;
            let (_, seconds) = PER_UNITS.iter().find(|(name, _)| *name == unit.trim())?;
            let share = share(number.trim()).filter(|share| *share > 0.0)?;
            Some(ShareRate { share, per: Duration::from_secs(*seconds) })
        };
        read().ok_or_else(|| Refusal::not::<ShareRate>(text))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%/(s|m|min|h)$", "examples": ["10%/min"]})
    }
}

impl ShareRate {
    /// As plans write it; reads back as the same.
    pub(crate) fn text(self) -> String {
        let unit = PER_UNITS.iter().find(|(_, seconds)| Duration::from_secs(*seconds) == self.per);
        format!("{}/{}", share_text(self.share), unit.map_or("s", |(name, _)| name))
    }
}

/// A plain number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Number(pub(crate) f64);

impl Unit for Number {
    const KIND: &'static str = "a number";
    const EXAMPLE: &'static str = "0.62";

    fn parse(text: &str) -> Result<Number, Refusal> {
        decimal(text).map(Number).ok_or_else(|| Refusal::not::<Number>(text))
    }

    fn schema() -> Schema {
        json_schema!({"type": "number", "exclusiveMinimum": 0})
    }
}

/// So many bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRate(pub(crate) u64);

/// The units of data rates in bits a second; decimal, as links are sold.
const BIT_UNITS: [(&str, u64); 8] = [
    ("B", 8),
    ("kB", 8_000),
    ("MB", 8_000_000),
    ("GB", 8_000_000_000),
    ("bit", 1),
    ("kbit", 1_000),
    ("Mbit", 1_000_000),
    ("Gbit", 1_000_000_000),
];

/// The highest data rate, in bytes a second.
const BYTE_RATE_MAX: f64 = 1e12;

impl Unit for ByteRate {
    const KIND: &'static str = "a data rate";
    const EXAMPLE: &'static str = "1MB/s` or `8Mbit/s";

    fn parse(text: &str) -> Result<ByteRate, Refusal> {
        let read = || {
            let number_and_unit = text.strip_suffix("/s")?;
            let digits = number_and_unit.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, unit) = number_and_unit.split_at(digits);
            let (_, bits) = BIT_UNITS.iter().find(|(name, _)| *name == unit.trim())?;
            Some(decimal(number)? * *bits as f64 / 8.0)
        };
        let bytes: f64 = read().ok_or_else(|| Refusal::not::<ByteRate>(text))?;
        if !(1.0..=BYTE_RATE_MAX).contains(&bytes) {
            return Err(Refusal::new(format!("no link is as slow or fast as `{text}`"), "1B/s to 1000GB/s"));
        }
        Ok(ByteRate(bytes.round() as u64))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([kMG]?B|[kMG]?bit)/s$", "examples": ["1MB/s", "8Mbit/s"]})
    }
}

/// So many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// The units of lengths in bytes, the largest first.
const BYTE_UNITS: [(&str, u64); 5] =
    [("MiB", 1 << 20), ("MB", 1_000_000), ("KiB", 1 << 10), ("kB", 1000), ("B", 1)];

impl Unit for Bytes {
    const KIND: &'static str = "a length in bytes";
    const EXAMPLE: &'static str = "100B` or `4KiB";

    fn parse(text: &str) -> Result<Bytes, Refusal> {
        let read = || {
            let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_')?;
            let (number, unit) = text.split_at(digits);
            let (_, bytes) = BYTE_UNITS.iter().find(|(name, _)| *name == unit.trim())?;
            whole(number)?.checked_mul(*bytes).map(Bytes)
        };
        match whole(text) {
            Some(_) => Err(Refusal::new(
                format!("`{text}` has no unit"),
                format!("write {text}B for bytes; the units are B, kB, KiB, MB and MiB"),
            )),
            None => read().ok_or_else(|| Refusal::not::<Bytes>(text)),
        }
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": r"^[0-9]+([kM]?B|[KM]iB)$", "examples": ["100B", "4KiB"]})
    }
}

/// The name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileName(pub(crate) String);

/// The longest name of a file, in bytes.
const FILE_NAME_BYTES_MAX: usize = 4096;

impl Unit for FileName {
    const KIND: &'static str = "the name of a file";
    const EXAMPLE: &'static str = "traces/small.avt";

    fn parse(text: &str) -> Result<FileName, Refusal> {
        let fits = (1..=FILE_NAME_BYTES_MAX).contains(&text.len()) && !text.contains(['\0', '\n']);
        if fits { Ok(FileName(text.to_owned())) } else { Err(Refusal::not::<FileName>("this")) }
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

impl Unit for Amount {
    const KIND: &'static str = "a number of nodes";
    const EXAMPLE: &'static str = "5` or `10%";

    fn parse(text: &str) -> Result<Amount, Refusal> {
        let amount = match text.strip_suffix('%') {
            Some(_) => share(text).map(Amount::Share),
            None => whole(text).and_then(|count| u32::try_from(count).ok()).map(Amount::Count),
        };
        match amount {
            Some(Amount::Count(0)) => {
                Err(Refusal::new("0 nodes: nothing would happen", "leave this step out, or give a number"))
            }
            Some(Amount::Share(0.0)) => {
                Err(Refusal::new("0%: nothing would happen", "leave this step out, or give a share"))
            }
            Some(amount) => Ok(amount),
            None => Err(Refusal::not::<Amount>(text)),
        }
    }

    fn schema() -> Schema {
        json_schema!({"type": ["integer", "string"], "minimum": 1, "pattern": r"^[0-9]+(\.[0-9]+)?%?$", "examples": ["10%", 5]})
    }
}

impl Unit for Ring {
    const KIND: &'static str = "a ring's size";
    const EXAMPLE: &'static str = "2^32";

    fn parse(text: &str) -> Result<Ring, Refusal> {
        text.parse::<Ring>()
            .map_err(|error| Refusal::new(error.to_string(), "write it like 2^32 or 65536; at most 2^64"))
    }

    fn schema() -> Schema {
        json_schema!({"type": ["integer", "string"], "minimum": 2, "pattern": r"^[0-9]+(\^[0-9]+)?$", "examples": ["2^32", 65536]})
    }
}

/// The name of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) String);

impl Unit for Name {
    const KIND: &'static str = "a name";
    const EXAMPLE: &'static str = "crash-churn";

    fn parse(text: &str) -> Result<Name, Refusal> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let fits = (1..=NAME_CHARACTERS_MAX).contains(&text.len()) && !text.starts_with(['.', '-']);
        if fits && text.chars().all(known) {
            return Ok(Name(text.to_owned()));
        }
        let hint = format!(
            "it names a directory: 1 to {NAME_CHARACTERS_MAX} letters, digits, `-`, `_` and `.`, such as crash-churn"
        );
        Err(Refusal::new(format!("`{text}` is no name for a plan"), hint))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"})
    }
}

/// Reads digits, with `_` between them if one likes.
fn whole(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') && !text.starts_with('_');
    if plain { text.replace('_', "").parse().ok() } else { None }
}

macro_rules! whole_number {
    ($($number:ty: $kind:literal, $example:literal;)+) => { $(
        impl Unit for $number {
            const KIND: &'static str = $kind;
            const EXAMPLE: &'static str = $example;

            fn parse(text: &str) -> Result<$number, Refusal> {
                let number = whole(text).ok_or_else(|| Refusal::not::<$number>(text))?;
                <$number>::try_from(number).map_err(|_| {
                    Refusal::new(format!("`{text}` is too large"), format!("at most {}", <$number>::MAX))
                })
            }

            fn schema() -> Schema {
                json_schema!({"type": "integer", "minimum": 0, "maximum": <$number>::MAX})
            }
        }
    )+ };
}

whole_number! {
    u8: "a whole number", "8";
    u16: "a whole number", "5";
    u32: "a whole number", "64";
    u64: "a whole number", "7";
}

impl Unit for bool {
    const KIND: &'static str = "a truth value";
    const EXAMPLE: &'static str = "true";

    fn parse(text: &str) -> Result<bool, Refusal> {
        text.parse()
            .map_err(|_| Refusal::new(format!("`{text}` is neither true nor false"), "write true or false"))
    }

    fn schema() -> Schema {
        json_schema!({"type": "boolean"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_and_read_back() {
        for (text, micros) in [
            ("30s", 30_000_000),
            ("1m30s", 90_000_000),
            ("250ms", 250_000),
            ("0.5s", 500_000),
            ("1.5h", 5_400_000_000),
            ("0s", 0),
            ("1d", 86_400_000_000),
            ("1us", 1),
        ] {
            let length = <Duration as Unit>::parse(text).unwrap();
            assert_eq!(length, Duration::from_micros(micros), "{text}");
            assert_eq!(<Duration as Unit>::parse(&duration_text(length)).unwrap(), length, "{text}");
        }
    }

    #[test]
    fn odd_times_are_refused() {
        for text in [
            "",
            "30",
            "1.5",
            "s",
            "30 s",
            "-1s",
            "30sec",
            "1s1m",
            "1s1s",
            "1e3s",
            "99999999999999999999d",
            "31d",
            "1.s",
            "१s",
        ] {
            assert!(<Duration as Unit>::parse(text).is_err(), "{text}");
        }
        assert!(<Duration as Unit>::parse("30").unwrap_err().hint.contains("30s"));
    }

    #[test]
    fn rates_need_their_unit() {
        assert_eq!(Rate::parse("20/s"), Ok(Rate(20.0)));
        assert_eq!(Rate::parse("90/min"), Ok(Rate(1.5)));
        assert_eq!(Rate::parse("0.5/s"), Ok(Rate(0.5)));
        for text in ["20", "0/s", "-1/s", "1/d", "/s", "inf/s", "nan/s", "100001/s", "1e3/s"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
        assert!(Rate::parse("20").unwrap_err().hint.contains("20/s"));
    }

    #[test]
    fn amounts_are_counts_or_shares() {
        assert_eq!(Amount::parse("5"), Ok(Amount::Count(5)));
        assert_eq!(Amount::parse("12.5%"), Ok(Amount::Share(0.125)));
        for text in ["0", "0%", "101%", "-1", "5.5", "ten", "%", "5 nodes", "99999999999"] {
            assert!(Amount::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_share_in_tenths_of_a_percent_reads_back() {
        for tenths in 1..=1000u32 {
            let text = format!("{}%", f64::from(tenths) / 10.0);
            let read = share(&text).unwrap();
            assert_eq!(share(&share_text(read)), Some(read), "{text}");
            assert_eq!(share_text(read), text);
            assert_eq!(read, f64::from(tenths) / 1000.0, "{text}");
        }
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        for text in ["", "..", "a/b", "-x", "a b", "ä"] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
        assert!(Name::parse("crash-churn_2.1").is_ok());
    }
}
