//! Workloads: streams of operations that are asked of the network, open loop.
//!
//! A kind of workload is added here; as YAML in `plan::schema`, with its `plan::check`; to the schedule's
//! [`workload`](crate::schedule) and to the judge, [`check`](crate::check). What a node does for it is an
//! [`Errand`].

use std::time::Duration;

use p2ps::agent::protocol::ActionKind;
use p2ps::control::Errand;
use serde::Serialize;

/// The most keys of a population.
pub const KEYS_MAX: u32 = 1_000_000;

/// How many keys a dictionary's workload is about where the plan does not say.
pub const KEYS_DEFAULT: u32 = 1000;

/// The exponent of a Zipf distribution where the plan does not say: YCSB's (Cooper et al., SoCC 2010).
pub const ZIPF_DEFAULT: f64 = 0.99;

/// The largest exponent of a Zipf distribution.
pub const ZIPF_MAX: f64 = 10.0;

/// The length of values and messages where the plan does not say, in bytes.
pub const BYTES_DEFAULT: u32 = 100;

/// The most deliveries of messages that a run may have, counted by the rates: each one is told and kept.
pub const DELIVERIES_MAX: u64 = 5_000_000;

/// A stream of operations, open loop: each has its intended time, however the last one fared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Workload {
    /// What is asked.
    pub kind: WorkloadKind,
    /// How often, in the whole network.
    pub rate: Rate,
    /// From when on, counted from the run's start.
    pub from: Duration,
    /// Until when; `None`: until the run's end.
    pub to: Option<Duration>,
}

/// What is asked of the network, each time of a random node that the plan knows to be up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum WorkloadKind {
    /// Who is responsible for a key?
    Lookup {
        /// Of which keys.
        keys: Keys,
    },
    /// Puts and gets. Workloads with as many keys are about the same ones.
    Dictionary {
        /// The share of gets, in 0..=1.
        reads: f64,
        /// Of which keys; there is a population.
        keys: Keys,
        /// The length of values, in bytes.
        value_bytes: u32,
    },
    /// Messages from one node to another.
    Send {
        /// Each is delivered, or reported failed.
        reliable: bool,
        /// Between so many pairs of the first nodes, drawn by the seed; `None`: each time another, of those that are up.
        pairs: Option<u32>,
        /// The length of messages, in bytes.
        payload_bytes: u32,
    },
    /// Messages to all.
    Broadcast {
        /// The length of messages, in bytes.
        payload_bytes: u32,
    },
    /// Messages to some.
    Multicast {
        /// To how many nodes, of those that are up; to all where these are fewer.
        receivers: u32,
        /// The length of messages, in bytes.
        payload_bytes: u32,
    },
}

/// How often something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Rate {
    /// So often a second.
    Constant(f64),
    /// The rate goes evenly from one to the other, and stays there.
    Ramp {
        /// So often a second at first.
        from: f64,
        /// So often a second at last.
        to: f64,
        /// In this time.
        over: Duration,
    },
}

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Keys {
    /// So many, drawn by the seed; `None`: all ids of the ring.
    pub population: Option<u32>,
    /// How often each.
    pub popularity: Popularity,
}

/// How often each key of a population is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Popularity {
    /// All as often.
    Uniform,
    /// The i-th of them with a probability proportional to `1 / i^exponent`.
    Zipf {
        /// In 0..=[`ZIPF_MAX`], above 0.
        exponent: f64,
    },
    /// Some of them more often than the others.
    Hot {
        /// The share of the keys that is hot.
        keys: f64,
        /// The share of the operations that is about these.
        operations: f64,
    },
}

impl Rate {
    /// How many operations there are in the first so many seconds, on average.
    pub fn count(self, seconds: f64) -> f64 {
        match self {
            Rate::Constant(rate) => rate * seconds,
            Rate::Ramp { from, to, over } => {
                let over = over.as_secs_f64();
                let ramp = seconds.min(over);
                from * ramp + (to - from) * ramp * ramp / (2.0 * over) + to * (seconds - ramp)
            }
        }
    }

    /// After how many seconds there are so many operations, on average: the inverse of [`count`](Rate::count).
    pub fn seconds(self, count: f64) -> f64 {
        match self {
            Rate::Constant(rate) => count / rate,
            Rate::Ramp { from, to, over } => {
                let over = over.as_secs_f64();
                let on_ramp = (from + to) / 2.0 * over;
                if count >= on_ramp {
                    return over + (count - on_ramp) / to;
                }
                // The root of from * t + slope / 2 * t^2 = count, in the form that also takes a slope of 0.
                let slope = (to - from) / over;
                2.0 * count / (from + (from * from + 2.0 * slope * count).max(0.0).sqrt())
            }
        }
    }
}

impl Workload {
    /// How many operations it has in a run of this length, on average.
    pub fn operations(&self, duration: Duration) -> f64 {
        let until = self.to.map_or(duration, |to| to.min(duration));
        self.rate.count(until.saturating_sub(self.from).as_secs_f64())
    }

    /// How many deliveries each of its operations makes at most, in a network of so many nodes.
    pub fn deliveries(&self, nodes: u32) -> u32 {
        match self.kind {
            WorkloadKind::Lookup { .. } | WorkloadKind::Dictionary { .. } => 0,
            WorkloadKind::Send { .. } => 1,
            WorkloadKind::Broadcast { .. } => nodes,
            WorkloadKind::Multicast { receivers, .. } => receivers.min(nodes),
        }
    }

