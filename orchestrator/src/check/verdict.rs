//! The verdict on a run, as `verdict.json` has it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

use crate::record::{Judged, Reaches};

use super::CheckError;

/// The verdict on a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the run came to its end and all expectations held.
    pub passed: bool,
    /// Each expectation of the plan, in its order.
    pub expectations: Vec<ExpectationVerdict>,
    /// What was measured, by the names of [`FIGURES`](crate::plan::FIGURES): times in seconds, shares in 0..=1. What was not
    /// measured is absent.
    #[serde(serialize_with = "figures")]
    pub figures: BTreeMap<String, f64>,
    /// The plan's name.
    pub plan: String,
    /// The plan's seed.
    pub seed: u64,
    /// How long the run was, in seconds.
    pub duration: f64,
    /// Whether it came to its planned end.
    pub complete: bool,
    /// Hosts that took part.
    pub hosts: u32,
    /// Hosts that were lost.
    pub hosts_lost: u32,
    /// Why look-ups did not succeed: `failed.timed_out`, `lost.node_ended`, `wrong`, and how often. Other operations have their kind before it:
    /// `get.wrong.missing`.
    #[serde(default)]
    pub unsuccessful: BTreeMap<String, u64>,
    /// How often something went wrong with the run itself.
    #[serde(default)]
    pub problems: u64,
    /// The first of these.
    #[serde(default)]
    pub first_problems: Vec<String>,
    /// The judgement of each operation, in the record's order; not in the file, but in `ops.parquet`.
    #[serde(skip)]
    pub judged: Vec<Judged>,
    /// How far each message came; in `ops.parquet` too.
    #[serde(skip)]
    pub reaches: Reaches,
}

/// What became of one expectation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpectationVerdict {
    /// As the plan wrote it.
    pub text: String,
    /// What was measured, in base units; `None`: it was not measured, or never came to be.
    #[serde(serialize_with = "maybe_figure")]
    pub value: Option<f64>,
    /// Whether it held.
    pub held: bool,
    /// What there is to say where there is no value: `not measured`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Verdict {
    /// Reads the verdict of a run that has been.
    ///
    /// # Errors
    /// Where the file is not there, or is none.
    pub fn read(path: &Path) -> Result<Verdict, CheckError> {
        let text = fs::read(path).map_err(|source| CheckError::File { path: path.to_owned(), source })?;
        serde_json::from_slice(&text).map_err(|source| CheckError::Form { path: path.to_owned(), source })
    }

    /// Writes the verdict to its file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), CheckError> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|source| CheckError::Form { path: path.to_owned(), source })?;
        text.push('\n');
        fs::write(path, text).map_err(|source| CheckError::File { path: path.to_owned(), source })
    }
}

/// The largest integer below which every one is exact as a floating point number.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A number that is written as an integer where it is one: counts stay counts.
struct Figure(f64);

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < EXACT_MAX {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

fn figures<S: Serializer>(figures: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|(name, figure)| (name, Figure(*figure))))
}

fn maybe_figure<S: Serializer>(figure: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    figure.map(Figure).serialize(serializer)
}
