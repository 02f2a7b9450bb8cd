//! Checked settings. A [`NetConfig`] that exists is one that a network can run with.

mod routing;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Ring;

pub use routing::{LINK_CACHE_MAX, PERIOD_MS_MAX, PERIOD_MS_MIN, Routing, Stabilise};

/// The version of the protocol between nodes. Nodes of other versions are refused at the handshake.
pub const PROTOCOL_VERSION: u16 = 1;

/// The largest search arity `k` of a geometry.
pub const ARITY_MAX: u16 = 256;

/// The longest successor list.
pub const SUCCESSORS_MAX: u8 = 32;

/// The most places that a key of the dictionary has.
pub const REPLICATION_MAX: u8 = 16;

/// In how many places a key of the dictionary is, unless the network says otherwise.
pub const REPLICATION_DEFAULT: u8 = 3;

/// A kind of link table: at which fixed offsets from a node its fingers stand (`core::geometry` has the tables).
///
/// Sources: Chord, Stoica et al. 2001; DKS, Alima et al. 2003; Tango, Carton & Mesaros, Euro-Par 2004.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Geometry {
    /// Offsets 2^i: the same as `Dks { k: 2 }`.
    Chord,
    /// Offsets j * k^i for j in `1..k`.
    Dks {
        /// The search arity, `2..=`[`ARITY_MAX`].
        k: u16,
    },
    /// Tango's offsets, which reach further than DKS's in as many hops with as many links.
    Tango {
        /// The search arity, `2..=`[`ARITY_MAX`]; odd where `symmetric`.
        k: u16,
        /// Half of the fingers clockwise and half counter-clockwise, or all clockwise.
        symmetric: bool,
    },
}

impl Geometry {
    /// The search arity k: a step has k - 1 fingers.
    pub fn arity(self) -> u16 {
        match self {
            Geometry::Chord => 2,
            Geometry::Dks { k } | Geometry::Tango { k, .. } => k,
        }
    }

    /// Whether fingers stand on both sides of the node.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Geometry::Tango { symmetric: true, .. })
    }

    /// Checks the arity.
    ///
    /// # Errors
    /// [`ConfigError::Arity`] out of `2..=ARITY_MAX`, [`ConfigError::EvenArity`] for a symmetric table with an even one.
    pub fn checked(self) -> Result<Geometry, ConfigError> {
        let k = self.arity();
        if !(2..=ARITY_MAX).contains(&k) {
            return Err(ConfigError::Arity(k));
        }
        if self.is_symmetric() && k.is_multiple_of(2) {
            return Err(ConfigError::EvenArity { k });
        }
        Ok(self)
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Geometry::Chord => write!(f, "chord"),
            Geometry::Dks { k } => write!(f, "dks(k={k})"),
            Geometry::Tango { k, symmetric: false } => write!(f, "tango(k={k})"),
            Geometry::Tango { k, symmetric: true } => write!(f, "tango(k={k}, symmetric)"),
        }
    }
}

/// When a node is a client of another one, its proxy, instead of a member of the ring (P2PS's `useProxy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProxyUse {
    /// If the node that it joins by cannot reach it: it stands behind a firewall, say.
    #[default]
    IfUnreachable,
    /// In any case: it accepts no links.
    Always,
    /// In no case: a node that cannot be reached does not get into the network.
    Never,
}

/// The settings that all nodes of a network share. Nodes with other settings are refused at the handshake.
///
/// # Examples
/// ```
/// use p2ps::config::{Geometry, NetConfig};
/// use p2ps::core::geometry::at_most_hops;
///
/// // A ring of 2^32 ids, each node with 8 successors, and a table that crosses 10 000 nodes in at most 6 hops.
/// let net = NetConfig::new("2^32".parse()?, at_most_hops(6, 10_000)?, 8)?.with_replication(5)?;
/// assert_eq!(net.to_string(), "max_size 2^32, tango(k=5, symmetric), 8 successors, replication 5");
///
/// let error = Geometry::Tango { k: 4, symmetric: true }.checked().unwrap_err();
/// assert!(error.to_string().contains("odd"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "UncheckedNetConfig")]
pub struct NetConfig {
    ring: Ring,
    geometry: Geometry,
    successors: u8,
    replication: u8,
    routing: Routing,
}

