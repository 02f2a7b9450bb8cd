//! What `tc` would be told for a degraded wire: the options of a class of HTB, which has its bandwidth, and of the queue in it. That is
//! netem where packets are to be late or lost. Numbers are those of `linux/pkt_sched.h`.
//!
//! - netem draws `mean + deviation · table[random]`, so each distribution is a table of its quantiles ([`table`]); uniform needs none.
//! - Told a rate, netem counts from the packet before: packets keep their order, as in a wire, whatever the jitter. So it is told one
//!   that delays nothing.

use super::netlink::attribute;
use crate::agent::protocol::KERNEL_JITTER_US_MAX as JITTER_US_MAX;
use crate::com::shaping::{Distribution, LinkShape, quantile_us};

/// How many quantiles a distribution's table has; the kernel takes at most 16,384.
const TABLE_ENTRIES: usize = 4096;

/// One deviation in a table (`NETEM_DIST_SCALE`); its numbers have 16 bits, so that it goes as far as four.
const TABLE_UNIT: f64 = 8192.0;
const DEVIATIONS_MAX: f64 = 3.99;

/// Nanoseconds in the unit of the kernel's times (`PSCHED_SHIFT`).
const TICK_NS: u64 = 64;

/// The longest deviation that the kernel draws with, in microseconds: in nanoseconds, 31 bits hold it.
const DEVIATION_US_MAX: f64 = 2_147_000.0;

/// The most packets that wait in one queue.
const PACKETS_MAX: u32 = 10_000;

/// What a class without a bandwidth may send, in bytes a second: more than any wire carries. As much is netem's rate.
const UNLIMITED: u64 = u32::MAX as u64;

/// How much of a class's time may be saved up, in microseconds: bursts are a hundredth of a second's bytes.
const BURST_US: u64 = 10_000;

/// How many bytes a class may send in its turn. It has no say where classes do not share, but must be there.
const QUANTUM_BYTES: u32 = 10_000;

/// `TC_LINKLAYER_ETHERNET`: the kernel computes times itself, without a table of them.
const ETHERNET: u8 = 1;

/// A queue with its kind and options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) kind: &'static str,
    pub(super) options: Vec<u8>,
}

/// A kernel cannot draw so much jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernels cannot draw so much jitter ({jitter_us} us): at most {JITTER_US_MAX} us")]
pub(in crate::agent) struct TooMuchJitter {
    jitter_us: u64,
}

/// The queue's options that make a root of classes, where packets of no class pass at once: as many may wait as in any queue.
pub(super) fn root() -> Vec<u8> {
    // tc_htb_glob: version, rate2quantum, the class of others (none), two that are not set.
    let global = [3u32, 10, 0, 0, 0].map(u32::to_ne_bytes).concat();
    [attribute(2, &global), attribute(5, &PACKETS_MAX.to_ne_bytes())].concat()
}

/// The options of a class with the bandwidth of `shape`.
pub(super) fn class(shape: &LinkShape) -> Vec<u8> {
    let rate = if shape.bytes_per_second == 0 { UNLIMITED } else { shape.bytes_per_second };
    let rate_32 = u32::try_from(rate).unwrap_or(u32::MAX);
    // tc_ratespec, twice: one for what it has, one for what it may borrow.
    let mut speed = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    speed.extend(rate_32.to_ne_bytes());
    let burst = ticks(BURST_US);
    let numbers = [burst, burst, QUANTUM_BYTES, 0, 0].map(u32::to_ne_bytes).concat();
    let mut options = attribute(1, &[&speed[..], &speed, &numbers].concat());
    if rate > u64::from(rate_32) {
        options.extend(attribute(6, &rate.to_ne_bytes()));
        options.extend(attribute(7, &rate.to_ne_bytes()));
    }
    options
}

