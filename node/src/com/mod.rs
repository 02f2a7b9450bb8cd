//! The COM layer: access points, links, failure detection.