impl NetConfig {
    /// Settings that have been checked; keys are in [`REPLICATION_DEFAULT`] places, and the options of routing are as by default.
    ///
    /// # Errors
    /// What [`Geometry::checked`] says; [`ConfigError::Successors`] unless `successors` is in `1..=`[`SUCCESSORS_MAX`].
    pub fn new(ring: Ring, geometry: Geometry, successors: u8) -> Result<NetConfig, ConfigError> {
        let geometry = geometry.checked()?;
        if !(1..=SUCCESSORS_MAX).contains(&successors) {
            return Err(ConfigError::Successors(successors));
        }
        let routing = Routing::default();
        Ok(NetConfig { ring, geometry, successors, replication: REPLICATION_DEFAULT, routing })
    }

    /// The same, but each key of the dictionary is in `replication` places.
    ///
    /// # Errors
    /// [`ConfigError::Replication`] unless `replication` is in `1..=`[`REPLICATION_MAX`].
    pub fn with_replication(self, replication: u8) -> Result<NetConfig, ConfigError> {
        if !(1..=REPLICATION_MAX).contains(&replication) {
            return Err(ConfigError::Replication(replication));
        }
        Ok(NetConfig { replication, ..self })
    }

    /// The same, with other options of routing.
    ///
    /// # Errors
    /// What [`Routing::checked`] says.
    pub fn with_routing(self, routing: Routing) -> Result<NetConfig, ConfigError> {
        Ok(NetConfig { routing: routing.checked()?, ..self })
    }

    /// The ring of ids.
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// The kind of link table.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The length r of a successor list: r neighbours may fail at once. In `1..=`[`SUCCESSORS_MAX`].
    pub fn successors(&self) -> usize {
        usize::from(self.successors)
    }

    /// In how many places each key of the dictionary is (P2PS's symmetric replication, f). In `1..=`[`REPLICATION_MAX`].
    pub fn replication(&self) -> u8 {
        self.replication
    }

    /// The options of routing and of table maintenance.
    pub fn routing(&self) -> Routing {
        self.routing
    }
}

impl Default for NetConfig {
    /// Ids to 2^32, symmetric Tango of arity 5, eight successors, keys in three places.
    fn default() -> NetConfig {
        NetConfig {
            ring: Ring::DEFAULT,
            geometry: Geometry::Tango { k: 5, symmetric: true },
            successors: 8,
            replication: REPLICATION_DEFAULT,
            routing: Routing::default(),
        }
    }
}

impl fmt::Display for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NetConfig { ring, geometry, successors, replication, routing } = self;
        write!(f, "max_size {ring}, {geometry}, {successors} successors, replication {replication}{routing}")
    }
}

#[derive(Deserialize)]
struct UncheckedNetConfig {
    ring: Ring,
    geometry: Geometry,
    successors: u8,
    replication: u8,
    #[serde(default)]
    routing: Routing,
}

impl TryFrom<UncheckedNetConfig> for NetConfig {
    type Error = ConfigError;

    fn try_from(raw: UncheckedNetConfig) -> Result<NetConfig, ConfigError> {
        let net = NetConfig::new(raw.ring, raw.geometry, raw.successors)?;
        net.with_replication(raw.replication)?.with_routing(raw.routing)
    }
}

/// Why settings were refused (P2PS 1.0's `couldNotConfig` and `nrSuccTooLarge`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The arity is out of range.
    #[error("a geometry's arity k is 2 to {ARITY_MAX}, not {0}")]
    Arity(u16),
    /// A symmetric table needs as many fingers on either side.
    #[error("a symmetric Tango table needs an odd k (as many fingers on either side), not {k}: try {}", k + 1)]
    EvenArity {
        /// The even arity.
        k: u16,
    },
    /// The successor list is too short or too long.
    #[error("a successor list has 1 to {SUCCESSORS_MAX} entries, not {0}")]
    Successors(u8),
    /// Keys would have no place, or too many.
    #[error("a key has 1 to {REPLICATION_MAX} places, not {0}")]
    Replication(u8),
    /// More links than are kept for shorter routes.
    #[error("a node keeps 0 to {LINK_CACHE_MAX} links for shorter routes, not {0}")]
    LinkCache(u16),
    /// Rounds too often or too seldom.
    #[error("rounds come every {PERIOD_MS_MIN} to {PERIOD_MS_MAX} ms, not every {period_ms}")]
    Period {
        /// The period that was asked for.
        period_ms: u32,
    },
    /// No table does what was wished for.
    #[error(
        "no Tango table of k up to {ARITY_MAX} crosses a ring of {nodes} nodes with at most {limit} {wish}"
    )]
    Unreachable {
        /// `hops` or `links`.
        wish: &'static str,
        /// How many of them.
        limit: u32,
        /// The nodes of the ring.
        nodes: u128,
    },
}
