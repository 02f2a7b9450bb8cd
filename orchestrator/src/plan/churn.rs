//! Churn: who comes and goes, and how long they stay. The published presets stand here with their sources.

use std::time::Duration;

use serde::Serialize;

use super::distribution::{Distribution, Size};

/// How nodes come and go.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Churn {
    /// Each node has sessions and, between them, down times. It starts in equilibrium: the nodes that are up when it begins are those
    /// that a network in equilibrium has up, and go on for the rest of their sessions; so many more as make the share that is up that of
    /// the equilibrium are down, for the rest of their down times, and come later. So neither the number of nodes that are up
    /// nor their ages make a jump.
    Sessions {
        /// How long a node is up.
        sessions: Distribution,
        /// How long it is down after that, then it comes back with the same identity. `None`: it does not come back; a new node
        /// joins in its place at once.
        downtime: Option<Distribution>,
        /// How its sessions end.
        end: End,
    },
    /// Nodes end as a Poisson process, and as many come: those that are down in random order, and new ones where none is.
    Rate {
        /// This share of the nodes that are up …
        share: f64,
        /// … in this time.
        per: Duration,
        /// How they end.
        end: End,
    },
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum End {
    /// The node is killed.
    Kill,
    /// It leaves in order.
    Leave,
}

/// Churn as somebody measured it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    /// Sessions in the swarm of the torrent "Red Hat".
    BittorrentRedhat,
    /// Sessions in the swarm of the torrent "Debian".
    BittorrentDebian,
    /// Sessions in the swarm of the torrent "FlatOut".
    BittorrentFlatout,
    /// Sessions and down times in KAD.
    Kad,
    /// A Poisson process of deaths, with this median session.
    Rhea2004(Duration),
    /// The simulator p2psim's.
    P2psim,
    /// Sessions in IPFS.
    Ipfs2022,
}

impl Preset {
    /// Sessions, and down times where they were published too (where not, new nodes join in place of those that end).
    ///
    /// - BitTorrent: D. Stutzbach, R. Rejaie, *Understanding churn in peer-to-peer networks* (IMC 2006): Weibull fits; that their scales
    ///   are in minutes is our assumption.
    /// - KAD: M. Steiner, T. En-Najjary, E. W. Biersack, *Long term study of peer behavior in the KAD DHT* (2009): Weibull fits.
    /// - Rhea: S. Rhea, D. Geels, T. Roscoe, J. Kubiatowicz, *Handling churn in a DHT* (USENIX 2004): a Poisson process, whose median
    ///   sessions they vary from 1.4 minutes to 3 hours; each death is followed by a new node.
    /// - p2psim: J. Li et al., *A performance vs. cost framework for evaluating DHT design tradeoffs under churn* (INFOCOM 2005): both
    ///   exponential, with a mean of an hour.
    /// - IPFS: D. Trautwein et al., *Design and evaluation of IPFS* (SIGCOMM 2022): half of the sessions are below about 2 hours and
    ///   87.6 % below 8 hours; the Weibull distribution through these two points is ours.
    pub fn lengths(self) -> (Distribution, Option<Distribution>) {
        let minutes = |shape, minutes: f64| Distribution::Weibull {
            shape,
            size: Size::Scale(Duration::from_micros((minutes * 60e6).round() as u64)),
        };
        let hour = Distribution::Exponential { mean: Duration::from_secs(3600) };
        match self {
            Preset::BittorrentRedhat => (minutes(0.34, 21.3), None),
            Preset::BittorrentDebian => (minutes(0.38, 42.4), None),
            Preset::BittorrentFlatout => (minutes(0.59, 41.9), None),
            Preset::Kad => (minutes(0.61511, 169.5385), Some(minutes(0.47648, 413.6765))),
            Preset::Rhea2004(median) => {
                (Distribution::Exponential { mean: median.div_f64(std::f64::consts::LN_2) }, None)
            }
            Preset::P2psim => (hour, Some(hour)),
            Preset::Ipfs2022 => (minutes(0.79526, 190.2544), None),
        }
    }
}

impl Churn {
    /// How many nodes are down in equilibrium for `up` that are up.
    pub fn down_for(&self, up: u32) -> f64 {
        match self {
            Churn::Sessions { sessions, downtime: Some(downtime), .. } => {
                f64::from(up) * downtime.mean_seconds() / sessions.mean_seconds()
            }
            _ => 0.0,
        }
    }

    /// How many nodes end in `length` in the mean while `up` are up; as many come.
    pub fn ends_in(&self, length: Duration, up: u32) -> f64 {
        let mean_seconds = match self {
            // An equilibrium renewal process has exactly as many renewals as its mean says.
            Churn::Sessions { sessions, .. } => sessions.mean_seconds(),
            Churn::Rate { share, per, .. } => per.as_secs_f64() / share,
        };
        f64::from(up) * length.as_secs_f64() / mean_seconds
    }

    /// How many nodes it brings in that are new to the run, in `length`: at most about so many in the mean.
    pub fn new_in(&self, length: Duration, up: u32) -> f64 {
        let ends = self.ends_in(length, up);
        match self {
            Churn::Sessions { downtime: Some(_), .. } => self.down_for(up).min(ends),
            Churn::Sessions { downtime: None, .. } | Churn::Rate { .. } => ends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(distribution: &Distribution, seconds: f64) -> f64 {
        let Distribution::Weibull { shape, .. } = distribution else { panic!("{distribution:?}") };
        1.0 - (-(seconds / distribution.scale_seconds()).powf(*shape)).exp()
    }

    #[test]
    fn presets_have_the_published_means_and_quantiles() {
        let mean_minutes = |preset: Preset| preset.lengths().0.mean_seconds() / 60.0;
        // scale * gamma(1 + 1 / shape), by another program.
        for (preset, expected) in [
            (Preset::Kad, 247.143),
            (Preset::BittorrentFlatout, 64.46),
            (Preset::P2psim, 60.0),
            (Preset::Rhea2004(Duration::from_secs(60)), std::f64::consts::LOG2_E),
        ] {
            assert!(
                (mean_minutes(preset) / expected - 1.0).abs() < 1e-3,
                "{preset:?}: {}",
                mean_minutes(preset)
            );
        }
        let ipfs = Preset::Ipfs2022.lengths().0;
        assert!((below(&ipfs, 2.0 * 3600.0) - 0.5).abs() < 1e-3);
        assert!((below(&ipfs, 8.0 * 3600.0) - 0.876).abs() < 1e-3);
    }

    #[test]
    fn kad_has_a_fifth_of_its_nodes_up() {
        let (sessions, downtime) = Preset::Kad.lengths();
        let churn = Churn::Sessions { sessions, downtime, end: End::Kill };
        let share = 100.0 / (100.0 + churn.down_for(100));
        assert!((0.2..0.23).contains(&share), "{share}");
    }
}
