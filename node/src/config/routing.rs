//! How nodes keep their tables right and shorten their routes, beyond what the protocol needs: each an option, so that an
//! experiment can show what it is worth.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The most links that a node keeps because they shorten routes.
pub const LINK_CACHE_MAX: u16 = 1024;

/// The shortest fixed period of rounds, in milliseconds.
pub const PERIOD_MS_MIN: u32 = 100;

/// The longest fixed period of rounds, in milliseconds.
pub const PERIOD_MS_MAX: u32 = 600_000;

/// The options of routing and of table maintenance. All nodes of a network have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Routing {
    /// Correction on use (DKS, Alima et al. 2003): a message says by which finger it came, the receiver says where that is stale;
    /// and who is heard takes the place of fingers that stand farther behind their positions. Without, fingers
    /// are corrected by periodic checks only.
    pub correction_on_use: bool,
    /// Correction on change (Ghodsi, Alima & Haridi 2005): nodes that join or leave, and the successors of those that fail, tell
    /// exactly the nodes whose fingers have to change.
    pub correction_on_change: bool,
    /// How often neighbours and fingers are looked after while nothing changes. A change of the neighbours is acted on at once
    /// in any case.
    pub stabilise: Stabilise,
    /// Proximity (Gummadi et al., SIGCOMM 2003; Dabek et al., NSDI 2004): routes go by the nodes of least measured round
    /// trip among those that keep the bound of hops.
    pub proximity: bool,
    /// How many nodes that are heard in traffic are remembered, with links kept to them, as ways that are shorter than the
    /// fingers'. 0: none. At most [`LINK_CACHE_MAX`].
    pub link_cache: u16,
}

/// The period of the rounds of maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stabilise {
    /// From half a second after a change to eight seconds when nothing has changed for long, doubled each time.
    Adaptive,
    /// Always the same, as in Chord.
    Every {
        /// [`PERIOD_MS_MIN`] to [`PERIOD_MS_MAX`].
        period_ms: u32,
    },
}

impl Default for Routing {
    /// What costs least for what it gives: correction on use, adaptive rounds.
    fn default() -> Routing {
        Routing {
            correction_on_use: true,
            correction_on_change: false,
            stabilise: Stabilise::Adaptive,
            proximity: false,
            link_cache: 0,
        }
    }
}

impl Routing {
    /// Checks what has bounds.
    ///
    /// # Errors
    /// [`ConfigError::LinkCache`], [`ConfigError::Period`].
    pub fn checked(self) -> Result<Routing, ConfigError> {
        if self.link_cache > LINK_CACHE_MAX {
            return Err(ConfigError::LinkCache(self.link_cache));
        }
        match self.stabilise {
            Stabilise::Every { period_ms } if !(PERIOD_MS_MIN..=PERIOD_MS_MAX).contains(&period_ms) => {
                Err(ConfigError::Period { period_ms })
            }
            _ => Ok(self),
        }
    }
}

impl fmt::Display for Routing {
    /// What is not as by default: nothing is said of the rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Routing { correction_on_use, correction_on_change, stabilise, proximity, link_cache } = self;
        if !correction_on_use {
            write!(f, ", no correction on use")?;
        }
        if *correction_on_change {
            write!(f, ", correction on change")?;
        }
        if let Stabilise::Every { period_ms } = stabilise {
            write!(f, ", rounds every {period_ms} ms")?;
        }
        if *proximity {
            write!(f, ", proximity")?;
        }
        if *link_cache > 0 {
            write!(f, ", link cache {link_cache}")?;
        }
        Ok(())
    }
}
