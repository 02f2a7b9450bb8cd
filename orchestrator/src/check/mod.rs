//! Verdicts: what was observed, held against the ground truth.
