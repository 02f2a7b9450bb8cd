//! Workloads, and what is expected of them.

use std::time::Duration;

use p2ps::control::errand::{BYTES_MIN, RECEIVERS_MAX};
use p2ps::message::PAYLOAD_BYTES_MAX;
use p2ps::message::dictionary::VALUE_BYTES_MAX;

use super::{At, Checker};
use crate::plan::decode::{Field, OneOrMore};
use crate::plan::document::ValueIndex;
use crate::plan::schema::{RawHot, RawKeys, RawRamp, RawRate, RawSend, RawWorkload, RawZipf};
use crate::plan::units::{self, Bytes, Number, Share, duration_text};
use crate::plan::workload::{
    BYTES_DEFAULT, DELIVERIES_MAX, KEYS_DEFAULT, KEYS_MAX, Keys, OperationKind, Popularity, Rate, Workload,
    WorkloadKind, ZIPF_DEFAULT, ZIPF_MAX,
};
use crate::plan::{Claim, Expectation, OPERATIONS_MAX, WORKLOADS_MAX};

/// The share of gets where a plan does not say.
const READS_DEFAULT: f64 = 0.5;

impl Checker<'_> {
    pub(super) fn workload(&mut self, raw: &[RawWorkload]) -> Option<Vec<At<Workload>>> {
        if let Some(raw) = raw.get(WORKLOADS_MAX) {
            let message = format!("a plan has at most {WORKLOADS_MAX} workloads");
            self.problem(Some(rate_index(raw.when().0)), message, None);
            return None;
        }
        // All are looked at, whatever is wrong with the first.
        let all: Vec<Option<At<Workload>>> = raw.iter().map(|raw| self.one_workload(raw)).collect();
        all.into_iter().collect()
    }

    fn one_workload(&mut self, raw: &RawWorkload) -> Option<At<Workload>> {
        let (raw_rate, from, to) = raw.when();
        let rate = self.rate(raw_rate);
        let (begin, end) = (self.read_or(from, Duration::ZERO), to.map(|to| (self.read(to), to.index)));
        let kind = self.workload_kind(raw);
        let (begin, end) = match (begin?, end) {
            (begin, None) => (begin, None),
            (begin, Some((end, index))) if end? <= begin => {
                let message =
                    format!("it ends at {}, and begins at {}", duration_text(end?), duration_text(begin));
                return self.refuse(index, message, "let `to` be later than `from`");
            }
            (begin, Some((end, _))) => (begin, end),
        };
        let workload = Workload { kind: kind?, rate: rate?, from: begin, to: end };
        Some(At(workload, rate_index(raw_rate)))
    }

    fn workload_kind(&mut self, raw: &RawWorkload) -> Option<WorkloadKind> {
        Some(match raw {
            RawWorkload::Lookup(raw) => {
                let keys = self.keys(raw.keys.as_ref(), raw.population.as_ref(), None, rate_index(&raw.rate));
                WorkloadKind::Lookup { keys: keys? }
            }
            RawWorkload::Dictionary(raw) => {
                let population = raw.population.as_ref();
                let at = rate_index(&raw.rate);
                let keys = self.keys(raw.keys.as_ref(), population, Some(KEYS_DEFAULT), at);
                let value_bytes = self.bytes(raw.value.as_ref(), VALUE_BYTES_MAX);
                let Share(reads) = self.read_or(raw.reads.as_ref(), Share(READS_DEFAULT))?;
                WorkloadKind::Dictionary { reads, keys: keys?, value_bytes: value_bytes? }
            }
            RawWorkload::Send(raw) => self.send(raw, false)?,
            RawWorkload::SendReliable(raw) => self.send(raw, true)?,
            RawWorkload::Broadcast(raw) => WorkloadKind::Broadcast {
                payload_bytes: self.bytes(raw.payload.as_ref(), PAYLOAD_BYTES_MAX)?,
            },
            RawWorkload::Multicast(raw) => {
                let payload_bytes = self.bytes(raw.payload.as_ref(), PAYLOAD_BYTES_MAX);
                let receivers = self.whole_within(&raw.receivers, 1..=RECEIVERS_MAX as u32, "receivers");
                WorkloadKind::Multicast { receivers: receivers?, payload_bytes: payload_bytes? }
            }
        })
    }

    fn send(&mut self, raw: &RawSend, reliable: bool) -> Option<WorkloadKind> {
        let payload_bytes = self.bytes(raw.payload.as_ref(), PAYLOAD_BYTES_MAX);
        let pairs = match &raw.pairs {
            None => None,
            Some(field) => Some(self.whole_within(field, 1..=KEYS_MAX, "pairs")?),
        };
        Some(WorkloadKind::Send { reliable, pairs, payload_bytes: payload_bytes? })
    }

    fn rate(&mut self, raw: &RawRate) -> Option<Rate> {
        match raw {
            OneOrMore::One(field) => self.read(field).map(|units::Rate(rate)| Rate::Constant(rate)),
            OneOrMore::More(RawRamp { from, to, over }) => {
                let (first, last, length) = (self.read(from), self.read(to), self.read(over));
                let (units::Rate(from), units::Rate(to), length) = (first?, last?, length?);
                if length.is_zero() {
                    let hint = "give it some time, or write one rate";
                    return self.refuse(over.index, "a ramp of no length", hint);
                }
                Some(Rate::Ramp { from, to, over: length })
            }
        }
    }

    /// `default` is the population where the plan names none; `None`: all ids.
    fn keys(
        &mut self,
        raw: Option<&RawKeys>,
        population: Option<&Field<u32>>,
        default: Option<u32>,
        at: ValueIndex,
    ) -> Option<Keys> {
        let number = match population {
            None => default,
            Some(field) => Some(self.whole_within(field, 1..=KEYS_MAX, "keys")?),
        };
        let popularity = match raw {
            None | Some(RawKeys::Uniform) => Popularity::Uniform,
            Some(RawKeys::Zipf(RawZipf { exponent })) => {
                let Number(number) = self.read_or(exponent.as_ref(), Number(ZIPF_DEFAULT))?;
                if !(number > 0.0 && number <= ZIPF_MAX)
                    && let Some(field) = exponent
                {
                    let hint = format!("above 0 and up to {ZIPF_MAX}; web requests have about 0.8");
                    return self.refuse(
                        field.index,
                        format!("no Zipf distribution has the exponent {number}"),
                        hint,
                    );
                }
                Popularity::Zipf { exponent: number }
            }
            Some(RawKeys::Hot(RawHot { keys, operations })) => {
                let (of_keys, of_operations) = (self.read(keys), self.read(operations));
                let (Share(of_keys), Share(of_operations)) = (of_keys?, of_operations?);
                if of_keys == 0.0 || of_keys == 1.0 {
                    let hint = "write a share such as 1%";
                    return self.refuse(keys.index, "then no key is hotter than others", hint);
                }
                Popularity::Hot { keys: of_keys, operations: of_operations }
            }
        };
        if number.is_none() && popularity != Popularity::Uniform {
            let message = "some keys are more popular than others: of how many?";
            return self.refuse(at, message, "add `population: 1000` beside `keys`");
        }
        Some(Keys { population: number, popularity })
    }

    fn bytes(&mut self, field: Option<&Field<Bytes>>, max: usize) -> Option<u32> {
        let Bytes(bytes) = self.read_or(field, Bytes(u64::from(BYTES_DEFAULT)))?;
        match (u32::try_from(bytes), field) {
            (Ok(bytes), _) if bytes >= BYTES_MIN && bytes as usize <= max => Some(bytes),
            (_, field) => {
                let message = format!("nothing of {bytes} bytes can be sent or stored");
                let hint = format!("{BYTES_MIN}B, which name the operation, to {}KiB", max >> 10);
                field.and_then(|field| self.refuse(field.index, message, hint))
            }
        }
    }

    fn whole_within(
        &mut self,
        field: &Field<u32>,
        range: std::ops::RangeInclusive<u32>,
        what: &str,
    ) -> Option<u32> {
        let number = self.read(field)?;
        if range.contains(&number) {
            return Some(number);
        }
        let hint = format!("{} to {}", range.start(), range.end());
        self.refuse(field.index, format!("there cannot be {number} {what}"), hint)
    }

    /// What is expected of operations can only be judged where there are some.
    pub(super) fn measured(&mut self, workload: &[At<Workload>], expect: &[At<Expectation>]) {
        for At(expectation, index) in expect {
            let Claim::Figure { name, .. } = &expectation.claim else { continue };
            let Some(kind) = OperationKind::of_figure(name) else { continue };
            if !workload.iter().any(|At(workload, _)| workload.operation_kinds().contains(&kind)) {
                let message = format!("`{name}` will not be measured: the plan has no {}", kind.plural());
                let hint = format!("add a workload such as `{}`", kind.example());
                self.problem(Some(*index), message, Some(hint));
            }
        }
    }

    /// All workloads lie within the run, and are not more than a run can have.
    pub(super) fn operations(&mut self, workload: &[At<Workload>], nodes: u32, duration: Duration) {
        let length = duration_text(duration);
        let is_lookup = |At(workload, _): &At<Workload>| matches!(workload.kind, WorkloadKind::Lookup { .. });
        let what = if workload.iter().all(is_lookup) { "look-ups" } else { "operations" };
        let (mut operations, mut deliveries) = (0.0, 0.0);
        for At(workload, index) in workload {
            let last = workload.to.unwrap_or(workload.from);
            if workload.from >= duration || last > duration {
                let (word, time) = if workload.from >= duration {
                    ("begins at", workload.from)
                } else {
                    ("lasts until", last)
                };
                let message = format!("it {word} {}, the run ends at {length}", duration_text(time));
                self.problem(
                    Some(*index),
                    message,
                    Some("raise `duration`, or set earlier times".to_owned()),
                );
                return;
            }
            let here = workload.operations(duration);
            operations += here;
            deliveries += here * f64::from(workload.deliveries(nodes));
            let (count, what, max) = if operations > OPERATIONS_MAX as f64 {
                (operations, what, OPERATIONS_MAX)
            } else if deliveries > DELIVERIES_MAX as f64 {
                (deliveries, "deliveries", DELIVERIES_MAX)
            } else {
                continue;
            };
            let what_is_counted = if what == "deliveries" { what } else { "operations" };
            let message = format!("about {count:.0} {what} in {length} are too many");
            let hint =
                format!("a run has at most {max} {what_is_counted}: lower the rate or shorten the run");
            self.problem(Some(*index), message, Some(hint));
            return;
        }
    }
}

/// When all have joined and all workloads that end have ended.
pub(super) fn busy_until(join_end: Duration, workload: Option<&[At<Workload>]>) -> Duration {
    let ends = workload.into_iter().flatten().map(|At(workload, _)| workload.to.unwrap_or(workload.from));
    ends.fold(join_end, Duration::max)
}

/// Where a rate was written.
fn rate_index(rate: &RawRate) -> ValueIndex {
    match rate {
        OneOrMore::One(field) => field.index,
        OneOrMore::More(ramp) => ramp.from.index,
    }
}