    /// Which operations it makes.
    pub fn operation_kinds(&self) -> &'static [OperationKind] {
        match self.kind {
            WorkloadKind::Lookup { .. } => &[OperationKind::Lookup],
            WorkloadKind::Dictionary { reads, .. } => match reads {
                0.0 => &[OperationKind::Put],
                1.0 => &[OperationKind::Get],
                _ => &[OperationKind::Put, OperationKind::Get],
            },
            WorkloadKind::Send { reliable: false, .. } => &[OperationKind::Send],
            WorkloadKind::Send { reliable: true, .. } => &[OperationKind::SendReliable],
            WorkloadKind::Broadcast { .. } => &[OperationKind::Broadcast],
            WorkloadKind::Multicast { .. } => &[OperationKind::Multicast],
        }
    }
}

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// A look-up.
    Lookup,
    /// A key of the dictionary is given a value.
    Put,
    /// A key of the dictionary is read.
    Get,
    /// A message, best effort.
    Send,
    /// A message that is delivered or reported failed.
    SendReliable,
    /// A message to all.
    Broadcast,
    /// A message to some.
    Multicast,
}

impl OperationKind {
    /// All of them, in the order in which results list them.
    pub const ALL: [OperationKind; 7] = [
        OperationKind::Lookup,
        OperationKind::Put,
        OperationKind::Get,
        OperationKind::Send,
        OperationKind::SendReliable,
        OperationKind::Broadcast,
        OperationKind::Multicast,
    ];

    /// Whether it is a message, which comes somewhere.
    pub fn is_message(self) -> bool {
        !matches!(self, OperationKind::Lookup | OperationKind::Put | OperationKind::Get)
    }

    /// What an action is as an operation, if it is one.
    pub fn of(action: &ActionKind) -> Option<OperationKind> {
        match action {
            ActionKind::Lookup { .. } => Some(OperationKind::Lookup),
            ActionKind::Errand { what, .. } => Some(match what {
                Errand::Put { .. } => OperationKind::Put,
                Errand::Get { .. } => OperationKind::Get,
                Errand::Send { .. } => OperationKind::Send,
                Errand::SendReliable { .. } => OperationKind::SendReliable,
                Errand::Broadcast { .. } => OperationKind::Broadcast,
                Errand::Multicast { .. } => OperationKind::Multicast,
            }),
            _ => None,
        }
    }

    /// Its word: the first of its figures' names.
    pub fn as_str(self) -> &'static str {
        match self {
            OperationKind::Lookup => "lookup",
            OperationKind::Put => "put",
            OperationKind::Get => "get",
            OperationKind::Send => "send",
            OperationKind::SendReliable => "send_reliable",
            OperationKind::Broadcast => "broadcast",
            OperationKind::Multicast => "multicast",
        }
    }

    /// A workload that makes such operations, as plans write it.
    pub fn example(self) -> &'static str {
        match self {
            OperationKind::Lookup => "- lookup: {rate: 100/s}",
            OperationKind::Put | OperationKind::Get => "- dictionary: {rate: 100/s, reads: 90%}",
            OperationKind::Send => "- send: {rate: 100/s}",
            OperationKind::SendReliable => "- send_reliable: {rate: 100/s}",
            OperationKind::Broadcast => "- broadcast: {rate: 1/s}",
            OperationKind::Multicast => "- multicast: {rate: 1/s, receivers: 10}",
        }
    }

    /// Several of them, for people.
    pub fn plural(self) -> &'static str {
        match self {
            OperationKind::Lookup => "look-ups",
            OperationKind::Put => "puts",
            OperationKind::Get => "gets",
            OperationKind::Send => "messages of send",
            OperationKind::SendReliable => "messages of send_reliable",
            OperationKind::Broadcast => "broadcasts",
            OperationKind::Multicast => "multicasts",
        }
    }

    /// The kind of which a figure is one, if it is an operation's.
    pub fn of_figure(name: &str) -> Option<OperationKind> {
        let prefix = name.split('.').next()?;
        OperationKind::ALL.into_iter().find(|kind| kind.as_str() == prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_counts_what_lies_under_it_and_back() {
        let ramp = Rate::Ramp { from: 10.0, to: 200.0, over: Duration::from_secs(30) };
        assert!((ramp.count(30.0) - 3150.0).abs() < 1e-9);
        assert!((ramp.count(40.0) - 5150.0).abs() < 1e-9);
        let down = Rate::Ramp { from: 100.0, to: 1.0, over: Duration::from_secs(10) };
        let flat = Rate::Ramp { from: 5.0, to: 5.0, over: Duration::from_secs(10) };
        for rate in [ramp, down, flat, Rate::Constant(3.0)] {
            for tenths in 0..600u32 {
                let seconds = f64::from(tenths) / 10.0;
                assert!((rate.seconds(rate.count(seconds)) - seconds).abs() < 1e-6, "{rate:?} at {seconds}");
            }
        }
    }

    #[test]
    fn only_what_lies_in_the_window_counts() {
        let kind = WorkloadKind::Broadcast { payload_bytes: 8 };
        let seconds = Duration::from_secs;
        let workload = |from, to| Workload { kind, rate: Rate::Constant(2.0), from, to };
        assert_eq!(workload(seconds(5), Some(seconds(10))).operations(seconds(8)), 6.0);
        assert_eq!(workload(seconds(5), None).operations(seconds(8)), 6.0);
        assert_eq!(workload(seconds(9), None).operations(seconds(8)), 0.0);
    }
}