/// What waits in a class of `shape`.
pub(super) fn leaf(shape: &LinkShape) -> Result<Leaf, TooMuchJitter> {
    if !is_netems(shape) {
        return Ok(Leaf { kind: "pfifo", options: PACKETS_MAX.to_ne_bytes().to_vec() });
    }
    let (deviation_us, table) = match shape.distribution {
        _ if shape.jitter_us == 0 => (0.0, None),
        Distribution::Uniform => (shape.jitter_us as f64, None),
        Distribution::LogNormal if shape.latency_us == 0 => (0.0, None),
        _ => {
            let (deviation_us, table) = table(shape);
            (deviation_us, Some(table))
        }
    };
    if shape.jitter_us > JITTER_US_MAX || deviation_us > DEVIATION_US_MAX {
        return Err(TooMuchJitter { jitter_us: shape.jitter_us });
    }
    let loss = (f64::from(shape.loss_ppm.min(1_000_000)) / 1e6 * f64::from(u32::MAX)).round() as u32;
    // tc_netem_qopt: latency, limit, loss, gap, duplicates, jitter.
    let numbers = [ticks(shape.latency_us), PACKETS_MAX, loss, 0, 0, ticks(deviation_us.round() as u64)];
    let mut options = numbers.map(u32::to_ne_bytes).concat();
    if let Some(table) = table {
        let bytes: Vec<u8> = table.into_iter().flat_map(i16::to_ne_bytes).collect();
        options.extend(attribute(2, &bytes));
    }
    // tc_netem_rate: the rate; no bytes more, no cells.
    options.extend(attribute(6, &[UNLIMITED as u32, 0, 0, 0].map(u32::to_ne_bytes).concat()));
    Ok(Leaf { kind: "netem", options })
}

/// Whether it takes netem.
pub(super) fn is_netems(shape: &LinkShape) -> bool {
    shape.latency_us > 0 || shape.jitter_us > 0 || shape.loss_ppm > 0
}

fn ticks(length_us: u64) -> u32 {
    u32::try_from(length_us.saturating_mul(1000) / TICK_NS).unwrap_or(u32::MAX)
}

