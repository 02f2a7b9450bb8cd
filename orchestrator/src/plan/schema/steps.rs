//! The steps of the timeline as YAML has them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::Amount;
use crate::plan::decode::Field;
use crate::plan::units::{ByteRate, FileName, Number, Share, ShareRate};

use super::targets::{RawSide, RawTarget};

/// One thing done to the network: at one time, or from one time on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "step", extend("minProperties" = 2))]
pub(crate) struct RawStep {
    /// When, counted from the run's start.
    pub(crate) at: Option<Field<Duration>>,
    /// From when on (`at` says the same).
    pub(crate) from: Option<Field<Duration>>,
    /// Until when the churn goes on.
    pub(crate) to: Option<Field<Duration>>,
    /// How long a pause or degraded links last. Default: until the run's end.
    #[serde(rename = "for")]
    pub(crate) length: Option<Field<Duration>>,
    /// So many new nodes join (a share: of those that are up).
    pub(crate) join: Option<Field<Amount>>,
    /// So many nodes leave gracefully (a share: of those that are up); or a group's, some hosts', one with a role.
    pub(crate) leave: Option<RawTarget>,
    /// So many nodes are killed, without a word (a share: of those that are up); or a group's, some hosts', one with a role.
    pub(crate) kill: Option<RawTarget>,
    /// So many of the nodes that are down come back with the same identity (a share: of those that are down); or a group's,
    /// some hosts'.
    pub(crate) restart: Option<RawTarget>,
    /// So many nodes are stopped (SIGSTOP; a share: of those that are up), and go on later; or a group's, some hosts', one with
    /// a role.
    pub(crate) pause: Option<RawTarget>,
    /// Sides that cannot reach each other. Shares (`[50%, 50%]`, 100% together) are drawn by the seed, and who joins meanwhile is on
    /// the side of the node that it joins by. Or groups and hosts (`[edge, core]`, `[{hosts: 2}, rest]`): then who is on no side
    /// reaches everybody.
    pub(crate) partition: Option<Vec<RawSide>>,
    /// What the first side sends to the second is lost (or degraded, with `between`), but not what the second sends to the first
    /// (so with any two sides, by their order). Default: false.
    pub(crate) one_way: Option<Field<bool>>,
    /// How long the partition lasts. Default: until the run's end.
    pub(crate) heal_after: Option<Field<Duration>>,
    /// What some nodes send is delayed, lost or slow. Where several such steps hold for a node at once, latencies and
    /// jitters add
    /// up, each loses its share of what the others leave, and the least bandwidth counts; partitions cut besides.
    pub(crate) degrade: Option<RawDegrade>,
    /// All partitions and degraded links heal; pauses go on.
    pub(crate) heal: Option<RawHeal>,
    /// Nodes come and go from `from` to `to`. Who is up at `to` stays.
    pub(crate) churn: Option<RawChurn>,
    /// Nodes come and go as a trace says, from `from` on.
    pub(crate) trace: Option<RawTrace>,
}

/// What is healed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "heal")]
pub(crate) enum RawHeal {
    /// All links.
    All,
}

/// What is done to what some nodes send to all, or two sides to each other (as netem does it at a host's outgoing interface: a round trip between a degraded
/// and another
/// node has the latency once).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "degrade")]
pub(crate) struct RawDegrade {
    /// Whose messages: so many nodes (a share: of those that are up), drawn by the seed; or a group's, some hosts', one with a
    /// role. Default: all.
    pub(crate) nodes: Option<RawTarget>,
    /// Two sides (groups, hosts or the rest): what they send each other, both ways unless the step says `one_way`. Twice the
    /// same one: the links inside it.
    pub(crate) between: Option<Vec<RawSide>>,
    /// How much later each message leaves.
    pub(crate) latency: Option<Field<Duration>>,
    /// How much more or less than that.
    pub(crate) jitter: Option<Field<Duration>>,
    /// How the jitter is distributed. Default: uniform.
    pub(crate) distribution: Option<RawShaped>,
    /// The share of messages that are lost.
    pub(crate) loss: Option<Field<Share>>,
    /// The most that a node sends over one link.
    pub(crate) bandwidth: Option<Field<ByteRate>>,
}

/// How jitter is distributed.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "jitter")]
pub(crate) enum RawShaped {
    /// Uniform in latency ± jitter.
    Uniform,
    /// Normal, with the jitter for a standard deviation.
    Normal,
    /// Log-normal with the latency for its median and the jitter for its standard deviation.
    LogNormal,
    /// Pareto beyond the latency, with the jitter for its mean excess: a heavy tail.
    Pareto,
}

/// How nodes come and go: `sessions` (with `downtime`), or a `preset`, or a `rate`.
///
/// Sessions begin in equilibrium: the nodes that are up at `from` go on for the rest of a session that is under way
/// (drawn from the
/// residual lifetimes), and as many nodes more as the equilibrium has down join when the rest of their down times is
/// over. So the
/// network stays as large as it is at `from`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "churn")]
pub(crate) struct RawChurn {
    /// How long nodes are up.
    pub(crate) sessions: Option<RawDistribution>,
    /// How long they are down between their sessions; they come back with the same identity. Default: they don't come
    /// back, but for each a new
    /// node joins at once.
    pub(crate) downtime: Option<RawDistribution>,
    /// Sessions and down times as somebody measured them.
    pub(crate) preset: Option<RawPreset>,
    /// How much faster than that time goes: lengths are divided by it. Default: 1.
    pub(crate) speed_up: Option<Field<Number>>,
    /// So large a share of the nodes that are up ends, at random moments (a Poisson process), and as many come: those
    /// that are down in random
    /// order, or new ones where none is.
    pub(crate) rate: Option<Field<ShareRate>>,
    /// How sessions end. Default: kill.
    pub(crate) end: Option<RawEnd>,
}

