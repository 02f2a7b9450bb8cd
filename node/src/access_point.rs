//! Where a node can be reached: `p2ps://host:port`.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const SCHEME: &str = "p2ps://";

/// The address on which a node accepts links. Prints as `p2ps://host:port` and parses back; a host name is resolved when
/// it is parsed.
///
/// # Examples
/// ```
/// use p2ps::access_point::AccessPoint;
/// use std::net::SocketAddr;
///
/// let access_point: AccessPoint = "p2ps://127.0.0.1:3001".parse()?;
/// let address = SocketAddr::from(access_point); // P2PS 1.0's ap2address, and address2ap:
/// assert_eq!(AccessPoint::from(address), access_point);
/// assert_eq!(access_point.to_string(), "p2ps://127.0.0.1:3001");
/// # Ok::<(), p2ps::access_point::AccessPointError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccessPoint {
    /// The address, IPv4 or IPv6.
    pub ip: IpAddr,
    /// The TCP port.
    pub port: u16,
}

impl From<SocketAddr> for AccessPoint {
    fn from(address: SocketAddr) -> AccessPoint {
        AccessPoint { ip: address.ip(), port: address.port() }
    }
}

impl From<AccessPoint> for SocketAddr {
    fn from(access_point: AccessPoint) -> SocketAddr {
        SocketAddr::new(access_point.ip, access_point.port)
    }
}

impl fmt::Display for AccessPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", SocketAddr::from(*self))
    }
}

impl fmt::Debug for AccessPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AccessPoint {
    type Err = AccessPointError;

    fn from_str(text: &str) -> Result<AccessPoint, AccessPointError> {
        let form = || AccessPointError::Form(text.to_owned());
        let address = text.trim().strip_prefix(SCHEME).ok_or_else(form)?;
        let (_, port) = address.rsplit_once(':').ok_or_else(form)?;
        port.parse::<u16>().map_err(|_| form())?;
        let mut addresses = address
            .to_socket_addrs()
            .map_err(|source| AccessPointError::Unresolved { text: text.to_owned(), source })?;
        addresses.next().map(AccessPoint::from).ok_or_else(form)
    }
}

/// Why a text is no access point.
#[derive(Debug, thiserror::Error)]
pub enum AccessPointError {
    /// P2PS 1.0's `wrongAPFormat`.
    #[error("{0:?} is no access point: write p2ps://host:port, such as p2ps://127.0.0.1:3001")]
    Form(String),
    /// The host name is unknown.
    #[error("the host of {text:?} cannot be resolved")]
    Unresolved {
        /// What was given.
        text: String,
        /// What the resolver said.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_parses_back() {
        for text in ["p2ps://127.0.0.1:3001", "p2ps://[::1]:80"] {
            assert_eq!(text.parse::<AccessPoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_form_that_is_wanted() {
        for text in ["127.0.0.1:3001", "p2ps://127.0.0.1", "p2ps://127.0.0.1:99999", "http://127.0.0.1:1"] {
            let error = text.parse::<AccessPoint>().unwrap_err();
            assert!(error.to_string().contains("p2ps://host:port"), "{error}");
        }
    }
}
