//! What is wrong with a plan, where, and what was meant: one error for everything that a plan can be refused for.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, SourceCode};

/// The most problems that are reported at once.
pub const PROBLEMS_MAX: usize = 50;

/// The most characters of a plan's line that the plain rendering shows.
const EXCERPT_CHARACTERS_MAX: usize = 120;

/// Why a plan was refused.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("the plan {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The plan, or an override, says something that cannot be. At least one problem.
    #[error("{}", plain(.0))]
    Refused(Vec<Problem>),
}

impl PlanError {
    /// The problems, in the plan's order; empty where the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            PlanError::Unreadable { .. } => &[],
            PlanError::Refused(problems) => problems,
        }
    }
}

fn plain(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_plain).collect::<Vec<_>>().join("\n")
}

/// One thing that is wrong. It renders with miette, or as plain text with [`Problem::to_plain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None`: the whole plan.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to write instead, if that can be said.
    pub hint: Option<String>,
}

/// A problem that does not know its place yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Refusal {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), hint: hint.into() }
    }

    pub(crate) fn at(self, place: Option<Place>) -> Problem {
        Problem { place, message: self.message, hint: Some(self.hint) }
    }
}

/// A stretch of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The plan's text, or an override's.
    pub source: Arc<Source>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Where it starts, in bytes.
    pub offset: usize,
    /// How long it is, in bytes.
    pub length: usize,
}

/// A text that problems point into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A file's path, or `--set` for an override.
    pub name: String,
    /// The text.
    pub text: String,
    /// Whether it is an override from the command line.
    pub is_override: bool,
}

impl Place {
    /// The offending text, first line only.
    pub fn text(&self) -> &str {
        let end = (self.offset + self.length).min(self.source.text.len());
        self.source.text.get(self.offset..end).unwrap_or_default().lines().next().unwrap_or_default()
    }
}

impl Problem {
    /// `plan.yaml:4:8: message`, the offending line, and the hint, without colours.
    pub fn to_plain(&self) -> String {
        let mut text = match &self.place {
            Some(place) => format!("{place}: {}", self.message),
            None => self.message.clone(),
        };
        if let Some(place) = self.place.as_ref().filter(|place| !place.source.is_override) {
            let line = place.source.text.lines().nth(place.line - 1).unwrap_or_default();
            let excerpt: String = line.trim_end().chars().take(EXCERPT_CHARACTERS_MAX).collect();
            text.push_str(&format!("\n  {} | {excerpt}", place.line));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n  hint: {hint}"));
        }
        text
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.is_override {
            write!(f, "{} {}", self.source.name, self.source.text)
        } else {
            write!(f, "{}:{}:{}", self.source.name, self.line, self.column)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|place| place as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.place.as_ref()?;
        let span = LabeledSpan::new(Some("here".to_owned()), place.offset, place.text().len());
        Some(Box::new(std::iter::once(span)))
    }
}

impl SourceCode for Place {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        context_lines_before: usize,
        context_lines_after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let contents = self.source.text.read_span(span, context_lines_before, context_lines_after)?;
        Ok(Box::new(miette::MietteSpanContents::new_named(
            self.source.name.clone(),
            contents.data(),
            *contents.span(),
            contents.line(),
            contents.column(),
            contents.line_count(),
        )))
    }
}

/// The name in `known` that is nearest to `word`, if one is near enough to have been meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&word.to_lowercase(), name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_can_be_drawn() {
        let text = "name: x\nnodes: 30s # too much\nseed: 1\n".to_owned();
        let source = Arc::new(Source { name: "plan.yaml".to_owned(), text, is_override: false });
        let place = Place { source, line: 2, column: 8, offset: 15, length: 3 };
        let problem = Refusal::new("`30s` is not a whole number", "write it like `64`").at(Some(place));
        let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none());
        let mut drawn = String::new();
        handler.render_report(&mut drawn, &problem).unwrap();
        insta::assert_snapshot!("drawn_problem", drawn);
    }

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(nearest("node", ["nodes", "name"]), Some("nodes"));
        assert_eq!(nearest("Seeds", ["seed", "nodes"]), Some("seed"));
        assert_eq!(nearest("kubernetes", ["seed", "nodes"]), None);
    }
}