/// How a session ends.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "end")]
pub(crate) enum RawEnd {
    /// The node is killed, without a word.
    Kill,
    /// It leaves gracefully.
    Leave,
}

/// Churn as somebody measured it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "preset")]
pub(crate) enum RawPreset {
    /// Sessions of the torrent "Red Hat": Weibull, shape 0.34, scale 21.3 (taken as minutes). Stutzbach and Rejaie, IMC
    /// 2006.
    BittorrentRedhat,
    /// Sessions of the torrent "Debian": Weibull, shape 0.38, scale 42.4 (taken as minutes). Stutzbach and Rejaie, IMC 2006.
    BittorrentDebian,
    /// Sessions of the torrent "FlatOut": Weibull, shape 0.59, scale 41.9 (taken as minutes). Stutzbach and Rejaie, IMC
    /// 2006.
    BittorrentFlatout,
    /// Weibull: sessions of scale 169.5385 min and shape 0.61511, down times of scale 413.6765 min and shape 0.47648. Steiner et al., 2009.
    Kad,
    /// A Poisson process of deaths, each followed by a new node; medians from 1.4 min to 3 h. Rhea et al., USENIX 2004.
    #[serde(rename = "rhea-2004")]
    Rhea2004(RawRhea),
    /// Exponential sessions and down times with a mean of 1 h. Li et al., INFOCOM 2005.
    P2psim,
    /// Half of sessions below 2 h, 87.6 % below 8 h: the Weibull distribution through both (shape 0.795, scale 190 min).
    /// Trautwein et al., SIGCOMM 2022.
    #[serde(rename = "ipfs-2022")]
    Ipfs2022,
}

/// The settings of Rhea's churn.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "rhea")]
pub(crate) struct RawRhea {
    /// The median session.
    pub(crate) median: Field<Duration>,
}

/// A distribution of lengths of time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "distribution")]
pub(crate) enum RawDistribution {
    /// Memoryless.
    Exponential(RawMean),
    /// P(X > x) = exp(-(x / scale)^shape).
    Weibull(RawSized),
    /// P(X > x) = (scale / x)^shape from the scale on; the shape is above 1.
    Pareto(RawSized),
    /// The logarithm is normal, with the standard deviation `sigma`.
    LogNormal(RawLogNormal),
    /// Always the same.
    Fixed(Field<Duration>),
}

/// An exponential distribution.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "exponential")]
pub(crate) struct RawMean {
    /// The mean.
    pub(crate) mean: Field<Duration>,
}

/// A distribution with a shape, and with its mean or its scale.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "shaped", extend("minProperties" = 2, "maxProperties" = 2))]
pub(crate) struct RawSized {
    /// The shape.
    pub(crate) shape: Field<Number>,
    /// The mean.
    pub(crate) mean: Option<Field<Duration>>,
    /// The scale.
    pub(crate) scale: Option<Field<Duration>>,
}

/// A log-normal distribution, with its mean or its median.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "log_normal", extend("minProperties" = 2, "maxProperties" = 2))]
pub(crate) struct RawLogNormal {
    /// The standard deviation of the logarithm.
    pub(crate) sigma: Field<Number>,
    /// The mean.
    pub(crate) mean: Option<Field<Duration>>,
    /// The median.
    pub(crate) median: Option<Field<Duration>>,
}

/// A trace. The nodes that are up at `from` take the place of those that the trace has up at its window's beginning; its
/// others are
/// new nodes. If the trace has more up than the plan, a share of all its nodes is drawn by the seed; if it has fewer,
/// the rest of the
/// plan's nodes stay up. Who is up at the window's end stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "trace")]
pub(crate) struct RawTrace {
    /// The file; its name counts from the plan's directory.
    pub(crate) file: Field<FileName>,
    /// Its format.
    pub(crate) format: RawTraceFormat,
    /// How much faster than in the trace time goes. Default: 1.
    pub(crate) speed_up: Option<Field<Number>>,
    /// What is played of it. Default: all.
    pub(crate) window: Option<RawWindow>,
    /// How sessions end. Default: kill.
    pub(crate) end: Option<RawEnd>,
}

/// A part of a trace, in its own time, counted from its first event.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "window")]
pub(crate) struct RawWindow {
    /// Default: its first event.
    pub(crate) from: Option<Field<Duration>>,
    /// Default: its last event.
    pub(crate) to: Option<Field<Duration>>,
}

/// A format of traces.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "format")]
pub(crate) enum RawTraceFormat {
    /// `id n start end start end …`: n sessions in seconds, their ends included (Godfrey's availability traces).
    Avt,
    /// A node a line: when it came, when it went, when it came, … in seconds; an odd number of times: it is up at the end.
    Splay,
    /// `t node JOIN` or `t node LEAVE`, in time order.
    Oversim,
    /// `node,start,end`, a session a line; without an end: it is up at the end.
    Csv,
}