/// The deviation that netem is told, in microseconds, and the quantiles of what is more or less than the latency, in such deviations:
/// where a distribution goes further than a table does, the deviation is longer than the jitter.
fn table(shape: &LinkShape) -> (f64, Vec<i16>) {
    let share = |entry: usize| (entry as f64 + 0.5) / TABLE_ENTRIES as f64;
    let quantiles: Vec<f64> =
        (0..TABLE_ENTRIES).map(|entry| quantile_us(shape, share(entry)) - shape.latency_us as f64).collect();
    let furthest = quantiles.iter().fold(0.0, |most: f64, quantile| most.max(quantile.abs()));
    let deviation_us = (shape.jitter_us as f64).max(furthest / DEVIATIONS_MAX);
    let entry = |quantile: &f64| (quantile / deviation_us * TABLE_UNIT).round() as i16;
    (deviation_us, quantiles.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow() -> LinkShape {
        LinkShape { latency_us: 100_000, jitter_us: 10_000, loss_ppm: 10_000, ..LinkShape::default() }
    }

    fn numbers(bytes: &[u8]) -> Vec<u32> {
        bytes.as_chunks().0.iter().map(|chunk: &[u8; 4]| u32::from_ne_bytes(*chunk)).collect()
    }

    /// Recorded from iproute2 6.1: `tc qdisc add … netem limit 10000 delay 100ms 10ms loss 1% rate 34359738360bit`, but for that rate,
    /// which it was told as 8gbit.
    #[test]
    #[cfg(target_endian = "little")]
    fn netem_is_told_what_tc_tells_it() {
        let told = b"\x84\xd7\x17\x00\x10\x27\x00\x00\x29\x5c\x8f\x02\x00\x00\x00\x00\x00\x00\x00\x00\x5a\x62\x02\x00\
            \x14\x00\x06\x00\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(leaf(&slow()), Ok(Leaf { kind: "netem", options: told.to_vec() }));
    }

    /// Recorded from the same: `tc qdisc … root handle 7032: htb default 0 direct_qlen 10000`, and `tc class … htb rate 100kbps burst
    /// 1000 quantum 10000`, of which the tables and what only these need (the size of their cells) are left out.
    #[test]
    #[cfg(target_endian = "little")]
    fn htb_is_told_what_tc_tells_it() {
        let told = b"\x18\x00\x02\x00\x03\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
            \x08\x00\x05\x00\x10\x27\x00\x00";
        assert_eq!(root(), told);
        let told = b"\x30\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xa0\x86\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
            \xa0\x86\x01\x00\x5a\x62\x02\x00\x5a\x62\x02\x00\x10\x27\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(class(&LinkShape { bytes_per_second: 100_000, ..LinkShape::default() }), told);
    }

    #[test]
    fn bandwidth_alone_needs_no_netem_and_has_no_bound() {
        let narrow = LinkShape { bytes_per_second: 5 << 32, ..LinkShape::default() };
        assert!(!is_netems(&narrow));
        assert_eq!(leaf(&narrow).unwrap().kind, "pfifo");
        let options = class(&narrow);
        assert_eq!(numbers(&options)[3], u32::MAX);
        assert_eq!(options[options.len() - 8..], (5u64 << 32).to_ne_bytes());
        assert_eq!(numbers(&class(&slow()))[3], u32::MAX, "latency alone limits nothing");
    }

    #[test]
    fn tables_have_their_distributions_quantiles_in_16_bits() {
        for (distribution, mean_us) in
            [(Distribution::Normal, 0.0), (Distribution::LogNormal, 480.0), (Distribution::Pareto, 10_000.0)]
        {
            let shape = LinkShape { distribution, ..slow() };
            let (deviation_us, table) = table(&shape);
            assert!(table.is_sorted() && table.len() == TABLE_ENTRIES);
            let delay_us = |entry: i16| f64::from(entry) / TABLE_UNIT * deviation_us;
            let mean = table.iter().map(|entry| delay_us(*entry)).sum::<f64>() / TABLE_ENTRIES as f64;
            assert!((mean - mean_us).abs() < 150.0, "{distribution:?}: {mean} is not {mean_us}");
            for share in [0.01, 0.25, 0.5, 0.9, 0.999] {
                let entry = (share * TABLE_ENTRIES as f64) as usize;
                let wanted = quantile_us(&shape, (entry as f64 + 0.5) / TABLE_ENTRIES as f64) - 100_000.0;
                let drawn = delay_us(table[entry]);
                assert!((wanted - drawn).abs() < 50.0 + wanted.abs() / 50.0, "{share}: {drawn}, {wanted}");
            }
            let options = leaf(&shape).unwrap().options;
            assert_eq!(options.len(), 24 + 4 + 2 * TABLE_ENTRIES + 20);
            assert_eq!(numbers(&options)[5], ticks(deviation_us.round() as u64));
        }
    }

    #[test]
    fn more_jitter_than_a_kernel_draws_is_refused_and_no_more_than_is_said() {
        for distribution in
            [Distribution::Uniform, Distribution::Normal, Distribution::LogNormal, Distribution::Pareto]
        {
            for latency_us in [0, 1, 1000, 200_000, 60_000_000] {
                let most = LinkShape { distribution, latency_us, jitter_us: JITTER_US_MAX, ..slow() };
                assert!(leaf(&most).is_ok(), "{most:?}");
                let more = LinkShape { jitter_us: JITTER_US_MAX + 1, ..most };
                assert_eq!(leaf(&more), Err(TooMuchJitter { jitter_us: more.jitter_us }));
            }
        }
        let most = LinkShape { loss_ppm: u32::MAX, latency_us: u64::MAX, ..LinkShape::default() };
        assert_eq!(numbers(&leaf(&most).unwrap().options)[..3], [u32::MAX, PACKETS_MAX, u32::MAX]);
    }
}
